// One live session: voice out, portrait and own voice in, controls and statistics on a data channel.

import { Problem, connectionBlocked, connectionLost, noWebRtc } from "./problems.js";
import { closeSession, describeServer, openSession } from "./server.js";

const CONNECT_TIMEOUT_MS = 12_000;
const GATHER_TIMEOUT_MS = 1_500;
const DISCONNECTED_GRACE_MS = 2_500;
const RETRY_DELAYS_MS = [500, 1_000, 2_000, 4_000, 8_000];

/**
 * Events: `state` (detail: connecting, live, reconnecting, closed), `stats` (the server's figures), `notice`
 * (the server's sentence), `recording` ({on, recording}), `retry` ({attempt, of}), `problem` (a Problem; the session is over).
 */
export class TalkSession extends EventTarget {
  #connection = null;
  #channel = null;
  #sender = null;
  #place = null;
  #track;
  #config;
  #video;
  #abort = new AbortController();
  #closed = false;
  #reconnecting = null;

  /**
   * @param {{track: MediaStreamTrack, portrait: string, controls: object, video: HTMLVideoElement}} parts
   */
  constructor({ track, portrait, controls, video }) {
    super();
    this.#track = track;
    this.#config = { portrait, controls: { ...controls } };
    this.#video = video;
  }

  get connection() {
    return this.#connection;
  }

  /** Connects; throws a Problem if that fails. */
  async start() {
    if (!globalThis.RTCPeerConnection) throw noWebRtc();
    this.#say("state", "connecting");
    try {
      await this.#connect();
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Sends the sliders; kept for a reconnection. */
  setControls(controls) {
    this.#config.controls = { ...controls };
    if (this.#channel?.readyState === "open") {
      this.#channel.send(JSON.stringify({ type: "controls", ...controls }));
    }
  }

  /** Asks the server to record this session, or to stop; it answers with a `recording` event and a notice. */
  setRecording(on) {
    if (this.#channel?.readyState === "open") this.#channel.send(JSON.stringify({ type: "recording", on }));
  }

  async setTrack(track) {
    this.#track = track;
    await this.#sender?.replaceTrack(track);
  }

  close() {
    if (this.#closed) return;
    this.#closed = true;
    this.#abort.abort();
    this.#disconnect();
    this.#say("state", "closed");
  }

  async #connect() {
    // Asked anew for each connection, also after a break: a relay's credentials expire.
    const server = await describeServer(this.#abort.signal);
    const connection = new RTCPeerConnection({
      bundlePolicy: "max-bundle",
      iceServers: server.ice_servers ?? [],
      iceTransportPolicy: server.ice_transport_policy ?? "all",
    });
    this.#connection = connection;
    const stream = new MediaStream();
    this.#channel = connection.createDataChannel("talkalong");
    this.#channel.onmessage = (event) => this.#read(event.data);
    this.#channel.onopen = () => this.setControls(this.#config.controls);
    this.#sender = connection.addTransceiver(this.#track, { direction: "sendrecv" }).sender;
    const picture = connection.addTransceiver("video", { direction: "recvonly" });
    preferH264(picture);
    connection.ontrack = ({ track, receiver }) => {
      // The server already holds both tracks back by the same time; any more buffering is only delay.
      if ("jitterBufferTarget" in receiver) receiver.jitterBufferTarget = 0;
      stream.addTrack(track);
      if (this.#video.srcObject !== stream) this.#video.srcObject = stream;
      this.#video.play().catch(() => undefined);
    };

    const offer = await connection.createOffer();
    await connection.setLocalDescription(offer);
    await gathered(connection);
    const answer = await openSession(connection.localDescription.sdp, this.#config, this.#abort.signal);
    if (this.#closed || this.#connection !== connection) {
      closeSession(answer.location);
      throw new DOMException("The session was closed while it was being set up.", "AbortError");
    }
    this.#place = answer.location;
    await connection.setRemoteDescription({ type: "answer", sdp: answer.sdp });
    await this.#firstPicture(connection);
    this.#watch(connection);
    this.#say("state", "live");
  }

  async #firstPicture(connection) {
    const video = this.#video;
    await new Promise((resolve, reject) => {
      const timeout = setTimeout(() => finish(reject, connectionBlocked()), CONNECT_TIMEOUT_MS);
      const check = () => {
        if (this.#closed) finish(reject, new DOMException("Closed.", "AbortError"));
        else if (connection.connectionState === "failed") finish(reject, connectionBlocked());
      };
      const shown = () => finish(resolve);
      const finish = (settle, value) => {
        clearTimeout(timeout);
        connection.removeEventListener("connectionstatechange", check);
        this.#abort.signal.removeEventListener("abort", check);
        settle(value);
      };
      connection.addEventListener("connectionstatechange", check);
      this.#abort.signal.addEventListener("abort", check);
      if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(shown);
      else video.addEventListener("loadeddata", shown, { once: true });
    });
  }

  #watch(connection) {
    let grace = 0;
    const look = () => {
      if (this.#connection !== connection || this.#closed) return;
      clearTimeout(grace);
      const state = connection.connectionState;
      if (state === "failed" || state === "closed") this.#reconnect();
      else if (state === "disconnected") grace = setTimeout(() => this.#reconnect(), DISCONNECTED_GRACE_MS);
    };
    connection.addEventListener("connectionstatechange", look);
    // The server ends the channel when it ends the session (shutdown, time limit): no need to wait for ICE.
    this.#channel.addEventListener("close", () => {
      if (this.#connection === connection && !this.#closed) this.#reconnect();
    });
    look();
  }

  #reconnect() {
    this.#reconnecting ??= this.#tryAgain().finally(() => { this.#reconnecting = null; });
  }

  async #tryAgain() {
    this.#say("state", "reconnecting");
    let last = connectionLost();
    for (const [index, delay] of RETRY_DELAYS_MS.entries()) {
      this.#disconnect();
      this.#say("retry", { attempt: index + 1, of: RETRY_DELAYS_MS.length });
      await sleep(Math.max(delay, last.code === "server_full" ? last.retryAfterSeconds * 1_000 : 0));
      if (this.#closed) return;
      try {
        await this.#connect();
        return;
      } catch (error) {
        if (this.#closed) return;
        if (error instanceof Problem) last = error;
        if (error instanceof Problem && !error.canRetry) break;
      }
    }
    this.close();
    this.#say("problem", last.code === "unreachable" ? connectionLost() : last);
  }

  #disconnect() {
    closeSession(this.#place);
    this.#place = null;
    const connection = this.#connection;
    this.#connection = null;
    this.#channel = null;
    this.#sender = null;
    connection?.close();
  }

  #read(data) {
    let message;
    try {
      message = JSON.parse(data);
    } catch {
      return;
    }
    if (message.type === "stats") this.#say("stats", message);
    if (message.type === "notice") this.#say("notice", message);
    if (message.type === "recording") this.#say("recording", message);
  }

  #say(kind, detail) {
    this.dispatchEvent(new CustomEvent(kind, { detail }));
  }
}

/** H.264 first where the browser has it: the server encodes it at an eighth of the cost and decoders are in hardware. */
function preferH264(transceiver) {
  const codecs = RTCRtpReceiver.getCapabilities?.("video")?.codecs;
  if (!codecs || !transceiver.setCodecPreferences) return;
  const isH264 = (codec) => codec.mimeType.toLowerCase() === "video/h264";
  try {
    transceiver.setCodecPreferences([...codecs.filter(isH264), ...codecs.filter((codec) => !isH264(codec))]);
  } catch {
    // An old browser that refuses the list keeps its own order, which works too.
  }
}

/** All own addresses, or those found in time: one exchange is enough then. */
function gathered(connection) {
  if (connection.iceGatheringState === "complete") return Promise.resolve();
  return new Promise((resolve) => {
    const timeout = setTimeout(done, GATHER_TIMEOUT_MS);
    function done() {
      clearTimeout(timeout);
      connection.removeEventListener("icegatheringstatechange", look);
      resolve();
    }
    function look() {
      if (connection.iceGatheringState === "complete") done();
    }
    connection.addEventListener("icegatheringstatechange", look);
  });
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
