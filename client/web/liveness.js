// Whether a connection brings what it should: its first picture, and after that anything at all.
//
// What is painted says nothing in a hidden tab, where browsers paint nothing; what has been received always does.

import { until, within } from "./wait.js";

const FIRST_PICTURE_MS = 15_000; // the server itself gives up after 20 s
const LOOK_MS = 1_000;
const SILENT_LOOKS = 4; // the server sends 25 pictures and 50 packets of sound a second, whatever happens
const REPORT_MS = 2_000;

/**
 * Until a picture of this connection is shown. In a hidden tab, and where the browser refuses to play before a tap,
 * until pictures are received. blocked and dark give what is thrown when nothing gets through, and when the connection
 * stands but no picture is shown.
 */
export async function firstPicture(connection, video, { blocked, dark, signal }) {
  let shown = false;
  const mark = () => { shown = true; };
  if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(mark);
  else video.addEventListener("loadeddata", mark, { once: true });
  const arrived = async () => {
    if (shown) return true;
    if (connection.connectionState === "failed") throw blocked();
    return (document.hidden || video.paused) && (await received(connection, "video")) > 0;
  };
  await until(arrived, FIRST_PICTURE_MS, async () => {
    throw connection.connectionState === "connected" ? dark() : blocked();
  }, signal);
}

/** Gives "ended", "failed" or "silent" once nothing comes any more; undefined when the signal is aborted first. */
export function untilLost(connection, signal) {
  return new Promise((resolve) => {
    let before = 0;
    let silent = 0;
    const end = (reason) => {
      clearInterval(timer);
      connection.removeEventListener("connectionstatechange", check);
      resolve(reason);
    };
    const check = () => {
      if (connection.connectionState === "closed") end("ended");
      if (connection.connectionState === "failed") end("failed");
    };
    const look = async () => {
      const now = await received(connection);
      silent = now > before || now === 0 ? 0 : silent + 1; // before anything has come, nothing is lost
      before = now;
      if (silent >= SILENT_LOOKS) end("silent");
    };
    const timer = setInterval(look, LOOK_MS);
    connection.addEventListener("connectionstatechange", check);
    signal.addEventListener("abort", () => end(undefined), { once: true });
    // A server that ends a session closes its side of DTLS: no need to wait for silence.
    for (const { receiver } of connection.getTransceivers()) {
      const { transport } = receiver;
      transport?.addEventListener("statechange", () => { if (transport.state === "closed") end("ended"); });
    }
    check();
  });
}

/** Packets that have come, of one kind or of both. */
async function received(connection, kind) {
  const reports = await within(connection.getStats(), REPORT_MS, () => new Map());
  let total = 0;
  for (const report of reports.values()) {
    if (report.type === "inbound-rtp" && (!kind || report.kind === kind)) total += report.packetsReceived ?? 0;
  }
  return total;
}
