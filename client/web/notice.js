// What the person reads: one line of status, and a box for what is wrong, with the buttons that help.

export class Notice {
  #element;
  #countdown = 0;
  #useSample;
  #after;

  /** useSample: starts with the sample voice. after: gets the focus when the box goes with the focus in it. */
  constructor(page, { useSample, after }) {
    this.#element = (id) => page.getElementById(id);
    this.#useSample = useSample;
    this.#after = after;
    this.#element("notice-close").addEventListener("click", () => this.hide());
    this.#element("notice-sample").addEventListener("click", () => {
      this.hide();
      this.#useSample();
    });
  }

  /** The line of status. */
  say(text) {
    this.#element("status").textContent = text;
  }

  /** A Problem; again: what its button does. */
  showProblem(problem, again) {
    this.#show("error", problem.code, problem.title, problem.message);
    this.say("");
    this.#element("notice-sample").hidden = !problem.canUseSample;
    if (!problem.canRetry) return;
    const action = this.#action("", again);
    let seconds = problem.retryAfterSeconds;
    const tick = () => {
      action.disabled = seconds > 0;
      action.textContent = seconds > 0 ? `Try again in ${seconds} s` : "Try again";
      if (seconds <= 0) clearInterval(this.#countdown);
      seconds -= 1;
    };
    this.#countdown = setInterval(tick, 1_000);
    tick();
  }

  /** Something that goes on meanwhile; with a button where there is one. */
  warn(code, title, text, { kind = "warning", button = "", run } = {}) {
    this.#show(kind, code, title, text);
    if (button) this.#action(button, run);
  }

  /** code: only if this is what is shown. */
  hide(code) {
    const box = this.#element("notice");
    if (box.hidden || (code && box.dataset.code !== code)) return;
    clearInterval(this.#countdown);
    const focused = box.contains(document.activeElement);
    box.hidden = true;
    if (focused) this.#after.focus();
  }

  #show(kind, code, title, text) {
    clearInterval(this.#countdown);
    const box = this.#element("notice");
    box.dataset.kind = kind;
    box.dataset.code = code;
    this.#element("notice-title").textContent = title;
    this.#element("notice-text").textContent = text;
    this.#element("notice-action").hidden = true;
    this.#element("notice-sample").hidden = true;
    box.hidden = false;
  }

  #action(text, run) {
    const action = this.#element("notice-action");
    action.hidden = false;
    action.disabled = false;
    action.textContent = text;
    action.onclick = () => {
      this.hide();
      run();
    };
    return action;
  }
}
