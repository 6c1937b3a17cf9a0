// The Record button, the red indicator that cannot be overlooked, and the finished recording.

import { Problem, recordingUnanswered } from "./problems.js";
import { fetchRecording } from "./server.js";

const ANSWER_MS = 6_000;

const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;

export class RecordControl {
  #element;
  #ask;
  #fail;
  #allowed = false;
  #live = false;
  #on = false;
  #since = 0;
  #timer = 0;
  #recording = null;
  #unanswered = 0;

  /** @param {Document} page @param {(on: boolean) => void} ask reaches the server @param {(error: Problem) => void} fail */
  constructor(page, ask, fail) {
    this.#element = (id) => page.getElementById(id);
    this.#ask = ask;
    this.#fail = fail;
    this.#element("record").addEventListener("click", () => this.#press());
    this.#element("recorded-save").addEventListener("click", () => this.#save());
  }

  setAllowed(allowed) {
    this.#allowed = allowed;
    this.#show();
  }

  /** Without a live session nothing is recorded. */
  setLive(live) {
    this.#live = live;
    if (!live) clearTimeout(this.#unanswered);
    if (!live && this.#on) this.update({ on: false, recording: this.#recording });
    this.#show();
  }

  /** What the server says: whether it records, and into what. */
  update({ on, recording }) {
    if (on && !this.#on) this.#since = performance.now();
    clearTimeout(this.#unanswered);
    this.#on = on;
    this.#recording = recording;
    clearInterval(this.#timer);
    if (on) this.#timer = setInterval(() => this.#tick(), 500);
    this.#element("recorded").hidden = on || !recording;
    if (!on && recording) {
      const length = recording.state === "recording" ? this.#seconds : recording.seconds;
      this.#element("recorded-text").textContent = `Recorded ${clock(length)}; it is kept on the server.`;
    }
    this.#tick();
    this.#show();
  }

  get #seconds() {
    return (performance.now() - this.#since) / 1_000;
  }

  #tick() {
    this.#element("record-time").textContent = clock(this.#on ? this.#seconds : 0);
  }

  #show() {
    this.#element("record").hidden = !this.#allowed && !this.#on;
    this.#element("record").disabled = !this.#live;
    this.#element("record").setAttribute("aria-pressed", String(this.#on));
    this.#element("record-text").textContent = this.#on ? "Stop recording" : "Record";
    this.#element("record-badge").hidden = !this.#on;
  }

  #press() {
    this.#ask(!this.#on);
    clearTimeout(this.#unanswered);
    this.#unanswered = setTimeout(() => this.#fail(recordingUnanswered()), ANSWER_MS);
  }

  async #save() {
    const button = this.#element("recorded-save");
    if (button.getAttribute("aria-disabled") === "true") return;
    button.setAttribute("aria-disabled", "true"); // a disabled one would lose the focus
    try {
      const address = URL.createObjectURL(await fetchRecording(this.#recording.url));
      const link = Object.assign(document.createElement("a"), { href: address, download: `${this.#recording.id}.mp4` });
      link.click();
      setTimeout(() => URL.revokeObjectURL(address), 60_000);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      this.#fail(error);
    } finally {
      button.setAttribute("aria-disabled", "false");
    }
  }
}
