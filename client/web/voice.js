// Where the voice comes from: a microphone or the bundled sample, as one audio track and a level.

import { fromMicrophone, microphoneEnded, notSecure } from "./problems.js";

const SAMPLE_URL = new URL("sample-voice.mp3", import.meta.url);
const SILENCE_DB = -60;

// For people the browser's clean-up is a help; a measurement wants the samples as they were played in.
const measuring = new URLSearchParams(location.search).get("measure") === "1";

/** The microphones, once the browser tells their names (after a permission). */
export async function listMicrophones() {
  if (!navigator.mediaDevices?.enumerateDevices) return [];
  const devices = await navigator.mediaDevices.enumerateDevices();
  return devices.filter((device) => device.kind === "audioinput" && device.deviceId && device.label);
}

export class Voice extends EventTarget {
  #context = null;
  #source = null;
  #analyser = null;
  #stream = null;
  #buffer = new Float32Array(1024);

  /** Opens a microphone; throws a Problem that says what to do. */
  async openMicrophone(deviceId) {
    if (!navigator.mediaDevices?.getUserMedia) throw notSecure();
    const processing = !measuring;
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({
        audio: {
          deviceId: deviceId ? { exact: deviceId } : undefined,
          echoCancellation: processing,
          noiseSuppression: processing,
          autoGainControl: processing,
          channelCount: 1,
        },
      });
    } catch (error) {
      throw fromMicrophone(error);
    }
    const context = await this.#replace(stream);
    this.#source = context.createMediaStreamSource(stream);
    this.#source.connect(this.#analyser);
    const [track] = stream.getAudioTracks();
    track.addEventListener("ended", () => {
      if (this.#stream === stream) this.dispatchEvent(new CustomEvent("problem", { detail: microphoneEnded() }));
    });
    return track;
  }

  /** Plays the bundled voice in a loop. */
  async openSample() {
    const data = await (await fetch(SAMPLE_URL)).arrayBuffer();
    const context = this.#context ?? new AudioContext({ latencyHint: "interactive" });
    const destination = context.createMediaStreamDestination();
    destination.channelCount = 1;
    await this.#replace(destination.stream, context);
    const source = context.createBufferSource();
    source.buffer = await context.decodeAudioData(data);
    source.loop = true;
    source.connect(this.#analyser);
    source.connect(destination);
    source.start();
    this.#source = source;
    return destination.stream.getAudioTracks()[0];
  }

  /** The loudness of the last 20 ms in dB below full scale, -60..0. */
  get levelDb() {
    if (!this.#stream || !this.#analyser) return SILENCE_DB;
    this.#analyser.getFloatTimeDomainData(this.#buffer);
    let sum = 0;
    for (const value of this.#buffer) sum += value * value;
    return Math.max(SILENCE_DB, Math.min(0, 10 * Math.log10(sum / this.#buffer.length + 1e-12)));
  }

  close() {
    this.#source?.stop?.();
    this.#source?.disconnect();
    this.#source = null;
    const stream = this.#stream;
    this.#stream = null; // first, so that the tracks' end is no problem
    for (const track of stream?.getTracks() ?? []) track.stop();
  }

  async #replace(stream, context = this.#context ?? new AudioContext({ latencyHint: "interactive" })) {
    this.close();
    this.#context = context;
    this.#analyser ??= new AnalyserNode(context, { fftSize: 1024 });
    this.#stream = stream;
    await context.resume();
    return context;
  }
}
