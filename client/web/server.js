// The HTTP side of the server: readiness, portraits, sessions.

import { Problem, fromResponse, noAnswer, strangeAnswer, unreachable } from "./problems.js";
import { FRAGMENT_TYPE } from "./trickle.js";
import { TimeLimit } from "./wait.js";

// In the fragment, a token reaches neither the server's log nor a referrer.
const token = new URLSearchParams(location.hash.slice(1)).get("token");

const ANSWER_MS = 15_000;
const SESSION_MS = 25_000; // the server may ask STUN and TURN servers first
const PICTURE_MS = 200_000; // up a slow line, then the model tries it, on a machine that may be busy
const STALLED_MS = 20_000; // of a download, which may be long

const asJson = (response) => response.json();
const asNothing = () => undefined;

/** read: takes what is wanted out of the response, within the same limit. Throws a Problem, or the signal's AbortError. */
async function ask(path, { signal, limitMs = ANSWER_MS, ...options }, doing, read) {
  const headers = new Headers(options.headers);
  if (token) headers.set("Authorization", `Bearer ${token}`);
  const limit = new TimeLimit(limitMs, signal);
  try {
    const response = await fetch(path, { cache: "no-store", ...options, headers, signal: limit.signal });
    if (!response.ok) throw await fromResponse(response, doing);
    return await read(response, limit);
  } catch (error) {
    if (error instanceof Problem || signal?.aborted) throw error;
    if (error instanceof SyntaxError) throw strangeAnswer();
    throw limit.signal.aborted ? noAnswer(doing) : unreachable();
  } finally {
    limit.end();
  }
}

/** @returns {Promise<{state: "ready"|"busy"|"down", message: string}>} */
export async function readiness() {
  const limit = new TimeLimit(ANSWER_MS);
  try {
    const response = await fetch("healthz", { cache: "no-store", signal: limit.signal });
    const body = await response.json().catch(() => ({}));
    return { state: response.ok ? "ready" : "busy", message: body.message ?? body.error?.message ?? "" };
  } catch {
    return { state: "down", message: "" };
  } finally {
    limit.end();
  }
}

/** What the server says about itself: model, version, ice_servers (with new credentials), budget, limits. */
export function describeServer(signal) {
  return ask("v1/server", { signal }, "describe itself", asJson);
}

/** @returns {Promise<{portraits: Array<object>, default: string}>} */
export function listPortraits() {
  return ask("v1/portraits", {}, "list its portraits", asJson);
}

const JSON_TYPE = { "Content-Type": "application/json" };

/** Somebody is about to choose a picture, which the server may get ready for. Never fails; the id of its preparation. */
export function expectPicture() {
  return ask("v1/preparations", { method: "POST" }, "get ready", asJson).then(({ id }) => id, () => "");
}

/** The share of a picture's preparation that is done, 0 to 1. */
export function preparedShare(id, signal) {
  return ask(`v1/preparations/${id}`, { signal }, "tell its progress", asJson).then(({ share }) => share);
}

/** Sends a picture for a look: what was found, and previews. Nobody can use it until somebody agrees. */
export function tryPicture(file, { name, preparation, signal }) {
  const form = new FormData();
  form.append("picture", file);
  form.append("name", name);
  form.append("draft", "true");
  form.append("preparation", preparation);
  const request = { method: "POST", body: form, signal, limitMs: PICTURE_MS };
  return ask("v1/portraits", request, "take this picture", asJson);
}

/** Records who agreed to which statement; the picture is a portrait from then on. */
export function giveConsent(id, { by, statement, name }) {
  const body = JSON.stringify({ by, statement, name, means: "page" });
  return ask(`v1/portraits/${id}/consent`, { method: "POST", body, headers: JSON_TYPE }, "record the consent", asJson);
}

/** Changes name or position of an uploaded portrait. */
export function changePortrait(id, changes) {
  const body = JSON.stringify(changes);
  return ask(`v1/portraits/${id}`, { method: "PATCH", body, headers: JSON_TYPE }, "change this portrait", asJson);
}

/** Deletes an uploaded portrait. */
export function deletePortrait(id) {
  return ask(`v1/portraits/${id}`, { method: "DELETE" }, "delete this portrait", asNothing);
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
    const address = ask(path, {}, "show this picture", (answer) => answer.blob()).then(URL.createObjectURL);
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
export function openSession(sdp, config, signal) {
  const form = new FormData();
  form.append("sdp", sdp);
  form.append("config", JSON.stringify(config));
  const request = { method: "POST", body: form, signal, limitMs: SESSION_MS };
  return ask("v1/sessions", request, "start a session", async (response) => {
    const place = response.headers.get("Location");
    return { sdp: await response.text(), location: place && new URL(place, response.url).href };
  });
}

/** Tells more of our addresses, as an SDP fragment. */
export function sendCandidates(place, fragment, signal) {
  const headers = { "Content-Type": FRAGMENT_TYPE };
  return ask(place, { method: "PATCH", body: fragment, headers, signal }, "take more addresses", asNothing);
}

/** A recording of the server as a file, with the token that a plain link could not carry. */
export function fetchRecording(url) {
  const request = { limitMs: STALLED_MS };
  return ask(url.replace(/^\//, ""), request, "send the recording", async (response, limit) => {
    const parts = [];
    const reader = response.body.getReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return new Blob(parts, { type: response.headers.get("Content-Type") ?? "" });
      limit.restart();
      parts.push(value);
    }
  });
}

/** Ends a session, also while the page is being left. Never fails: the server times out on its own. */
export function closeSession(place) {
  if (!place) return;
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  fetch(place, { method: "DELETE", keepalive: true, headers }).catch(() => undefined);
}
