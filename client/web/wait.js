// Waits that end: whatever a browser, a device or a server promises, nobody waits for it for ever.

const LOOK_MS = 50;
const LONGEST_LOOK_MS = 1_500;
const LATE = Symbol("late");

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** What the promise gives; after `ms` what `late` gives or throws. */
export async function within(promise, ms, late) {
  let timer = 0;
  const limit = new Promise((resolve) => { timer = setTimeout(resolve, ms, LATE); });
  try {
    const first = await Promise.race([promise, limit]);
    return first === LATE ? late() : first;
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Looks until there is something true, and gives it; after `ms` what `late` gives or throws. Time in which the page was
 * frozen (a phone in a pocket, a closed lid) does not count. Throws the signal's reason when it is aborted.
 */
export async function until(look, ms, late, signal) {
  let waited = 0;
  for (;;) {
    if (signal?.aborted) throw signal.reason;
    const found = await look();
    if (found) return found;
    if (waited >= ms) return late();
    const before = performance.now();
    await sleep(LOOK_MS);
    waited += Math.min(performance.now() - before, LONGEST_LOOK_MS);
  }
}

/** A signal for `fetch` that fires after `ms`, counted anew from each `restart`, and with the signal that is given. */
export class TimeLimit {
  #controller = new AbortController();
  #ms;
  #timer = 0;
  #signal;
  #pass = () => this.#controller.abort(this.#signal.reason);

  constructor(ms, signal) {
    this.#ms = ms;
    this.#signal = signal;
    if (signal?.aborted) this.#pass();
    signal?.addEventListener("abort", this.#pass);
    this.restart();
  }

  get signal() {
    return this.#controller.signal;
  }

  restart() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#controller.abort(new DOMException("It took too long.", "TimeoutError")), this.#ms);
  }

  end() {
    clearTimeout(this.#timer);
    this.#signal?.removeEventListener("abort", this.#pass);
  }
}
