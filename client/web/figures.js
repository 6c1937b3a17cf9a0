// The live figures: what this browser shows, and what the server says of the same session.

import { within } from "./wait.js";

const CAPTURE_MS = 30; // a 20 ms packet plus half of the sound card's block
const SCREEN_MS = 16; // half a picture of waiting at the server's slot, then the screen's own refresh
const PERIOD_MS = 1_000;

export class Figures {
  #element;
  #video;
  #shown = 0;
  #since = 0;
  #timer = 0;
  #last = null;
  #server = null;
  #missedFps = 0; // pictures of the last second that were the one before again
  #skewMs = null;
  #running = false;

  constructor(page, video) {
    this.#element = (id) => page.getElementById(id);
    this.#video = video;
    // A hidden tab paints nothing: its last figures stay, and counting begins anew when it is seen again.
    page.addEventListener("visibilitychange", () => {
      this.#shown = 0;
      this.#since = performance.now();
    });
  }

  /** @param {() => RTCPeerConnection|null} connection the current one; it changes with a reconnection */
  start(connection) {
    this.stop();
    this.#running = true;
    this.#shown = 0;
    this.#since = performance.now();
    this.#count();
    this.#timer = setInterval(async () => {
      const now = performance.now();
      const seconds = (now - this.#since) / 1_000;
      if (document.hidden || seconds < PERIOD_MS / 2_000) return;
      const fps = this.#shown / seconds;
      this.#since = now;
      this.#shown = 0;
      const current = connection();
      const open = current && current.connectionState !== "closed";
      const received = open ? read(await within(current.getStats(), PERIOD_MS, () => new Map())) : null;
      if (this.#running && !document.hidden) this.#show(fps, received);
    }, PERIOD_MS);
  }

  stop() {
    this.#running = false;
    clearInterval(this.#timer);
    this.#last = null;
    this.#server = null;
    this.#missedFps = 0;
    this.#skewMs = null;
    this.#element("slow").hidden = true;
    for (const name of ["fps", "latency", "misses", "skew"]) this.#set(name, "–", "", NAMED_UNITS[name] ?? "");
  }

  /** The server's statistics, once a second. */
  update(stats) {
    const before = this.#server;
    if (before && stats.uptime_s > before.uptime_s) {
      this.#missedFps = (stats.frames_missed - before.frames_missed) / (stats.uptime_s - before.uptime_s);
    }
    this.#server = stats;
    const line = this.#element("slow");
    const sentence = stats.slow ? slowSentence(stats.miss_ratio) : "";
    if (line.textContent !== sentence) line.textContent = sentence;
    line.hidden = !stats.slow;
  }

  #count() {
    if (!this.#video.requestVideoFrameCallback) {
      // Old browsers count for us, only coarser.
      let before = this.#video.getVideoPlaybackQuality().totalVideoFrames;
      const look = () => {
        if (!this.#running) return;
        const now = this.#video.getVideoPlaybackQuality().totalVideoFrames;
        this.#shown += Math.max(0, now - before);
        before = now;
        setTimeout(look, 100);
      };
      look();
      return;
    }
    let presented = 0;
    const look = (_, frame) => {
      if (!this.#running) return;
      // presentedFrames also counts those that fell between two calls.
      this.#shown += presented && frame.presentedFrames > presented ? frame.presentedFrames - presented : 1;
      presented = frame.presentedFrames;
      this.#video.requestVideoFrameCallback(look);
    };
    this.#video.requestVideoFrameCallback(look);
  }

  #show(fps, received) {
    // A late picture is replaced by the one before: shown again, it is no new one.
    const fresh = Math.max(0, fps - this.#missedFps);
    this.#set("fps", fresh.toFixed(fresh < 10 ? 1 : 0), fresh >= 24 ? "good" : fresh >= 20 ? "warn" : "bad", "fps");
    const latency = this.#latencyMs(received);
    if (latency === null) this.#set("latency", "–", "", "ms");
    else this.#set("latency", `≈ ${Math.round(latency / 5) * 5}`, latency <= 350 ? "good" : "warn", "ms");
    if (this.#server) {
      const { frames_missed: missed, miss_ratio: ratio } = this.#server;
      const percent = (100 * ratio).toFixed(ratio > 0 && ratio < 0.1 ? 1 : 0);
      this.#set("misses", String(missed), ratio < 0.01 ? "good" : ratio < 0.05 ? "warn" : "bad", `now ${percent} %`);
    }
    if (received?.skewMs != null) {
      this.#skewMs = this.#skewMs === null ? received.skewMs : 0.6 * this.#skewMs + 0.4 * received.skewMs;
      const size = Math.abs(this.#skewMs);
      const word = size <= 60 ? "in sync" : size <= 120 ? "nearly" : "apart";
      const sign = Math.round(this.#skewMs) < 0 ? "−" : "+";
      this.#set("skew", `${sign}${Math.round(size)}`, size <= 60 ? "good" : size <= 120 ? "warn" : "bad", `ms, ${word}`);
    }
    this.#last = received;
  }

  /** The server's exact playout delay plus what this side can see of the rest. */
  #latencyMs(received) {
    const budget = this.#server?.budget;
    if (!budget?.playout_delay_ms) return null;
    if (!received || !this.#last) return budget.mouth_to_photon_ms;
    const frames = received.emitted - this.#last.emitted;
    if (frames <= 0) return budget.mouth_to_photon_ms;
    const buffered = (1_000 * (received.bufferedS - this.#last.bufferedS)) / frames;
    const decoding = (1_000 * (received.decodingS - this.#last.decodingS)) / frames;
    return budget.playout_delay_ms + CAPTURE_MS + received.rttMs + buffered + decoding + SCREEN_MS;
  }

  #set(name, value, level, unit) {
    const figure = this.#element(`figure-${name}`);
    figure.dataset.level = level;
    figure.querySelector(".value").textContent = value;
    figure.querySelector(".unit").textContent = unit;
  }
}

const NAMED_UNITS = { fps: "fps", latency: "ms" };

/** The few numbers of a WebRTC statistics report that the figures need. */
function read(report) {
  let audio = null;
  let video = null;
  let rttMs = 0;
  for (const item of report.values()) {
    if (item.type === "inbound-rtp" && item.kind === "audio") audio = item;
    if (item.type === "inbound-rtp" && item.kind === "video") video = item;
    if (item.type === "candidate-pair" && item.nominated && item.currentRoundTripTime !== undefined) {
      rttMs = 1_000 * item.currentRoundTripTime;
    }
  }
  if (!video) return null;
  const heard = audio?.estimatedPlayoutTimestamp;
  const seen = video.estimatedPlayoutTimestamp;
  return {
    rttMs,
    emitted: video.jitterBufferEmittedCount ?? 0,
    bufferedS: video.jitterBufferDelay ?? 0,
    decodingS: video.totalDecodeTime ?? 0,
    // Both are the sender's clock at what is being played: the older one is behind.
    skewMs: heard && seen ? heard - seen : null,
  };
}

/** The sentence; the share is given in steps of ten percent, so that a screen reader does not talk on and on. */
function slowSentence(share) {
  const machine = ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname) ? "This machine" : "The server";
  const percent = Math.max(10, 10 * Math.round(10 * share));
  return `${machine} is too slow for this portrait: ${percent} % of the pictures come late. Close what else runs there, ` +
    "or use a faster one.";
}
