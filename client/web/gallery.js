// The portraits to choose from, and the upload of an own one with its consent.

import { listPortraits, uploadPortrait } from "./server.js";

const UPLOAD_ICON =
  '<svg viewBox="0 0 24 24" aria-hidden="true"><path d="M12 16V5m0 0L7.5 9.5M12 5l4.5 4.5M5 19h14" fill="none" ' +
  'stroke="currentColor" stroke-width="2" stroke-linecap="round" stroke-linejoin="round"/></svg>';
const LARGEST_BYTES = 8 * 1024 * 1024;
const REMEMBERED = "talkalong.portrait";

/** Event `change` (detail: the portrait object of the server). */
export class Gallery extends EventTarget {
  #root;
  #portraits = [];
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

  /** Fills the gallery; throws a Problem when the server cannot. */
  async load() {
    const { portraits, default: first } = await listPortraits();
    this.#portraits = portraits;
    const wanted = this.#chosen?.id ?? localStorage.getItem(REMEMBERED) ?? first;
    this.#chosen = portraits.find((item) => item.id === wanted) ?? portraits[0] ?? null;
    this.#draw();
    if (this.#chosen) this.#say();
  }

  /** Adds a freshly uploaded portrait and chooses it. */
  add(portrait) {
    this.#portraits = [...this.#portraits.filter((item) => item.id !== portrait.id), portrait];
    this.choose(portrait);
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
    const focused = this.#root.contains(document.activeElement) && document.activeElement.dataset.id;
    this.#root.replaceChildren(...empty, ...tiles, add);
    this.#root.setAttribute("aria-busy", "false");
    if (focused) this.#root.querySelector('[aria-checked="true"]')?.focus();
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
    const picture = element("img");
    picture.src = portrait.thumbnail;
    picture.alt = "";
    picture.width = picture.height = 256;
    tile.append(picture, element("span", "tile-name", portrait.name));
    tile.addEventListener("click", () => this.choose(portrait));
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

/** The dialog that previews a picture and asks for consent; calls `done` with the new portrait. */
export function connectUpload(dialog, input, done) {
  const find = (id) => dialog.querySelector(`#upload-${id}`);
  let file = null;
  let preview = "";

  const complain = (text) => {
    find("error").textContent = text;
    find("error").hidden = !text;
  };
  const forget = () => {
    if (preview) URL.revokeObjectURL(preview);
    preview = "";
    file = null;
    input.value = "";
  };

  input.addEventListener("change", () => {
    const [picked] = input.files;
    if (!picked) return;
    forget();
    file = picked;
    preview = URL.createObjectURL(picked);
    find("preview").src = preview;
    find("name").value = picked.name.replace(/\.[^.]*$/, "").replace(/[_-]+/g, " ").slice(0, 60);
    complain(wrongFile(picked));
    if (!dialog.open) dialog.showModal();
  });
  find("preview").addEventListener("error", () => {
    if (file) complain("The browser cannot read this file as a picture. Choose a JPEG, PNG or WebP photograph.");
  });
  find("other").addEventListener("click", () => input.click());
  find("cancel").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => {
    forget();
    complain("");
    find("consent").checked = false;
  });
  find("form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const wrong = wrongFile(file);
    if (wrong) return complain(wrong);
    find("send").disabled = true;
    find("send").textContent = "Uploading…";
    complain("");
    try {
      const consent = `${find("by").value.trim()}: ${find("statement").textContent.trim()}`;
      done(await uploadPortrait(file, { name: find("name").value.trim(), consent }));
      dialog.close();
    } catch (problem) {
      complain(problem.message);
    } finally {
      find("send").disabled = false;
      find("send").textContent = "Upload";
    }
  });
  return () => input.click();
}

function wrongFile(file) {
  if (!file) return "Choose a picture first.";
  if (!/^image\/(jpeg|png|webp)$/.test(file.type)) return "This is not a JPEG, PNG or WebP picture. Choose another one.";
  if (file.size > LARGEST_BYTES) return "The picture is larger than 8 MB. Choose or save a smaller one.";
  return "";
}

function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}
