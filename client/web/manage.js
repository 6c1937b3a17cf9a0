// The dialog of an uploaded portrait: its name, its place, who agreed to it, and its end.

import { changePortrait, deletePortrait, pictureAddress } from "./server.js";

/**
 * uploads: () => the uploaded portraits in order. changed() and deleted(portrait) are called after the server did it,
 * closed() when the dialog has gone. Returns what opens the dialog for a portrait.
 */
export function connectManage(dialog, { uploads, changed, deleted, closed }) {
  const find = (id) => dialog.querySelector(`#managed-${id}`);
  let portrait = null;

  const complain = (text) => {
    find("problem").textContent = text;
    find("problem").hidden = !text;
  };

  const ask = (asking) => {
    find("question").textContent =
      `Delete “${portrait.name}”? Its picture is erased for good. The record of consent stays.`;
    find("confirm").hidden = !asking;
    find("actions").hidden = asking;
    find(asking ? "keep" : "close").focus();
  };

  const place = () => {
    const ids = uploads().map((item) => item.id);
    const index = ids.indexOf(portrait.id);
    const focused = document.activeElement;
    find("order").hidden = ids.length < 2 || index < 0;
    find("earlier").disabled = index <= 0;
    find("later").disabled = index >= ids.length - 1;
    // A button that cannot be pressed any more must not take the focus with it.
    if (focused.disabled && dialog.contains(focused)) {
      find(["earlier", "later"].find((name) => !find(name).disabled) ?? "close").focus();
    }
    return index;
  };

  const doing = async (work) => {
    complain("");
    try {
      await work();
    } catch (problem) {
      complain(problem.message);
    }
  };

  const move = (step) => doing(async () => {
    await changePortrait(portrait.id, { position: place() + step });
    await changed();
    place();
  });

  const open = async (chosen) => {
    portrait = chosen;
    const consent = chosen.consent;
    complain(chosen.problem ?? "");
    find("title").textContent = chosen.name;
    find("name").value = chosen.name;
    find("rename").hidden = Boolean(chosen.problem);
    find("consent").textContent = `${consent.given_by || "Somebody"} agreed on ${date(consent.given_at)}, ` +
      { page: "on this page.", api: "through the API.", import: "in an earlier version." }[consent.means];
    find("statement").textContent = consent.statement;
    find("hash").textContent = `For exactly this picture: SHA-256 ${chosen.sha256.slice(0, 16)}… The record stays when ` +
      "the portrait is deleted.";
    find("hash").title = `as stored ${chosen.sha256}, as uploaded ${chosen.sha256_uploaded}`;
    find("confirm").hidden = true;
    find("actions").hidden = false;
    find("picture").removeAttribute("src");
    place();
    if (!dialog.open) dialog.showModal();
    find("close").focus();
    if (!chosen.thumbnail) return;
    find("picture").src = await pictureAddress(chosen.thumbnail, { isPrivate: true }).catch(() => "");
  };

  find("rename").addEventListener("submit", (event) => {
    event.preventDefault();
    doing(async () => {
      portrait = await changePortrait(portrait.id, { name: find("name").value.trim() });
      find("title").textContent = portrait.name;
      await changed();
    });
  });
  find("earlier").addEventListener("click", () => move(-1));
  find("later").addEventListener("click", () => move(+1));
  find("close").addEventListener("click", () => dialog.close());
  find("delete").addEventListener("click", () => ask(true));
  find("keep").addEventListener("click", () => ask(false));
  find("really").addEventListener("click", () => doing(async () => {
    await deletePortrait(portrait.id);
    deleted(portrait);
    dialog.close();
  }));
  dialog.addEventListener("close", closed);
  return open;
}

function date(text) {
  return new Date(text).toLocaleString(undefined, { dateStyle: "long", timeStyle: "short" });
}
