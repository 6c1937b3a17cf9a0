// The page: wires gallery, voice, session and figures to the elements of index.html.

import { Figures } from "./figures.js";
import { Gallery } from "./gallery.js";
import { connectManage } from "./manage.js";
import { Problem } from "./problems.js";
import { RecordControl } from "./recording.js";
import { describeServer, forgetPicture, pictureAddress, readiness } from "./server.js";
import { TalkSession } from "./session.js";
import { connectUpload } from "./upload.js";
import { Voice, listMicrophones } from "./voice.js";

const $ = (id) => document.getElementById(id);
const SLIDERS = ["expressiveness", "head_motion"];
const SILENT = "Off, so that a loudspeaker cannot feed back into your microphone. With headphones, switch it on.";
const HEARD = "The voice comes back from the server, held back so that it meets the lips.";
const CONTROLS_PERIOD_MS = 80; // a dragged slider speaks faster than the server wants to listen
const HEALTH_PERIOD_MS = 4_000;

const video = $("video");
const voice = new Voice();
const gallery = new Gallery($("gallery"));
const figures = new Figures($("figures"), video);
const recordControl = new RecordControl(document, (on) => session?.setRecording?.(on), (error) => showProblem(error, hideNotice));
let server = {};
let session = null;
let hearing = false;
let hearingFor = ""; // the kind of voice that the choice was made for
let countdown = 0;
let sendControls = 0;

// --- starting and stopping ---------------------------------------------------------------------------------

const voiceKind = () => document.querySelector('input[name="voice"]:checked').value;
const controls = () => Object.fromEntries(SLIDERS.map((name) => [name, Number($(name).value)]));

async function openVoice() {
  if (voiceKind() === "sample") return voice.openSample();
  const track = await voice.openMicrophone($("microphone").value);
  await fillMicrophones(track.getSettings().deviceId);
  return track;
}

async function start() {
  hideNotice();
  const mine = { cancelled: false, close() { this.cancelled = true; } };
  session = mine; // while the voice is being opened, Stop must work too
  showState("connecting");
  say(voiceKind() === "sample" ? "Connecting…" : "Allow the microphone if the browser asks…");
  try {
    const track = await openVoice();
    if (mine.cancelled) return;
    suggestHearing();
    const live = new TalkSession({
      track, portrait: gallery.chosen.id, controls: controls(), video,
    });
    session = live;
    live.addEventListener("state", ({ detail }) => { if (session === live) showState(detail); });
    live.addEventListener("stats", ({ detail }) => figures.update(detail));
    live.addEventListener("notice", ({ detail }) => serverNotice(detail));
    live.addEventListener("recording", ({ detail }) => {
      if (session !== live) return;
      recordControl.update(detail);
      if (!detail.on) say("The recording has ended; you can talk on.");
    });
    live.addEventListener("retry", ({ detail }) => {
      say(`The connection was lost. Connecting again, try ${detail.attempt} of ${detail.of}…`);
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
  video.srcObject = null;
  showState("idle");
}

function fail(error) {
  stop();
  const problem = error instanceof Problem ? error : new Problem({
    title: "Something went wrong.",
    text: `${error?.message || error}. Reload the page and try again.`,
  });
  if (!(error instanceof Problem)) console.error(error);
  showProblem(problem, start);
}

function showState(state) {
  if (state === "closed") return;
  const running = state !== "idle";
  recordControl.setLive(state === "live");
  $("stage").dataset.state = state;
  $("start").dataset.running = String(running);
  $("start-text").textContent = running ? "Stop" : "Start talking";
  $("start").disabled = !running && !gallery.chosen;
  if (state === "live") {
    say(voiceKind() === "sample" ? "The sample voice is speaking." : "Speak: the portrait speaks along with you.");
    figures.start(() => session?.connection ?? null);
  }
  if (state === "idle") say(gallery.chosen ? "Stopped. Press Start to talk again." : "Choose a portrait, then press Start.");
}

// --- what the person reads ---------------------------------------------------------------------------------

function say(text) {
  $("status").textContent = text;
}

function showProblem(problem, again) {
  clearInterval(countdown);
  $("notice").dataset.kind = "error";
  $("notice").dataset.code = problem.code;
  $("notice-title").textContent = problem.title;
  $("notice-text").textContent = problem.message;
  $("notice").hidden = false;
  say("");
  const action = $("notice-action");
  action.hidden = !problem.canRetry;
  action.onclick = () => { hideNotice(); again(); };
  let seconds = problem.retryAfterSeconds;
  const tick = () => {
    action.disabled = seconds > 0;
    action.textContent = seconds > 0 ? `Try again in ${seconds} s` : "Try again";
    if (seconds <= 0) clearInterval(countdown);
    seconds -= 1;
  };
  tick();
  countdown = setInterval(tick, 1_000);
}

function serverNotice({ level, message, code }) {
  if (code === "engine_back") return hideNotice();
  if (level === "info") return say(message);
  clearInterval(countdown);
  $("notice").dataset.kind = level;
  $("notice").dataset.code = code;
  $("notice-title").textContent = "The server says:";
  $("notice-text").textContent = message;
  $("notice-action").hidden = true;
  $("notice").hidden = false;
}

function hideNotice() {
  clearInterval(countdown);
  $("notice").hidden = true;
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
  if (!(session instanceof TalkSession)) return;
  const live = session;
  suggestHearing();
  try {
    const track = await openVoice();
    if (session === live) await live.setTrack(track);
  } catch (error) {
    fail(error);
  }
}

function setHearing(on) {
  hearing = on;
  video.muted = !on;
  $("hear").setAttribute("aria-pressed", String(on));
  const sample = voiceKind() === "sample";
  $("hear-text").textContent = `Hear ${sample ? "the voice" : "yourself"}: ${on ? "on" : "off"}`;
  $("hear-help").textContent = sample || on ? HEARD : SILENT;
}

/** A loudspeaker and an open microphone feed back, the sample voice cannot; the person's own choice is kept. */
function suggestHearing() {
  if (hearingFor !== voiceKind()) setHearing(voiceKind() === "sample");
  hearingFor = voiceKind();
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

function drawLevel() {
  const level = voice.levelDb;
  $("meter-fill").style.clipPath = `inset(0 ${((-100 * level) / 60).toFixed(1)}% 0 0 round 999px)`;
  setTimeout(drawLevel, 66); // not with every frame of the screen: each change costs a redraw of the page
}

function describeLevel() {
  const level = Math.round(voice.levelDb);
  $("meter").setAttribute("aria-valuenow", String(level));
  $("meter").setAttribute("aria-valuetext", level < -50 ? "silent" : level > -6 ? "too loud" : `${level} decibels`);
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
    say("Press Start and speak.");
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
    showProblem(error, loadFromServer);
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
voice.addEventListener("problem", ({ detail }) => fail(detail));
gallery.addEventListener("change", ({ detail }) => showPortrait(detail));
gallery.addEventListener("chosen", ({ detail }) => describePortrait(detail));
gallery.addEventListener("upload", connectUpload($("upload"), $("file"), {
  done: (portrait) => gallery.add(portrait), limits: () => server.limits, kept: keepingNote,
}));
const manage = connectManage($("managed"), {
  uploads: () => gallery.uploads, changed: () => gallery.refresh(), deleted: forgetPortrait,
});
gallery.addEventListener("manage", ({ detail }) => manage(detail));
$("manage").addEventListener("click", () => manage(gallery.chosen));
$("start").addEventListener("click", () => (session ? stop() : start()));
$("hear").addEventListener("click", () => setHearing(!hearing));
$("notice-close").addEventListener("click", hideNotice);
$("panel").addEventListener("submit", (event) => event.preventDefault());
$("fullscreen").hidden = !document.fullscreenEnabled;
$("fullscreen").addEventListener("click", () => {
  if (document.fullscreenElement) document.exitFullscreen();
  else $("picture").requestFullscreen().catch(() => undefined);
});
addEventListener("pagehide", () => session?.close());

setHearing(false);
fillMicrophones();
setInterval(describeLevel, 500);
drawLevel();
watchServer();
