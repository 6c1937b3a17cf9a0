// The portraits to choose from.

import { listPortraits, pictureAddress } from "./server.js";

const UPLOAD_ICON =
  '<svg viewBox="0 0 24 24" aria-hidden="true"><path d="M12 16V5m0 0L7.5 9.5M12 5l4.5 4.5M5 19h14" fill="none" ' +
  'stroke="currentColor" stroke-width="2" stroke-linecap="round" stroke-linejoin="round"/></svg>';
const REMEMBERED = "talkalong.portrait";

/** Events `change` (detail: the portrait object of the server), `upload`, and `manage` (detail: an unusable one). */
export class Gallery extends EventTarget {
  #root;
  #portraits = [];
  #unusable = [];
  #default = null;
  #chosen = null;

  constructor(root) {
    super();
    this.#root = root;
    this.#root.addEventListener("keydown", (event) => this.#key(event));
    for (let index = 0; index < 3; index += 1) this.#root.append(element("div", "tile placeholder"));
  }

  get chosen() {
    return this.#chosen;
  }

  /** The uploaded portraits, in their order. */
  get uploads() {
    return this.#portraits.filter((item) => item.source === "uploaded");
  }

  /** Fills the gallery; throws a Problem when the server cannot. */
  async load() {
    await this.refresh();
    if (this.#chosen) this.#say();
  }

  /** Reads the list again and keeps the choice, where it is still there; says nothing. */
  async refresh() {
    const { portraits, unusable = [], default: first } = await listPortraits();
    this.#portraits = portraits;
    this.#unusable = unusable;
    this.#default = first;
    const wanted = this.#chosen?.id ?? localStorage.getItem(REMEMBERED) ?? first;
    this.#chosen = portraits.find((item) => item.id === wanted) ?? portraits.find((item) => item.id === first) ??
      portraits[0] ?? null;
    this.#draw();
  }

  /** Adds a freshly uploaded portrait and chooses it. */
  add(portrait) {
    this.#portraits = [...this.#portraits.filter((item) => item.id !== portrait.id), portrait];
    this.choose(portrait);
  }

  /** Takes a deleted portrait out. quiet: nothing is told of the new choice, as a session still shows the old one. */
  remove(id, { quiet }) {
    this.#portraits = this.#portraits.filter((item) => item.id !== id);
    this.#unusable = this.#unusable.filter((item) => item.id !== id);
    const wasChosen = this.#chosen?.id === id;
    if (wasChosen) {
      this.#chosen = this.#portraits.find((item) => item.id === this.#default) ?? this.#portraits[0] ?? null;
      localStorage.removeItem(REMEMBERED);
    }
    this.#draw();
    if (wasChosen && !quiet && this.#chosen) this.#say();
  }

  choose(portrait) {
    this.#chosen = portrait;
    localStorage.setItem(REMEMBERED, portrait.id);
    this.#draw();
    this.#say();
  }

  #draw() {
    const tiles = this.#portraits.map((portrait) => this.#tile(portrait));
    const add = element("button", "tile add");
    add.type = "button";
    add.id = "add";
    add.innerHTML = UPLOAD_ICON;
    add.append(element("span", "", "Your own"));
    add.setAttribute("aria-label", "Upload your own portrait");
    add.addEventListener("click", () => this.dispatchEvent(new Event("upload")));
    const empty = tiles.length ? [] : [element("p", "gallery-empty", "This server has no portrait yet. Upload one.")];
    const focused = this.#root.contains(document.activeElement) ? document.activeElement.id || "tile" : "";
    const broken = this.#unusable.map((portrait) => this.#brokenTile(portrait));
    this.#root.replaceChildren(...empty, ...tiles, ...broken, add);
    this.#root.setAttribute("aria-busy", "false");
    if (focused === add.id) add.focus();
    else if (focused) this.#focusChosen();
    this.dispatchEvent(new CustomEvent("chosen", { detail: this.#chosen }));
  }

  /** Takes the focus where what had it is gone, as after a dialog whose button was drawn anew or hidden. */
  keepFocus() {
    const { activeElement } = document;
    const isSeen = activeElement && activeElement !== document.body && activeElement.getClientRects().length > 0;
    if (!isSeen) this.#focusChosen();
  }

  #focusChosen() {
    (this.#root.querySelector('[aria-checked="true"]') ?? this.#root.querySelector("#add"))?.focus();
  }

  #tile(portrait) {
    const tile = element("button", "tile");
    const chosen = portrait.id === this.#chosen?.id;
    tile.type = "button";
    tile.dataset.id = portrait.id;
    tile.setAttribute("role", "radio");
    tile.setAttribute("aria-checked", String(chosen));
    tile.setAttribute("aria-label", portrait.name);
    tile.tabIndex = chosen ? 0 : -1;
    if (portrait.credit) tile.title = `${portrait.name}. ${portrait.credit}`;
    tile.append(thumbnail(portrait), element("span", "tile-name", portrait.name));
    if (portrait.source === "uploaded") tile.append(element("span", "tile-yours", "Yours"));
    tile.addEventListener("click", () => this.choose(portrait));
    return tile;
  }

  /** A kept portrait whose picture is gone: it can only be looked into and deleted. */
  #brokenTile(portrait) {
    const tile = element("button", "tile broken");
    tile.type = "button";
    tile.title = portrait.problem;
    tile.setAttribute("aria-label", `${portrait.name} cannot be used. Why?`);
    if (portrait.thumbnail) tile.append(thumbnail(portrait));
    tile.append(element("span", "tile-name", portrait.name), element("span", "tile-yours", "Missing"));
    tile.addEventListener("click", () => this.dispatchEvent(new CustomEvent("manage", { detail: portrait })));
    return tile;
  }

  /** Arrow keys move the choice, as in any group of radio buttons. */
  #key(event) {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const index = this.#portraits.findIndex((item) => item.id === this.#chosen?.id);
    if (!step || index < 0 || !document.activeElement?.dataset.id) return;
    event.preventDefault();
    const count = this.#portraits.length;
    this.choose(this.#portraits[(index + step + count) % count]);
  }

  #say() {
    this.dispatchEvent(new CustomEvent("change", { detail: this.#chosen }));
  }
}

function thumbnail(portrait) {
  const picture = element("img");
  picture.alt = "";
  picture.width = picture.height = 256;
  pictureAddress(portrait.thumbnail, { isPrivate: portrait.source !== "bundled" })
    .then((address) => { picture.src = address; }, () => undefined);
  return picture;
}

function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}
