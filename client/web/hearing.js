// Whether the voice that comes back is heard: the button, its words, and the tap that some browsers want first.

import { Player } from "./player.js";

const SILENT = "Off, so that a loudspeaker cannot feed back into your microphone. With headphones, switch it on.";
const HEARD = "The voice comes back from the server, held back so that it meets the lips.";
const TAPS = { sound: "Tap to hear the voice", picture: "Tap to show the portrait" };

export class Hearing {
  #element;
  #on = false;
  #kind = "microphone"; // of voice
  #chosenFor = ""; // the kind that the person's choice, or ours, was made for

  constructor(page, video) {
    this.#element = (id) => page.getElementById(id);
    const tap = this.#element("tap");
    this.player = new Player(video, (refused) => {
      tap.hidden = !refused;
      tap.textContent = TAPS[refused] ?? "";
    });
    tap.addEventListener("click", () => this.player.play());
    this.#element("hear").addEventListener("click", () => this.#set(!this.#on));
    this.#set(false);
  }

  /** A loudspeaker and an open microphone feed back, the sample voice cannot; the person's own choice is kept. */
  suggest(kind) {
    this.#kind = kind;
    if (this.#chosenFor !== kind) this.#set(kind === "sample");
    this.#chosenFor = kind;
  }

  #set(on) {
    this.#on = on;
    this.player.setSound(on);
    const sample = this.#kind === "sample";
    this.#element("hear").setAttribute("aria-pressed", String(on));
    this.#element("hear-text").textContent = `Hear ${sample ? "the voice" : "yourself"}: ${on ? "on" : "off"}`;
    this.#element("hear-help").textContent = sample || on ? HEARD : SILENT;
  }
}
