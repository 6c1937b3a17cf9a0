// Keeps a phone's screen on while somebody talks. Systems take the lock back with every hidden tab.

export class WakeLock {
  #wanted = false;
  #lock = null;

  constructor() {
    document.addEventListener("visibilitychange", () => this.#acquire());
  }

  set(wanted) {
    this.#wanted = wanted;
    if (wanted) return this.#acquire();
    this.#lock?.release().catch(() => undefined);
    this.#lock = null;
  }

  async #acquire() {
    if (!this.#wanted || document.hidden || (this.#lock && !this.#lock.released)) return;
    try {
      this.#lock = await navigator.wakeLock?.request("screen") ?? null;
    } catch {
      this.#lock = null; // a low battery, or a browser without: the screen goes dark as it always did
    }
    if (!this.#wanted) this.set(false);
  }
}
