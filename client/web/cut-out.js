// Takes the backdrop of a portrait away, picture by picture, where the portrait was transparent.
//
// The matte (stream/portraits/matte.py) is two pictures, one above the other. Above: the colour of the head nearest to each place.
// Below: red the opacity of the still portrait, green how far to trust it, blue the grey of the backdrop.

import { TimeLimit } from "./wait.js";

const LOADING_MS = 10_000;
const OPAQUE = 255;
// On the line from the backdrop to the head's colour: below and above these shares it is one or the other.
const LOW = 0.06;
const HIGH = 0.9;
// A colour this far beside that line is neither, so it is the portrait's.
const BESIDE = [14, 42];

export class CutOut {
  #video;
  #canvas;
  #context;
  #places = null; // of the pixels that are not simply opaque
  #still = null;
  #trust = null;
  #head = null;
  #grey = 0;
  #width = 0;
  #height = 0;
  #handle = 0;

  constructor(video, canvas) {
    this.#video = video;
    this.#canvas = canvas;
    this.#context = canvas.getContext("2d", { willReadFrequently: true });
  }

  get ready() {
    return this.#places !== null;
  }

  async load(address) {
    const limit = new TimeLimit(LOADING_MS);
    let image;
    try {
      const response = await fetch(address, { signal: limit.signal });
      if (!response.ok) throw new Error(`The matte cannot be had: ${response.status}.`);
      image = await createImageBitmap(await response.blob(), { colorSpaceConversion: "none", premultiplyAlpha: "none" });
    } finally {
      limit.end();
    }
    this.#width = image.width;
    this.#height = image.height / 2;
    const sheet = new OffscreenCanvas(image.width, image.height).getContext("2d", { willReadFrequently: true });
    sheet.drawImage(image, 0, 0);
    const { data } = sheet.getImageData(0, 0, image.width, image.height);
    const count = this.#width * this.#height;
    const below = 4 * count;
    const places = [];
    for (let i = 0; i < count; i += 1) {
      if (data[below + 4 * i] < OPAQUE || data[below + 4 * i + 1] < OPAQUE) places.push(i);
    }
    this.#places = Uint32Array.from(places);
    this.#still = Float32Array.from(places, (i) => data[below + 4 * i] / OPAQUE);
    this.#trust = Float32Array.from(places, (i) => data[below + 4 * i + 1] / OPAQUE);
    this.#head = Float32Array.from(places.flatMap((i) => [data[4 * i], data[4 * i + 1], data[4 * i + 2]]));
    this.#grey = data[below + 2];
  }

  start() {
    this.#canvas.width = this.#width;
    this.#canvas.height = this.#height;
    const next = () => {
      this.#draw();
      this.#handle = this.#video.requestVideoFrameCallback(next);
    };
    next();
  }

  stop() {
    if (this.#handle) this.#video.cancelVideoFrameCallback(this.#handle);
    this.#handle = 0;
  }

  #draw() {
    this.#context.drawImage(this.#video, 0, 0, this.#width, this.#height);
    const picture = this.#context.getImageData(0, 0, this.#width, this.#height);
    const { data } = picture;
    const grey = this.#grey;
    for (let k = 0; k < this.#places.length; k += 1) {
      const at = 4 * this.#places[k];
      const trust = this.#trust[k];
      let share = this.#still[k];
      if (trust < 1) share = trust * share + (1 - trust) * this.#shareOf(data, at, 3 * k);
      data[at + 3] = OPAQUE * share;
      if (share > 0 && share < 1) {
        // What is seen is the portrait and the backdrop, mixed: leave the portrait.
        for (let c = at; c < at + 3; c += 1) data[c] = (data[c] - (1 - share) * grey) / share;
      }
    }
    this.#context.putImageData(picture, 0, 0);
  }

  /** How much of this pixel is head, by its colour. */
  #shareOf(data, at, head) {
    const grey = this.#grey;
    const dr = this.#head[head] - grey;
    const dg = this.#head[head + 1] - grey;
    const db = this.#head[head + 2] - grey;
    const r = data[at] - grey;
    const g = data[at + 1] - grey;
    const b = data[at + 2] - grey;
    const along = (r * dr + g * dg + b * db) / (dr * dr + dg * dg + db * db + 1);
    const beside = Math.hypot(r - along * dr, g - along * dg, b - along * db);
    const mixed = (along - LOW) / (HIGH - LOW);
    const other = (beside - BESIDE[0]) / (BESIDE[1] - BESIDE[0]);
    return Math.min(1, Math.max(0, mixed, other));
  }
}
