// Reviewing uncertain verdicts one after another, by keys; each goes into the training dataset with its label.

import { Refused, insist, newToken, reason, say, send, sendJson } from "./ui.js";
import { Labels } from "./saving.js";

const review = document.getElementById("review");
if (review) begin();

function begin() {
  const element = (id) => document.getElementById(id);
  const results = [...element("results").children].map(({ dataset }) => ({ ...dataset }));
  const url = review.dataset.dataset;
  let current = 0;
  let adding = Promise.resolve();
  let unfinished = 0;

  const labels = new Labels(url, () => {}, (waiting, problem) => {
    element("said").textContent = problem ?? (waiting || unfinished ? "Saving …" : "All is saved");
  });

  function show() {
    const result = results[current];
    element("number").textContent = current + 1;
    element("name").textContent = result.ref.split("/").pop();
    element("name").title = result.ref;
    element("verdict").textContent = result.anomalous === "yes" ? "Anomaly" : "Normal";
    element("verdict").className = `verdict ${result.anomalous === "yes" ? "anomaly" : "normal"}`;
    element("confidence").textContent = `${(Number(result.confidence) * 100).toFixed(1)} %`;
    element("mask_row").hidden = !result.mask;
    const shown = result.mask && element("show_mask").checked ? result.mask : result.ref;
    element("picture").src = review.dataset.pictures + encodeURIComponent(shown);
    element("picture").alt = result.ref.split("/").pop();
    for (const button of document.querySelectorAll("button[data-label]")) {
      button.setAttribute("aria-pressed", String(result.label === button.dataset.label));
    }
    element("done").textContent = results.filter(({ label }) => label).length;
    const next = results[current + 1];
    if (next) new Image().src = review.dataset.pictures + encodeURIComponent(next.ref);
  }

  function step(by) {
    const isEnd = current + by >= results.length;
    element("end").hidden = !isEnd;
    current = Math.max(0, Math.min(results.length - 1, current + by));
    show();
  }

  function label(value) {
    const result = results[current];
    result.label = value;
    unfinished += 1;
    element("said").textContent = "Saving …";
    // One after another: each waits until the dataset has taken the one before.
    adding = adding.then(() => save(result, value)).catch((error) => {
      result.label = "";
      say(`${result.ref.split("/").pop()} wasn't put into the dataset: ${reason(error)}`);
    }).finally(() => {
      unfinished -= 1;
      if (!unfinished) element("said").textContent = "All is saved";
      element("done").textContent = results.filter(({ label: set }) => set).length;
    });
    step(1);
  }

  async function save(result, value) {
    const document = { token: newToken(), at: new Date().toISOString(), refs: [result.ref], label: value };
    const answer = await insist(() => sendJson(`${url}/entries`, document), (error) => error.status === 409);
    if (answer.added) return;
    // It is in the dataset already, maybe with another label.
    const query = new URLSearchParams({ ref: result.ref });
    const state = await insist(async () => {
      const found = await send("GET", `${url}/state?${query}`);
      if (found.status.endsWith("IN_PROGRESS")) throw new Refused(409, { code: "ConflictException" });
      return found;
    }, (error) => error.status === 409);
    const entry = state.entries?.[0];
    if (!entry || entry.label === value) return;
    labels.set(result.ref, entry.version, value);
    await labels.flush();
  }

  document.addEventListener("keydown", (event) => {
    if (event.target.matches("input, select, textarea") && event.target.type !== "checkbox") return;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (key === "n") label("normal");
    else if (key === "a") label("anomaly");
    else if (key === "ArrowRight") step(1);
    else if (key === "ArrowLeft") step(-1);
    else if (key === "m" && results[current].mask) {
      element("show_mask").checked = !element("show_mask").checked;
      show();
    } else return;
    event.preventDefault();
  });
  for (const button of document.querySelectorAll("button[data-label]")) button.addEventListener("click", () => label(button.dataset.label));
  for (const button of document.querySelectorAll("button[data-step]")) button.addEventListener("click", () => step(Number(button.dataset.step)));
  element("show_mask").addEventListener("change", show);
  window.addEventListener("beforeunload", (event) => unfinished && event.preventDefault());
  show();
}
