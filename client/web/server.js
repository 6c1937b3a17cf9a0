// The HTTP side of the server: readiness, portraits, sessions.

import { fromResponse, unreachable } from "./problems.js";

// In the fragment, a token reaches neither the server's log nor a referrer.
const token = new URLSearchParams(location.hash.slice(1)).get("token");

async function ask(path, options, doing) {
  const headers = new Headers(options.headers);
  if (token) headers.set("Authorization", `Bearer ${token}`);
  let response;
  try {
    response = await fetch(path, { cache: "no-store", ...options, headers });
  } catch (error) {
    if (error?.name === "AbortError") throw error;
    throw unreachable();
  }
  if (!response.ok) throw await fromResponse(response, doing);
  return response;
}

/** @returns {Promise<{state: "ready"|"busy"|"down", message: string}>} */
export async function readiness() {
  try {
    const response = await fetch("healthz", { cache: "no-store" });
    const body = await response.json().catch(() => ({}));
    return { state: response.ok ? "ready" : "busy", message: body.message ?? body.error?.message ?? "" };
  } catch {
    return { state: "down", message: "" };
  }
}

/** What the server says about itself: model, version, ice_servers (with new credentials), budget, limits. */
export async function describeServer(signal) {
  return (await ask("v1/server", { signal }, "describe itself")).json();
}

/** @returns {Promise<{portraits: Array<object>, default: string}>} */
export async function listPortraits() {
  return (await ask("v1/portraits", {}, "list its portraits")).json();
}

const JSON_TYPE = { "Content-Type": "application/json" };

/** Sends a picture for a look: what was found, and previews. Nobody can use it until somebody agrees. */
export async function tryPicture(file, { name, signal }) {
  const form = new FormData();
  form.append("picture", file);
  form.append("name", name);
  form.append("draft", "true");
  return (await ask("v1/portraits", { method: "POST", body: form, signal }, "take this picture")).json();
}

/** Records who agreed to which statement; the picture is a portrait from then on. */
export async function giveConsent(id, { by, statement, name }) {
  const body = JSON.stringify({ by, statement, name, means: "page" });
  return (await ask(`v1/portraits/${id}/consent`, { method: "POST", body, headers: JSON_TYPE }, "record the consent")).json();
}

/** Changes name or position of an uploaded portrait. */
export async function changePortrait(id, changes) {
  const body = JSON.stringify(changes);
  return (await ask(`v1/portraits/${id}`, { method: "PATCH", body, headers: JSON_TYPE }, "change this portrait")).json();
}

/** Deletes an uploaded portrait. */
export async function deletePortrait(id) {
  await ask(`v1/portraits/${id}`, { method: "DELETE" }, "delete this portrait");
}

/** Drops a picture that is not wanted, also while the page is being left. Never fails: it is forgotten soon anyway. */
export function discardPicture(id) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  fetch(`v1/portraits/${id}`, { method: "DELETE", keepalive: true, headers }).catch(() => undefined);
}

const pictures = new Map();

/**
 * An address that an <img> can show. Uploads are private: where a token is asked for, an <img> cannot send it, so the
 * picture is fetched and becomes an address of this page's own, kept until `forgetPicture`.
 */
export function pictureAddress(path, { isPrivate }) {
  if (!token || !isPrivate) return Promise.resolve(path);
  if (!pictures.has(path)) {
    const address = ask(path, {}, "show this picture").then((answer) => answer.blob()).then(URL.createObjectURL);
    address.catch(() => pictures.delete(path));
    pictures.set(path, address);
  }
  return pictures.get(path);
}

export function forgetPicture(path) {
  pictures.get(path)?.then(URL.revokeObjectURL, () => undefined);
  pictures.delete(path);
}

/** Offers a connection; the answer's SDP, and the address that ends the session. */
export async function openSession(sdp, config, signal) {
  const form = new FormData();
  form.append("sdp", sdp);
  form.append("config", JSON.stringify(config));
  const response = await ask("v1/sessions", { method: "POST", body: form, signal }, "start a session");
  const place = response.headers.get("Location");
  return { sdp: await response.text(), location: place && new URL(place, response.url).href };
}

/** A recording of the server as a file, with the token that a plain link could not carry. */
export async function fetchRecording(url) {
  return (await ask(url.replace(/^\//, ""), {}, "send the recording")).blob();
}

/** Ends a session, also while the page is being left. Never fails: the server times out on its own. */
export function closeSession(place) {
  if (!place) return;
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  fetch(place, { method: "DELETE", keepalive: true, headers }).catch(() => undefined);
}
