// The dialog around an own picture: it is tried out first, then somebody agrees, then it is a portrait.

import { prepared } from "./picture-file.js";
import {
  discardPicture, expectPicture, forgetPicture, giveConsent, pictureAddress, preparedShare, tryPicture,
} from "./server.js";

const PROGRESS_MS = 300;

const VIEWS = [
  ["moving", "Moving", "The portrait as it talks, made by the model"],
  ["rest", "At rest", "The portrait with its lips closed, made by the model"],
  ["speaking", "Speaking", "The portrait with its mouth wide open, made by the model"],
  ["mask", "What moves", "The picture with everything veiled that never moves"],
];
const STILL_FIRST = matchMedia("(prefers-reduced-motion: reduce)");

/**
 * Calls `done` with the new portrait, `closed` when the dialog has gone. limits: () => the server's, with `portrait_bytes`.
 * kept: () => how long it is kept, a sentence. Returns what opens the picker.
 */
export function connectUpload(dialog, input, { done, closed, limits, kept }) {
  const find = (id) => dialog.querySelector(`#upload-${id}`);
  let file = null;
  let local = "";
  let draft = null;
  let trying = null;
  let looking = "";

  const complain = (text) => {
    find("error").textContent = text;
    find("error").hidden = !text;
  };

  const show = (state) => {
    find("look").dataset.state = state;
    find("look").setAttribute("aria-busy", String(state === "waiting"));
    // A disabled button would lose the focus.
    find("send").setAttribute("aria-disabled", String(state === "waiting" || state === "recording"));
    find("send").textContent = { waiting: "One moment…", recording: "One moment…", refused: "Try again" }[state] ??
      "Use this portrait";
  };

  const forgetDraft = ({ discard }) => {
    trying?.abort();
    trying = null;
    for (const path of Object.values(draft?.preview ?? {})) forgetPicture(path);
    if (draft && discard) discardPicture(draft.id);
    draft = null;
    find("views").replaceChildren();
    find("findings").replaceChildren();
  };

  const forgetFile = () => {
    if (local) URL.revokeObjectURL(local);
    local = "";
    file = null;
    input.value = "";
  };

  const lookAt = async (view, description) => {
    const mine = draft;
    looking = view;
    const address = await pictureAddress(mine.preview[view], { isPrivate: true });
    if (draft !== mine || looking !== view) return;
    find("preview").src = address;
    find("preview").alt = description;
    find("look").dataset.view = view;
  };

  const tryOut = async () => {
    forgetDraft({ discard: true });
    complain("");
    show("waiting");
    find("preview").src = local;
    find("preview").alt = "The picture that you chose";
    const mine = trying = new AbortController();
    try {
      const picture = await prepared(file, limits());
      if (trying !== mine) return;
      const id = await expectPicture();
      const telling = tellProgress(id, mine.signal);
      const found = await tryPicture(picture, { name: find("name").value.trim(), preparation: id, signal: mine.signal })
        .finally(() => clearInterval(telling));
      if (trying !== mine) return discardPicture(found.id);
      draft = found;
      find("statement").textContent = found.consent_statement.text;
      find("findings").replaceChildren(...findings(found.found));
      find("views").replaceChildren(...views(lookAt));
      const [first] = STILL_FIRST.matches ? ["speaking"] : ["moving"];
      find("views").querySelector(`[value="${first}"]`).click();
      show("found");
    } catch (problem) {
      if (problem?.name === "AbortError" || trying !== mine) return;
      complain(problem.message);
      show("refused");
    }
  };

  const tellProgress = (id, signal) => {
    find("progress").textContent = "";
    const tell = async () => {
      const share = await preparedShare(id, signal).catch(() => 0);
      if (!signal.aborted && share > 0) find("progress").textContent = ` ${Math.round(100 * share)} %`;
    };
    return id ? setInterval(tell, PROGRESS_MS) : undefined;
  };

  const pick = () => {
    expectPicture(); // choosing takes a while
    input.click();
  };

  input.addEventListener("change", () => {
    const [picked] = input.files;
    if (!picked) return;
    forgetFile();
    file = picked;
    local = URL.createObjectURL(picked);
    find("name").value = picked.name.replace(/\.[^.]*$/, "").replace(/[_-]+/g, " ").slice(0, 60);
    find("kept").textContent = kept();
    if (!dialog.open) {
      find("consent").checked = false;
      dialog.showModal();
    }
    tryOut();
  });
  // What the browser cannot show is judged in words; a broken image says nothing.
  find("preview").addEventListener("error", () => {
    find("preview").removeAttribute("src");
    find("preview").alt = "";
  });
  find("other").addEventListener("click", pick);
  find("cancel").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => {
    if (dialog.open) return; // the event comes late: the next picture may be here already
    forgetDraft({ discard: true });
    forgetFile();
    complain("");
    closed();
  });
  addEventListener("pagehide", () => forgetDraft({ discard: true }));
  find("form").addEventListener("submit", async (event) => {
    event.preventDefault();
    if (find("send").getAttribute("aria-disabled") === "true") return;
    if (!draft) return tryOut();
    complain("");
    show("recording");
    try {
      const portrait = await giveConsent(draft.id, {
        by: find("by").value.trim(),
        statement: draft.consent_statement.version,
        name: find("name").value.trim(),
      });
      forgetDraft({ discard: false });
      done(portrait);
      dialog.close();
    } catch (problem) {
      complain(problem.message);
      if (problem.code === "draft_not_found") forgetDraft({ discard: false });
      show(draft ? "found" : "refused");
    }
  });
  return pick;
}

function findings(found) {
  const worries = found.warnings.map(({ text }) => line("worry", text));
  const good = worries.length ? "The face was found and will talk. What could be better:" :
    "The face was found, and the picture suits well.";
  return [line("good", good), ...worries];
}

function line(kind, text) {
  const made = document.createElement("p");
  made.className = kind;
  made.textContent = text;
  return made;
}

function views(lookAt) {
  return VIEWS.map(([view, name, description]) => {
    const label = document.createElement("label");
    const choice = document.createElement("input");
    Object.assign(choice, { type: "radio", name: "upload-view", value: view });
    choice.addEventListener("change", () => lookAt(view, description).catch(() => undefined));
    const text = document.createElement("span");
    text.textContent = name;
    label.append(choice, text);
    return label;
  });
}
