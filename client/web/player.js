// A stream in a <video>: with its sound where that is wanted and allowed. Where the browser wants a tap first, it says so.

export class Player {
  #video;
  #refused;
  #sound = false;

  /** refused: told what waits for a tap, "sound", "picture" or "" for nothing. */
  constructor(video, refused) {
    this.#video = video;
    this.#refused = refused;
    // Phones pause pictures behind other apps and during calls, and leave them so.
    document.addEventListener("visibilitychange", () => this.#goOn());
    video.addEventListener("pause", () => this.#goOn());
  }

  show(stream) {
    if (this.#video.srcObject !== stream) this.#video.srcObject = stream;
    return this.play();
  }

  clear() {
    this.#video.srcObject = null;
    this.#refused("");
  }

  /** Whether the sound is wanted. */
  setSound(on) {
    this.#sound = on;
    if (this.#video.srcObject) this.play();
    else this.#video.muted = !on;
  }

  /** Never fails, and is nothing to wait for: it settles with the first data, or not at all. */
  async play() {
    const video = this.#video;
    if (!video.srcObject) return;
    video.muted = !this.#sound;
    if (await this.#tried()) return this.#refused("");
    if (!video.muted) {
      video.muted = true;
      if (await this.#tried()) return this.#refused("sound");
    }
    this.#refused("picture");
  }

  async #tried() {
    try {
      await this.#video.play();
    } catch (error) {
      return error.name !== "NotAllowedError"; // the others mean that the next call has taken over
    }
    return true;
  }

  #goOn() {
    if (this.#video.srcObject && this.#video.paused && !document.hidden) this.play();
  }
}
