// What all pages share: requests with the session's token, messages, forms that say what is wrong beside them.

export const base = document.body.dataset.base;
const csrf = document.querySelector("meta[name=csrf]")?.content ?? "";

export class Refused extends Error {
  constructor(status, answer) {
    super(answer.message ?? `The service answered ${status}`);
    this.status = status;
    this.code = answer.code;
    this.answer = answer;
  }
}

/** Send a request of the page; the JSON of the answer. Throws Refused, and TypeError when nothing answers. */
export async function send(method, url, body, headers = {}) {
  const response = await fetch(url, {
    method,
    body,
    headers: { Accept: "application/json", ...(method === "GET" ? {} : { "X-CSRF-Token": csrf }), ...headers },
    credentials: "same-origin",
  });
  const text = await response.text();
  let answer = {};
  try {
    answer = text ? JSON.parse(text) : {};
  } catch {
    answer = { message: text.slice(0, 300) };
  }
  if (!response.ok) throw new Refused(response.status, answer);
  return answer;
}

export const sendJson = (url, document) =>
  send("POST", url, JSON.stringify(document), { "Content-Type": "application/json" });

/** A client token: one for each intention, also where crypto.randomUUID isn't there, as without TLS. */
export function newToken() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

export const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Show a message until it is closed (a problem) or for some seconds. */
export function say(text, kind = "problem") {
  const box = document.createElement("div");
  box.className = kind;
  if (kind === "problem") box.setAttribute("role", "alert");
  const close = document.createElement("button");
  close.className = "quiet";
  close.textContent = "Close";
  close.addEventListener("click", () => box.remove());
  box.append(close, text);
  const messages = document.getElementById("messages");
  while (messages.children.length > 2) messages.firstChild.remove();
  messages.append(box);
  if (kind !== "problem") setTimeout(() => box.remove(), 6000);
}

export function reason(error) {
  return error instanceof Refused ? error.message : "The service doesn't answer: is it running, and the network there?";
}

/** Repeat a request while the service is busy or away; the token makes the repetition harmless. */
export async function insist(attempt, isBusy, onWait = () => {}) {
  for (let delay = 150; ; delay = Math.min(delay * 1.5, 3000)) {
    try {
      return await attempt();
    } catch (error) {
      const passes = error instanceof TypeError || error.status >= 500 || error.status === 429 || isBusy(error);
      if (!passes) throw error;
      onWait(error);
      await pause(delay);
    }
  }
}

/** Whether somebody agrees, in a dialog of the page: in a frame as Airflow's a browser shows none of its own. */
export function confirmed(question, action) {
  const dialog = document.createElement("dialog");
  dialog.className = "question";
  const form = Object.assign(document.createElement("form"), { method: "dialog" });
  const text = Object.assign(document.createElement("p"), { textContent: question, id: "question" });
  const buttons = Object.assign(document.createElement("p"), { className: "actions" });
  buttons.append(
    Object.assign(document.createElement("button"), { value: "yes", textContent: action, className: "danger" }),
    Object.assign(document.createElement("button"), { value: "no", textContent: "Cancel", autofocus: true }),
  );
  dialog.setAttribute("aria-labelledby", "question");
  form.append(text, buttons);
  dialog.append(form);
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
  });
}

function problemOf(form) {
  let box = form.querySelector(":scope > .problem[role=alert]");
  if (!box) {
    box = document.createElement("p");
    box.className = "problem";
    box.setAttribute("role", "alert");
    form.append(box);
  }
  return box;
}

async function submit(form, submitter) {
  if (form.dataset.confirm && !(await confirmed(form.dataset.confirm, submitter.textContent.replace(" …", "")))) return;
  const fields = new URLSearchParams(new FormData(form, submitter));
  const buttons = [...form.querySelectorAll("button")];
  for (const button of buttons) button.disabled = true;
  try {
    const answer = await send("POST", submitter?.hasAttribute("formaction") ? submitter.formAction : form.action, fields.toString(), {
      "Content-Type": "application/x-www-form-urlencoded",
    });
    if (answer.location) window.location.assign(answer.location);
  } catch (error) {
    problemOf(form).textContent = reason(error);
    // Another attempt is another intention, unless nobody answered.
    const token = form.querySelector("input[name=token]");
    if (token && error instanceof Refused) token.value = newToken();
  } finally {
    for (const button of buttons) button.disabled = false;
  }
}

document.addEventListener("submit", (event) => {
  if (!event.target.matches("form[data-async]")) return;
  event.preventDefault();
  submit(event.target, event.submitter);
});

// A filter that is empty isn't named in the address.
document.addEventListener("formdata", (event) => {
  if (event.target.method === "get") {
    for (const [name, value] of [...event.formData]) if (value === "") event.formData.delete(name);
  }
});

document.addEventListener("error", (event) => {
  if (event.target instanceof HTMLImageElement && event.target.dataset.failed === undefined) {
    event.target.dataset.failed = "";
    event.target.alt = "The image can't be shown";
  }
}, true);

// A page of something that is under way shows what became of it, but takes nothing from who fills in a form.
if (document.querySelector("[data-reload]")) {
  let filled = false;
  document.addEventListener("input", () => (filled = true));
  setInterval(() => {
    const busy = filled || document.activeElement?.matches("input, select, textarea");
    if (!busy && document.visibilityState === "visible") window.location.reload();
  }, 2000);
}
