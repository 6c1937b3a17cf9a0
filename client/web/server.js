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

/** Uploads one picture with the consent of the person who is seen in it; the new portrait. */
export async function uploadPortrait(file, { name, consent }) {
  const form = new FormData();
  form.append("picture", file);
  form.append("name", name);
  form.append("consent", consent);
  return (await ask("v1/portraits", { method: "POST", body: form }, "take this picture")).json();
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

/** Ends a session, also while the page is being left. Never fails: the server times out on its own. */
export function closeSession(place) {
  if (!place) return;
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  fetch(place, { method: "DELETE", keepalive: true, headers }).catch(() => undefined);
}
