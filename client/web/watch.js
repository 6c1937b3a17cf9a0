// The bare page for one stream: watches by WHEP, comes back when the publisher does, says nothing in OBS.
//
// Address: /watch/NAME?mute=1&fit=contain|cover|fill&matte=0#token=TOKEN

import { CutOut } from "./cut-out.js";
import { firstPicture, untilLost } from "./liveness.js";
import { Player } from "./player.js";
import { FRAGMENT_TYPE, Trickle } from "./trickle.js";
import { TimeLimit, sleep, within } from "./wait.js";

const BROWSER_MS = 10_000;
const ANSWER_MS = 15_000;
const FIRST_RETRY_MS = 1_000;
const LONGEST_RETRY_MS = 5_000; // whoever comes back is seen within seconds
const MESSAGE_AFTER_MS = 1_500;
const MATTE = "urn:talkalong:matte";
const HINTS = { sound: "Click here or press a key to hear it", picture: "Click here or press a key to show it" };
const LOST = { ended: "The stream has ended.", failed: "The connection was lost.", silent: "The stream has stopped." };

const $ = (id) => document.getElementById(id);
const video = $("picture");
const options = new URLSearchParams(location.search);
// In the fragment, a token reaches neither the server's log nor a referrer.
const token = new URLSearchParams(location.hash.slice(1)).get("token");
const stream = location.pathname.replace(/\/+$/, "").split("/").pop();
const endpoint = new URL(`../whep/${stream}`, location.href);
const inObs = "obsstudio" in window; // a browser source shows the picture or nothing
const wantsSound = !["", "1", "true"].includes(options.get("mute") ?? "no");
const player = new Player(video, (refused) => {
  $("hint").hidden = !refused || inObs;
  $("hint").textContent = HINTS[refused] ?? "";
});

let place = null; // of our session on the server
let messageTimer = 0;

class Refused extends Error {
  constructor(message, { retryAfterMs = 0, soon = false, final = false } = {}) {
    super(message);
    this.retryAfterMs = retryAfterMs;
    this.soon = soon; // no reason to ask more and more seldom
    this.final = final;
  }
}

async function run() {
  let delay = FIRST_RETRY_MS;
  say("Connecting…");
  for (;;) {
    try {
      await watch(() => { delay = FIRST_RETRY_MS; });
    } catch (error) {
      if (!(error instanceof Refused)) console.warn(error);
      say(error instanceof Refused ? error.message : "The connection was lost. Trying again…");
      if (error.final) return;
      await sleep(Math.max(delay, error.retryAfterMs ?? 0));
      delay = error.soon ? FIRST_RETRY_MS : Math.min(delay * 1.5, LONGEST_RETRY_MS);
    }
  }
}

/** Watches until the stream ends or the connection is lost; then throws. onLive: called once there is a picture. */
async function watch(onLive) {
  if (!globalThis.RTCPeerConnection) throw new Refused("This browser cannot make live connections.", { final: true });
  const connection = new RTCPeerConnection({ bundlePolicy: "max-bundle", iceServers: await iceServers() });
  const cutOut = new CutOut(video, $("cut-out"));
  const over = new AbortController();
  try {
    const media = new MediaStream();
    connection.ontrack = ({ track, receiver }) => {
      // The server holds both tracks back by the same time already.
      if ("jitterBufferTarget" in receiver) receiver.jitterBufferTarget = 0;
      media.addTrack(track);
    };
    connection.addTransceiver("audio", { direction: "recvonly" });
    connection.addTransceiver("video", { direction: "recvonly" });
    const trickle = new Trickle(connection);
    await within(connection.setLocalDescription(), BROWSER_MS, stuck);
    const answer = await offer(await trickle.offer());
    place = answer.place;
    trickle.sendBy((fragment) => sendCandidates(answer, fragment));
    await within(connection.setRemoteDescription({ type: "answer", sdp: answer.sdp }), BROWSER_MS, stuck);
    const matte = options.get("matte") === "0" ? null : answer.matte;
    if (matte) await cutOut.load(new URL(matte, endpoint)).catch((error) => console.warn(error));
    player.show(media);
    const lost = untilLost(connection, over.signal).then((reason) => { throw new Refused(LOST[reason] ?? LOST.ended, { soon: true }); });
    lost.catch(() => undefined); // it may come while we wait for the picture
    await Promise.race([firstPicture(connection, video, { blocked, dark, signal: over.signal }), lost]);
    if (cutOut.ready) cutOut.start();
    document.body.toggleAttribute("data-matte", cutOut.ready);
    document.body.dataset.state = "live";
    say("");
    onLive();
    await lost;
  } finally {
    over.abort(new Refused(LOST.ended));
    document.body.dataset.state = "waiting";
    cutOut.stop();
    connection.close();
    leave();
    player.clear();
  }
}

const blocked = () => new Refused("No picture came: the network may not let it through. Trying again…");
const dark = () => new Refused("The connection stands, but no picture came. Trying again…");
const stuck = () => { throw new Refused("The browser does not get the connection ready. Trying again…"); };

function headers(more = {}) {
  return token ? { ...more, Authorization: `Bearer ${token}` } : more;
}

/** A request to the server, answered in time; read: takes what is wanted out of the response. */
async function ask(address, request, read) {
  const limit = new TimeLimit(ANSWER_MS);
  try {
    return await read(await fetch(address, { ...request, headers: headers(request.headers), signal: limit.signal }));
  } catch (error) {
    if (error instanceof Refused) throw error;
    throw new Refused("The server does not answer. Trying again…");
  } finally {
    limit.end();
  }
}

function iceServers() {
  return ask(endpoint, { method: "OPTIONS" }, (response) => links(response, "ice-server").map(({ target, parameters }) => ({
    urls: target, username: parameters.username, credential: parameters.credential,
  })));
}

function offer(sdp) {
  const request = { method: "POST", body: sdp, headers: { "Content-Type": "application/sdp" } };
  return ask(endpoint, request, async (response) => {
    if (!response.ok) throw await refusal(response);
    return {
      sdp: await response.text(),
      place: new URL(response.headers.get("Location"), endpoint),
      tag: response.headers.get("ETag"),
      matte: links(response, MATTE)[0]?.target,
    };
  });
}

function sendCandidates({ place: address, tag }, fragment) {
  const request = { method: "PATCH", body: fragment, headers: { "Content-Type": FRAGMENT_TYPE, ...tag && { "If-Match": tag } } };
  return ask(address, request, async (response) => { if (!response.ok) throw await refusal(response); });
}

async function refusal(response) {
  const retryAfterMs = 1_000 * (Number(response.headers.get("Retry-After")) || 0);
  const said = (await response.json().catch(() => ({}))).error?.message;
  if (response.status === 409) return new Refused("Nobody is on air yet. The picture comes by itself.", { retryAfterMs, soon: true });
  if (response.status === 401) {
    return new Refused("This stream needs a token: add #token=… to the address, and reload.", { final: true });
  }
  return new Refused(said ?? `The server answered ${response.status}.`, { retryAfterMs });
}

/** The links of this relation (RFC 8288). */
function links(response, relation) {
  const values = response.headers.get("Link") ?? "";
  return [...values.matchAll(/<([^>]*)>((?:\s*;\s*[\w-]+=(?:"(?:[^"\\]|\\.)*"|[^",;]*))*)/g)]
    .map(([, target, rest]) => ({
      target,
      parameters: Object.fromEntries([...rest.matchAll(/([\w-]+)=(?:"((?:[^"\\]|\\.)*)"|([^",;]*))/g)]
        .map(([, name, quoted, plain]) => [name, quoted?.replace(/\\(.)/g, "$1") ?? plain.trim()])),
    }))
    .filter(({ parameters }) => parameters.rel === relation);
}

/** A sentence for a person who looks, once it has been true for a while; "" takes it away. */
function say(text) {
  clearTimeout(messageTimer);
  const message = $("message");
  if (!text || inObs) {
    message.hidden = true;
    return;
  }
  if (!message.hidden) message.textContent = text;
  messageTimer = setTimeout(() => {
    message.textContent = text;
    message.hidden = false;
  }, MESSAGE_AFTER_MS);
}

/** Ends our session, also while the page is being left. */
function leave() {
  if (place) fetch(place, { method: "DELETE", keepalive: true, headers: headers() }).catch(() => undefined);
  place = null;
}

function tap() {
  if (!$("hint").hidden) player.play();
}

document.body.dataset.fit = ["cover", "fill"].includes(options.get("fit")) ? options.get("fit") : "contain";
player.setSound(wantsSound);
for (const touch of ["pointerdown", "pointerup", "keydown"]) addEventListener(touch, tap); // a finger counts when it lifts
addEventListener("pagehide", leave);
run();
