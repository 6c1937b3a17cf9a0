// The bare page for one stream: watches by WHEP, comes back when the publisher does, says nothing in OBS.
//
// Address: /watch/NAME?mute=1&fit=contain|cover|fill&matte=0#token=TOKEN

import { CutOut } from "./cut-out.js";

const GATHER_TIMEOUT_MS = 1_000;
const CONNECT_TIMEOUT_MS = 10_000;
const FIRST_RETRY_MS = 1_000;
const LONGEST_RETRY_MS = 8_000;
const LOOK_MS = 1_000;
const SILENT_LOOKS = 4; // seconds without a packet, after which the stream is taken for gone
const MESSAGE_AFTER_MS = 1_500;
const MATTE = "urn:talkalong:matte";

const $ = (id) => document.getElementById(id);
const video = $("picture");
const options = new URLSearchParams(location.search);
// In the fragment, a token reaches neither the server's log nor a referrer.
const token = new URLSearchParams(location.hash.slice(1)).get("token");
const stream = location.pathname.replace(/\/+$/, "").split("/").pop();
const endpoint = new URL(`../whep/${stream}`, location.href);
const inObs = "obsstudio" in window; // a browser source shows the picture or nothing
const wantsSound = !["", "1", "true"].includes(options.get("mute") ?? "no");

let place = null; // of our session on the server
let messageTimer = 0;

class Refused extends Error {
  constructor(message, { retryAfterMs = 0, final = false } = {}) {
    super(message);
    this.retryAfterMs = retryAfterMs;
    this.final = final;
  }
}

async function run() {
  let delay = FIRST_RETRY_MS;
  for (;;) {
    try {
      await watch(() => { delay = FIRST_RETRY_MS; });
    } catch (error) {
      if (!(error instanceof Refused)) console.warn(error);
      say(error instanceof Refused ? error.message : "The connection was lost. Trying again…");
      if (error.final) return;
      await sleep(Math.max(delay, error.retryAfterMs ?? 0));
      delay = Math.min(delay * 1.5, LONGEST_RETRY_MS);
    }
  }
}

/** Watches until the stream ends or the connection is lost; then throws. onLive: called once there is a picture. */
async function watch(onLive) {
  const connection = new RTCPeerConnection({ bundlePolicy: "max-bundle", iceServers: await iceServers() });
  const cutOut = new CutOut(video, $("cut-out"));
  try {
    const media = new MediaStream();
    connection.ontrack = ({ track, receiver }) => {
      // The server holds both tracks back by the same time already.
      if ("jitterBufferTarget" in receiver) receiver.jitterBufferTarget = 0;
      media.addTrack(track);
    };
    connection.addTransceiver("audio", { direction: "recvonly" });
    connection.addTransceiver("video", { direction: "recvonly" });
    await connection.setLocalDescription();
    await gathered(connection);
    const answer = await offer(connection.localDescription.sdp);
    place = answer.place;
    await connection.setRemoteDescription({ type: "answer", sdp: answer.sdp });
    const matte = options.get("matte") === "0" ? null : answer.matte;
    if (matte) await cutOut.load(new URL(matte, endpoint)).catch((error) => console.warn(error));
    video.srcObject = media;
    const ended = untilEnded(connection);
    ended.catch(() => undefined); // it may fail while we wait for the picture
    await Promise.race([firstPicture(), ended, timeout(CONNECT_TIMEOUT_MS)]);
    if (cutOut.ready) cutOut.start();
    document.body.toggleAttribute("data-matte", cutOut.ready);
    document.body.dataset.state = "live";
    say("");
    onLive();
    await ended;
  } finally {
    document.body.dataset.state = "waiting";
    cutOut.stop();
    connection.close();
    leave();
    video.srcObject = null;
  }
}

function headers(more = {}) {
  return token ? { ...more, Authorization: `Bearer ${token}` } : more;
}

async function iceServers() {
  const response = await fetch(endpoint, { method: "OPTIONS", headers: headers() });
  return links(response, "ice-server").map(({ target, parameters }) => ({
    urls: target, username: parameters.username, credential: parameters.credential,
  }));
}

async function offer(sdp) {
  const response = await fetch(endpoint, {
    method: "POST", body: sdp, headers: headers({ "Content-Type": "application/sdp" }),
  });
  if (!response.ok) throw await refusal(response);
  return {
    sdp: await response.text(),
    place: new URL(response.headers.get("Location"), endpoint),
    matte: links(response, MATTE)[0]?.target,
  };
}

async function refusal(response) {
  const retryAfterMs = 1_000 * (Number(response.headers.get("Retry-After")) || 0);
  const said = (await response.json().catch(() => ({}))).error?.message;
  if (response.status === 409) return new Refused("Nobody is on air yet. The picture comes by itself.", { retryAfterMs });
  if (response.status === 401) {
    return new Refused("This stream needs a token: add #token=… to the address, and reload.", { final: true });
  }
  return new Refused(said ?? `The server answered ${response.status}.`, { retryAfterMs });
}

/** The links of this relation (RFC 8288). */
function links(response, relation) {
  const values = response.headers.get("Link") ?? "";
  return [...values.matchAll(/<([^>]*)>((?:\s*;\s*[\w-]+=(?:"(?:[^"\\]|\\.)*"|[^",;]*))*)/g)]
    .map(([, target, rest]) => ({
      target,
      parameters: Object.fromEntries([...rest.matchAll(/([\w-]+)=(?:"((?:[^"\\]|\\.)*)"|([^",;]*))/g)]
        .map(([, name, quoted, plain]) => [name, quoted?.replace(/\\(.)/g, "$1") ?? plain.trim()])),
    }))
    .filter(({ parameters }) => parameters.rel === relation);
}

/** Rejects once the connection has ended or nothing has come for a while. */
function untilEnded(connection) {
  return new Promise((_, reject) => {
    let received = 0;
    let silent = 0;
    const end = (message) => {
      clearInterval(timer);
      reject(new Refused(message));
    };
    const look = async () => {
      if (["failed", "closed"].includes(connection.connectionState)) return end("The stream has ended.");
      let total = 0;
      for (const report of (await connection.getStats()).values()) {
        if (report.type === "inbound-rtp") total += report.packetsReceived;
      }
      silent = total > received ? 0 : silent + 1;
      received = total;
      if (silent >= SILENT_LOOKS && document.body.dataset.state === "live") end("The stream has stopped.");
    };
    const timer = setInterval(look, LOOK_MS);
    connection.addEventListener("connectionstatechange", look);
    for (const { receiver } of connection.getTransceivers()) {
      receiver.transport?.addEventListener("statechange", () => {
        if (receiver.transport.state === "closed") end("The stream has ended.");
      });
    }
  });
}

/** Plays, with sound if the browser lets us; resolves with the first picture. */
async function firstPicture() {
  const shown = new Promise((resolve) => {
    if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(resolve);
    else video.addEventListener("loadeddata", resolve, { once: true });
  });
  video.muted = !wantsSound;
  try {
    await video.play();
  } catch (error) {
    if (error.name !== "NotAllowedError") throw error;
    video.muted = true;
    await video.play();
  }
  $("hint").hidden = !(wantsSound && video.muted);
  await shown;
}

function unmute() {
  if (!wantsSound || !video.muted || !video.srcObject) return;
  video.muted = false;
  $("hint").hidden = true;
  video.play().catch(() => {
    video.muted = true;
    $("hint").hidden = false;
  });
}

/** A sentence for a person who looks, once it has been true for a while; "" takes it away. */
function say(text) {
  clearTimeout(messageTimer);
  const message = $("message");
  if (!text || inObs) {
    message.hidden = true;
    return;
  }
  if (!message.hidden) message.textContent = text;
  messageTimer = setTimeout(() => {
    message.textContent = text;
    message.hidden = false;
  }, MESSAGE_AFTER_MS);
}

/** Ends our session, also while the page is being left. */
function leave() {
  if (place) fetch(place, { method: "DELETE", keepalive: true, headers: headers() }).catch(() => undefined);
  place = null;
}

function gathered(connection) {
  return new Promise((resolve) => {
    setTimeout(resolve, GATHER_TIMEOUT_MS);
    const look = () => { if (connection.iceGatheringState === "complete") resolve(); };
    connection.addEventListener("icegatheringstatechange", look);
    look();
  });
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function timeout(ms) {
  await sleep(ms);
  throw new Refused("No picture came: the network may not let it through.");
}

document.body.dataset.fit = ["cover", "fill"].includes(options.get("fit")) ? options.get("fit") : "contain";
addEventListener("pointerdown", unmute);
addEventListener("keydown", unmute);
addEventListener("pagehide", leave);
run();
