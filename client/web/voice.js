// Where the voice comes from: a microphone or the bundled sample, as one audio track and a level.

import { fromMicrophone, microphoneEnded, microphoneStuck, notSecure, sampleMissing, sampleMuted } from "./problems.js";
import { TimeLimit, until, within } from "./wait.js";

const SAMPLE_URL = new URL("sample-voice.mp3", import.meta.url);
const SILENCE_DB = -60;
const DEVICES_MS = 3_000;
const MICROPHONE_MS = 15_000; // once allowed; while the browser asks, the person has all the time
const RUNNING_MS = 1_500;
const LOADING_MS = 15_000;
const HELD_MS = 1_000; // some browsers mute a track for a moment while it starts

// For people the browser's clean-up is a help; a measurement wants the samples as they were played in.
const measuring = new URLSearchParams(location.search).get("measure") === "1";

/** The microphones, once the browser tells their names (after a permission). */
export async function listMicrophones() {
  if (!navigator.mediaDevices?.enumerateDevices) return [];
  const devices = await within(navigator.mediaDevices.enumerateDevices(), DEVICES_MS, () => []).catch(() => []);
  return devices.filter((device) => device.kind === "audioinput" && device.deviceId && device.label);
}

/** Whether the browser lets this page have the microphone without asking. */
async function isAllowed() {
  try {
    const permission = navigator.permissions.query({ name: "microphone" });
    return (await within(permission, DEVICES_MS, () => ({}))).state === "granted";
  } catch {
    return false; // browsers that do not tell
  }
}

/**
 * Events: `asking` (the browser asks the person for the microphone), `held` (detail: whether the system keeps the voice
 * back, as during a phone call), `problem` (a Problem; the voice is over).
 */
export class Voice extends EventTarget {
  #context = null;
  #analyser = null;
  #buffer = new Float32Array(1024);
  #stream = null;
  #ends = []; // what ends the voice that is open
  #holds = () => false; // whether the system keeps it back
  #held = false;

  constructor() {
    super();
    // Phones stop all sound for a call and do not always begin again; some need a tap for it.
    document.addEventListener("visibilitychange", () => this.#resume());
    for (const touch of ["pointerdown", "pointerup", "keydown"]) addEventListener(touch, () => this.#resume());
  }

  /** Opens a microphone; throws a Problem that says what to do, or an AbortError if the voice was closed meanwhile. */
  async openMicrophone(deviceId) {
    if (!navigator.mediaDevices?.getUserMedia) throw notSecure();
    const signal = this.#begin();
    const stream = await this.#ask(deviceId, signal);
    const end = () => { for (const track of stream.getTracks()) track.stop(); };
    if (signal.aborted) {
      end();
      throw signal.reason;
    }
    this.#stream = stream;
    this.#ends.push(end);
    const [track] = stream.getAudioTracks();
    track.addEventListener("ended", () => {
      if (this.#stream === stream) this.#say("problem", microphoneEnded());
    });
    this.#holds = () => track.muted;
    track.addEventListener("mute", () => this.#look());
    track.addEventListener("unmute", () => { this.#look(); this.#resume(); });
    this.#look();
    const source = this.#open().createMediaStreamSource(stream);
    source.connect(this.#analyser);
    this.#ends.push(() => source.disconnect());
    this.#resume(); // for the level only: the track itself needs no running context
    return track;
  }

  /** Plays the bundled voice in a loop; throws as `openMicrophone` does. */
  async openSample() {
    const signal = this.#begin();
    const context = this.#open();
    this.#resume();
    const running = await until(() => context.state === "running", RUNNING_MS, () => false, signal);
    return running ? this.#sampleByContext(context, signal) : this.#sampleByElement(signal);
  }

  /** The loudness of the last 20 ms in dB below full scale, -60..0; null where the browser does not tell. */
  get levelDb() {
    if (!this.#stream) return SILENCE_DB;
    if (this.#context.state !== "running") return null;
    this.#analyser.getFloatTimeDomainData(this.#buffer);
    let sum = 0;
    for (const value of this.#buffer) sum += value * value;
    return Math.max(SILENCE_DB, Math.min(0, 10 * Math.log10(sum / this.#buffer.length + 1e-12)));
  }

  close() {
    this.#stream = null; // first, so that the tracks' end is no problem
    this.#holds = () => false;
    this.#hold(false);
    for (const end of this.#ends.splice(0)) end();
  }

  /** Closes what is open; the signal fires when this voice is closed in turn. */
  #begin() {
    this.close();
    const closing = new AbortController();
    this.#ends.push(() => closing.abort(new DOMException("The voice was closed.", "AbortError")));
    return closing.signal;
  }

  async #ask(deviceId, signal) {
    const allowed = await isAllowed();
    if (signal.aborted) throw signal.reason;
    if (!allowed) this.#say("asking");
    const processing = !measuring;
    const microphone = navigator.mediaDevices.getUserMedia({
      audio: {
        deviceId: deviceId ? { exact: deviceId } : undefined,
        echoCancellation: processing,
        noiseSuppression: processing,
        autoGainControl: processing,
        channelCount: 1,
      },
    }).catch((error) => { throw fromMicrophone(error); });
    if (!allowed) return microphone;
    return within(microphone, MICROPHONE_MS, () => {
      microphone.then((stream) => { for (const track of stream.getTracks()) track.stop(); }, () => undefined);
      throw microphoneStuck();
    });
  }

  async #sampleByContext(context, signal) {
    const limit = new TimeLimit(LOADING_MS, signal);
    let buffer;
    try {
      const response = await fetch(SAMPLE_URL, { signal: limit.signal });
      if (!response.ok) throw sampleMissing();
      const decoding = context.decodeAudioData(await response.arrayBuffer());
      buffer = await within(decoding, LOADING_MS, () => { throw sampleMissing(); });
    } catch {
      throw signal.aborted ? signal.reason : sampleMissing();
    } finally {
      limit.end();
    }
    const destination = context.createMediaStreamDestination();
    destination.channelCount = 1;
    const source = new AudioBufferSourceNode(context, { buffer, loop: true });
    source.connect(this.#analyser);
    source.connect(destination);
    source.start();
    this.#stream = destination.stream;
    this.#holds = () => context.state !== "running";
    this.#ends.push(() => {
      source.stop();
      source.disconnect();
      for (const track of destination.stream.getTracks()) track.stop();
    });
    return destination.stream.getAudioTracks()[0];
  }

  /** Firefox without a sound output never runs an AudioContext; an element plays there all the same. */
  async #sampleByElement(signal) {
    const element = new Audio(SAMPLE_URL);
    element.loop = true;
    const capture = element.captureStream ?? element.mozCaptureStream;
    if (!capture) throw sampleMuted();
    this.#ends.push(() => element.pause());
    try {
      await within(element.play(), LOADING_MS, () => { throw sampleMissing(); });
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      throw error.name === "NotAllowedError" ? sampleMuted() : sampleMissing();
    }
    const stream = capture.call(element);
    const track = () => stream.getAudioTracks()[0];
    await until(track, RUNNING_MS, () => { throw sampleMuted(); }, signal);
    this.#stream = stream;
    return track();
  }

  #open() {
    if (this.#context) return this.#context;
    const context = this.#context = new AudioContext({ latencyHint: "interactive" });
    this.#analyser = new AnalyserNode(context, { fftSize: 1024 });
    context.addEventListener("statechange", () => {
      this.#look();
      // Of Safari's "interrupted", resume() makes a context that says it runs and does not: wait for "suspended".
      if (context.state === "suspended") this.#resume();
    });
    return context;
  }

  /** Not to be waited for: without a sound output or a tap, the promise may never settle. */
  #resume() {
    if (!this.#context || !this.#ends.length || document.hidden) return;
    if (this.#context.state !== "running") this.#context.resume().catch(() => undefined);
  }

  #look() {
    const stream = this.#stream;
    setTimeout(() => {
      if (stream && this.#stream === stream) this.#hold(this.#holds());
    }, this.#holds() ? HELD_MS : 0);
  }

  #hold(held) {
    if (held === this.#held) return;
    this.#held = held;
    this.#say("held", held);
  }

  #say(kind, detail) {
    this.dispatchEvent(new CustomEvent(kind, { detail }));
  }
}
