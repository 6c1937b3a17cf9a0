// One live session: voice out, portrait and own voice in, controls and statistics on a data channel.

import { firstPicture, untilLost } from "./liveness.js";
import { Problem, browserStuck, connectionBlocked, connectionLost, noPicture, noWebRtc } from "./problems.js";
import { closeSession, describeServer, openSession, sendCandidates } from "./server.js";
import { Trickle } from "./trickle.js";
import { sleep, within } from "./wait.js";

const BROWSER_MS = 10_000;
// Together longer than a server needs to start again.
const RETRY_DELAYS_MS = [500, 1_000, 2_000, 4_000, 5_000, 5_000, 5_000, 5_000];

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
  #player;
  #abort = new AbortController();
  #closed = false;
  #reconnecting = null;

  /**
   * @param {{track: MediaStreamTrack, portrait: string, controls: object, player: Player, video: HTMLVideoElement}} parts
   */
  constructor({ track, portrait, controls, player, video }) {
    super();
    this.#track = track;
    this.#config = { portrait, controls: { ...controls } };
    this.#player = player;
    this.video = video;
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
    this.#tell({ type: "controls", ...controls });
  }

  /** Asks the server to record this session, or to stop; it answers with a `recording` event and a notice. */
  setRecording(on) {
    this.#tell({ type: "recording", on });
  }

  async setTrack(track) {
    this.#track = track;
    if (this.#sender) await within(this.#sender.replaceTrack(track), BROWSER_MS, () => { throw browserStuck(); });
  }

  close() {
    if (this.#closed) return;
    this.#closed = true;
    this.#abort.abort();
    this.#disconnect();
    this.#say("state", "closed");
  }

  async #connect() {
    const { signal } = this.#abort;
    // Asked anew for each connection, also after a break: a relay's credentials expire.
    const server = await describeServer(signal);
    signal.throwIfAborted();
    const connection = new RTCPeerConnection({
      bundlePolicy: "max-bundle",
      iceServers: server.ice_servers ?? [],
      iceTransportPolicy: server.ice_transport_policy ?? "all",
    });
    this.#connection = connection;
    this.#channel = connection.createDataChannel("talkalong");
    this.#channel.onmessage = (event) => this.#read(event.data);
    this.#channel.onopen = () => this.setControls(this.#config.controls);
    this.#sender = connection.addTransceiver(this.#track, { direction: "sendrecv" }).sender;
    preferH264(connection.addTransceiver("video", { direction: "recvonly" }));
    const stream = new MediaStream();
    connection.ontrack = ({ track, receiver }) => {
      // The server already holds both tracks back by the same time; any more buffering is only delay.
      if ("jitterBufferTarget" in receiver) receiver.jitterBufferTarget = 0;
      stream.addTrack(track);
      this.#player.show(stream);
    };

    const trickle = new Trickle(connection);
    const described = connection.createOffer().then((offer) => connection.setLocalDescription(offer));
    await within(described, BROWSER_MS, () => { throw browserStuck(); });
    const answer = await openSession(await trickle.offer(), this.#config, signal);
    if (this.#closed || this.#connection !== connection) {
      closeSession(answer.location);
      throw new DOMException("The session was closed while it was being set up.", "AbortError");
    }
    this.#place = answer.location;
    trickle.sendBy((fragment) => sendCandidates(answer.location, fragment, signal));
    const accepted = connection.setRemoteDescription({ type: "answer", sdp: answer.sdp });
    await within(accepted, BROWSER_MS, () => { throw browserStuck(); });
    await firstPicture(connection, this.video, { blocked: connectionBlocked, dark: noPicture, signal });
    this.#watch(connection);
    this.#say("state", "live");
  }

  /** Connects again as soon as this connection is no use any more. */
  #watch(connection) {
    const lost = () => {
      if (this.#connection === connection && !this.#closed) this.#reconnect();
    };
    untilLost(connection, this.#abort.signal).then(lost);
    // The server ends the channel when it ends the session (shutdown, time limit): no need to wait for ICE.
    if (this.#channel.readyState === "closed") lost();
    this.#channel.addEventListener("close", lost);
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
    this.#say("problem", ["unreachable", "no_answer"].includes(last.code) ? connectionLost() : last);
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

  #tell(message) {
    if (this.#channel?.readyState === "open") this.#channel.send(JSON.stringify(message));
  }

  #read(data) {
    let message;
    try {
      message = JSON.parse(data);
    } catch {
      return;
    }
    if (["stats", "notice", "recording"].includes(message.type)) this.#say(message.type, message);
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
