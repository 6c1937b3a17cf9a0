// The page: wires gallery, voice, session and figures to the elements of index.html.

import { Figures } from "./figures.js";
import { Gallery } from "./gallery.js";
import { Hearing } from "./hearing.js";
import { showLevel } from "./level.js";
import { connectManage } from "./manage.js";
import { Notice } from "./notice.js";
import { Problem } from "./problems.js";
import { RecordControl } from "./recording.js";
import { describeServer, forgetPicture, pictureAddress, readiness } from "./server.js";
import { TalkSession } from "./session.js";
import { connectUpload } from "./upload.js";
import { Voice, listMicrophones } from "./voice.js";
import { WakeLock } from "./wake-lock.js";

const $ = (id) => document.getElementById(id);
const SLIDERS = ["expressiveness", "head_motion", "gaze"];
const CONTROLS_PERIOD_MS = 80; // a dragged slider speaks faster than the server wants to listen
const HEALTH_PERIOD_MS = 4_000;

const video = $("video");
const voice = new Voice();
const gallery = new Gallery($("gallery"));
const figures = new Figures(document, video);
const hearing = new Hearing(document, video);
const wakeLock = new WakeLock();
const notice = new Notice(document, { useSample, after: $("start") });
const recordControl = new RecordControl(document, (on) => session?.setRecording?.(on), (problem) => notice.showProblem(problem));
let server = {};
let session = null;
let sendControls = 0;

// --- starting and stopping ---------------------------------------------------------------------------------

const voiceKind = () => document.querySelector('input[name="voice"]:checked').value;
const controls = () => Object.fromEntries(SLIDERS.map((name) => [name, Number($(name).value)]));

async function openVoice() {
  if (voiceKind() === "sample") return voice.openSample();
  const track = await voice.openMicrophone($("microphone").value);
  fillMicrophones(track.getSettings().deviceId);
  return track;
}

async function start() {
  notice.hide();
  const mine = { cancelled: false, close() { this.cancelled = true; } };
  session = mine; // while the voice is being opened, Stop must work too
  showState("connecting");
  notice.say(voiceKind() === "sample" ? "Connecting…" : "Opening the microphone…");
  try {
    const track = await openVoice();
    if (mine.cancelled) return;
    notice.say("Connecting…");
    hearing.suggest(voiceKind());
    const live = new TalkSession({
      track, portrait: gallery.chosen.id, controls: controls(), player: hearing.player, video,
    });
    session = live;
    live.addEventListener("state", ({ detail }) => { if (session === live) showState(detail); });
    live.addEventListener("stats", ({ detail }) => figures.update(detail));
    live.addEventListener("notice", ({ detail }) => serverNotice(detail));
    live.addEventListener("recording", ({ detail }) => {
      if (session !== live) return;
      recordControl.update(detail);
      if (!detail.on) notice.say("The recording has ended; you can talk on.");
    });
    live.addEventListener("retry", ({ detail }) => {
      notice.say(`The connection was lost. Connecting again, try ${detail.attempt} of ${detail.of}…`);
    });
    live.addEventListener("problem", ({ detail }) => { if (session === live) fail(detail); });
    await live.start();
  } catch (error) {
    if (error?.name === "AbortError" || mine.cancelled) return;
    fail(error);
  }
}

function stop() {
  const ended = session;
  session = null;
  ended?.close();
  voice.close();
  figures.stop();
  hearing.player.clear();
  showState("idle");
}

function fail(error) {
  stop();
  const problem = error instanceof Problem ? error : new Problem({
    title: "Something went wrong.",
    text: `${error?.message || error}. Reload the page and try again.`,
  });
  if (!(error instanceof Problem)) console.error(error);
  notice.showProblem(problem, start);
}

function showState(state) {
  if (state === "closed") return;
  const running = state !== "idle";
  recordControl.setLive(state === "live");
  wakeLock.set(running);
  $("stage").dataset.state = state;
  $("start").dataset.running = String(running);
  $("start-text").textContent = running ? "Stop" : "Start";
  $("start").disabled = !running && !gallery.chosen;
  if (state === "live") {
    notice.say(voiceKind() === "sample" ? "The sample voice is speaking." : "Speak: the portrait speaks along with you.");
    figures.start(() => session?.connection ?? null);
  }
  if (state === "reconnecting") figures.stop();
  if (state === "idle") notice.say(gallery.chosen ? "Stopped. Press Start to talk again." : "Choose a portrait, then press Start.");
}

function serverNotice({ level, message, code }) {
  if (code === "machine_slow" || code === "machine_fine") return; // the figures say so as long as it lasts
  if (code === "engine_back") notice.hide("engine_restarting");
  else if (level === "info") notice.say(message);
  else notice.warn(code, "The server says:", message, { kind: level });
}

// --- the voice ---------------------------------------------------------------------------------------------

async function fillMicrophones(current = $("microphone").value) {
  const list = $("microphone");
  const found = await listMicrophones();
  list.replaceChildren(new Option("Default microphone", ""), ...found
    .filter(({ deviceId }) => deviceId !== "default")
    .map(({ deviceId, label }) => new Option(label, deviceId)));
  if (found.some(({ deviceId }) => deviceId === current && deviceId !== "default")) list.value = current;
}

async function switchVoice() {
  const sample = voiceKind() === "sample";
  $("microphone-field").hidden = sample;
  $("sample-help").hidden = !sample;
  if (!session) return;
  if (!(session instanceof TalkSession)) {
    stop(); // still opening the other one
    return start();
  }
  const live = session;
  hearing.suggest(voiceKind());
  try {
    const track = await openVoice();
    if (session !== live) return;
    await live.setTrack(track);
    notice.hide("voice_held");
  } catch (error) {
    if (error?.name !== "AbortError" && session === live) fail(error);
  }
}

/** The way on for those whose microphone does not work. */
function useSample() {
  document.querySelector('input[name="voice"][value="sample"]').checked = true;
  switchVoice();
  if (!session) start();
}

function voiceHeld(held) {
  if (!held) return notice.hide("voice_held");
  if (voiceKind() === "sample") {
    notice.warn("voice_held", "The sample voice is paused.", "The system keeps its sound back, as during a call. Tap the page to go on.");
  } else {
    notice.warn("voice_held", "The microphone is paused.",
      "A phone call, another app or its own switch keeps it back. It comes back by itself when that ends.",
      { button: "Open it again", run: switchVoice });
  }
}

// --- the portrait ------------------------------------------------------------------------------------------

function showPortrait(portrait) {
  $("picture").style.setProperty("--picture-ratio", String(portrait.width / portrait.height || 1));
  showPictures(portrait);
  $("start").disabled = false;
  if (session instanceof TalkSession) {
    stop();
    start();
  } else if (!session) {
    notice.say("Press Start and speak.");
  }
}

async function showPictures(portrait) {
  const isPrivate = portrait.source !== "bundled";
  const [picture, thumbnail] = await Promise.all(
    [portrait.picture, portrait.thumbnail].map((path) => pictureAddress(path, { isPrivate })),
  ).catch(() => []); // the session tells what is wrong
  if (!picture || gallery.chosen?.id !== portrait.id) return;
  $("still").src = picture;
  $("still").alt = `Portrait: ${portrait.name}`;
  $("still").hidden = false;
  drawBackdrop(thumbnail);
}

/** A few pixels of the portrait, stretched over the stage: as soft as a blur, which would be computed for each frame. */
async function drawBackdrop(address) {
  const image = new Image();
  image.src = address;
  try {
    await image.decode();
  } catch {
    return; // the stage stays plain
  }
  const backdrop = $("backdrop");
  backdrop.getContext("2d").drawImage(image, 0, 0, backdrop.width, backdrop.height);
  backdrop.hidden = false;
}

/** What is known about the chosen portrait, below the gallery. */
function describePortrait(portrait) {
  $("chosen").hidden = !portrait;
  if (!portrait) return;
  const consent = portrait.consent;
  $("chosen-name").textContent = portrait.name;
  $("chosen-note").textContent = consent
    ? `Yours. ${consent.given_by || "Somebody"} agreed on ${new Date(consent.given_at).toLocaleDateString()}.`
    : portrait.credit;
  $("chosen-note").title = [portrait.origin, portrait.licence && `Licence: ${portrait.licence}.`].filter(Boolean).join(" ");
  $("manage").hidden = !consent;
}

function forgetPortrait(portrait) {
  gallery.remove(portrait.id, { quiet: session instanceof TalkSession });
  for (const path of [portrait.picture, portrait.thumbnail]) if (path) forgetPicture(path);
}

/** How long an own picture is kept, for the person who is about to give one. */
function keepingNote() {
  const uploads = server.uploads ?? {};
  const first = "Until you use it, the picture is held for a preview only and then forgotten. ";
  if (uploads.problem) return first + uploads.problem;
  return first + (uploads.kept
    ? "Used, it is kept on this server, without the data that cameras add, until you delete it."
    : "Used, it is kept in the server’s memory until you delete it or the server stops.");
}

// --- the server --------------------------------------------------------------------------------------------

async function watchServer() {
  const { state, message } = await readiness();
  const before = $("server").dataset.state;
  $("server").dataset.state = state;
  $("server").title = message;
  $("server-text").textContent = { ready: "Server ready", busy: "Server warming up", down: "No server" }[state];
  if (state === "down" && !session && !gallery.chosen) {
    notice.say("The server does not answer. The page goes on as soon as it does.");
  }
  if (state !== "down" && before !== state) await loadFromServer();
  setTimeout(watchServer, HEALTH_PERIOD_MS);
}

async function loadFromServer() {
  try {
    server = await describeServer();
    recordControl.setAllowed(Boolean(server.recording));
    $("model").textContent = [server.model && `Model ${server.model}`, server.version && `Talkalong ${server.version}`]
      .filter(Boolean).join(" · ");
    if (!gallery.chosen) await gallery.load();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    notice.showProblem(error, loadFromServer);
  }
}

// --- wiring ------------------------------------------------------------------------------------------------

for (const name of SLIDERS) {
  $(name).addEventListener("input", () => {
    $(`${name}-value`).textContent = `${Math.round(100 * $(name).value)} %`;
    sendControls ||= setTimeout(() => {
      sendControls = 0;
      if (session instanceof TalkSession) session.setControls(controls());
    }, CONTROLS_PERIOD_MS);
  });
}
for (const choice of document.querySelectorAll('input[name="voice"]')) choice.addEventListener("change", switchVoice);
$("microphone").addEventListener("change", switchVoice);
navigator.mediaDevices?.addEventListener("devicechange", () => fillMicrophones());
voice.addEventListener("asking", () => notice.say("The browser asks whether this page may use the microphone: please allow it."));
voice.addEventListener("held", ({ detail }) => voiceHeld(detail));
voice.addEventListener("problem", ({ detail }) => fail(detail));
gallery.addEventListener("change", ({ detail }) => showPortrait(detail));
gallery.addEventListener("chosen", ({ detail }) => describePortrait(detail));
gallery.addEventListener("upload", connectUpload($("upload"), $("file"), {
  done: (portrait) => gallery.add(portrait), closed: () => gallery.keepFocus(), limits: () => server.limits, kept: keepingNote,
}));
const manage = connectManage($("managed"), {
  uploads: () => gallery.uploads, changed: () => gallery.refresh(), deleted: forgetPortrait, closed: () => gallery.keepFocus(),
});
gallery.addEventListener("manage", ({ detail }) => manage(detail));
$("manage").addEventListener("click", () => manage(gallery.chosen));
$("start").addEventListener("click", () => (session ? stop() : start()));
$("panel").addEventListener("submit", (event) => event.preventDefault());
$("fullscreen").hidden = !document.fullscreenEnabled;
$("fullscreen").addEventListener("click", () => {
  if (document.fullscreenElement) document.exitFullscreen();
  else $("picture").requestFullscreen().catch(() => undefined);
});
addEventListener("pagehide", () => { if (session) stop(); }); // browsers may show the page again as it was left

fillMicrophones();
showLevel(document, () => voice.levelDb);
watchServer();
