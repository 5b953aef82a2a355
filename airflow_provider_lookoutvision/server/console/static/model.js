// A model that is under way: its state as it changes, without opening the page anew.

import { pause, send } from "./ui.js";

const model = document.getElementById("model");

async function watch() {
  for (;;) {
    const state = await send("GET", model.dataset.url).catch((error) => {
      if (error.status === 404 || error.status === 401) window.location.reload();
      return null;
    });
    if (state) {
      if (state.status !== model.dataset.status) return window.location.reload();
      if (state.status !== "TRAINING_FAILED") document.getElementById("message").textContent = state.message;
      const progress = document.getElementById("progress");
      if (progress && state.progress !== null) progress.value = state.progress;
      for (const [name, value] of Object.entries(state.load ?? {})) {
        const shown = document.getElementById(`load_${name}`);
        if (shown) shown.textContent = value;
      }
    }
    await pause(document.visibilityState === "visible" ? 1000 : 5000);
  }
}

if (model.hasAttribute("data-watch")) watch();
