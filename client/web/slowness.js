// Whether the model is too slow for this session, by the share of pictures that came late in the last seconds.

const SLOW = 0.1;
const FINE = 0.04;
const STEADY_REPORTS = 4; // one a second: a single stall is no slow machine, and a single good second no quick one
const SETTLING_REPORTS = 6; // while codecs and browsers warm up, pictures are late that will not be later

export class Slowness {
  #reports = 0;
  #against = 0;
  #slow = false;

  /** @param {number} share of late pictures, 0..1 @returns {boolean} whether to say so */
  judge(share) {
    this.#reports += 1;
    const other = this.#slow ? share < FINE : share >= SLOW && this.#reports > SETTLING_REPORTS;
    this.#against = other ? this.#against + 1 : 0;
    if (this.#against >= STEADY_REPORTS) {
      this.#slow = !this.#slow;
      this.#against = 0;
    }
    return this.#slow;
  }
}

/** The sentence; the share is given in steps of ten percent, so that a screen reader does not talk on and on. */
export function slowSentence(share) {
  const machine = ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname) ? "This machine" : "The server";
  const percent = Math.max(10, 10 * Math.round(10 * share));
  return `${machine} is too slow for this portrait: ${percent} % of the pictures come late. Close what else runs there, ` +
    "or use a faster one.";
}
