// The gallery by keys: arrows move, Shift or Space select, N, A and U label, Enter opens, Ctrl+Z takes back.

import { send } from "./ui.js";
import { Labels } from "./saving.js";

const WATCH_MILLISECONDS = 4000;
const gallery = document.getElementById("gallery");

if (gallery) begin();

function begin() {
  const tiles = [...gallery.querySelectorAll(".tile")];
  const byRef = new Map(tiles.map((tile) => [tile.dataset.ref, tile]));
  const editable = gallery.hasAttribute("data-editable");
  const undoButton = document.querySelector("[data-undo]");
  const saved = document.getElementById("saved");
  const undo = [];
  let anchor = 0;
  let current = 0;

  const labels = new Labels(gallery.dataset.url, (ref, entry) => show(byRef.get(ref), entry), (waiting, problem) => {
    if (!saved) return;
    saved.textContent = problem ?? (waiting ? `Saving ${waiting} …` : "All is saved");
  });

  function show(tile, entry) {
    if (!tile) return;
    tile.classList.toggle("pending", labels.isPending(tile.dataset.ref));
    tile.classList.toggle("conflict", Boolean(entry.conflict));
    if (entry.failed) return showLabel(tile, tile.dataset.before ?? "");
    if (entry.version) tile.dataset.version = entry.version;
    tile.dataset.before = entry.label ?? "";
    showLabel(tile, entry.label ?? "");
  }

  function showLabel(tile, label) {
    tile.dataset.label = label;
    tile.querySelector(".label").textContent = label || "–";
    tile.setAttribute("aria-label", `${tile.querySelector(".name").textContent}, ${label || "no label"}`);
  }

  const selected = () => tiles.filter((tile) => tile.getAttribute("aria-selected") === "true");
  const select = (tile, on) => tile.setAttribute("aria-selected", String(on));

  function selectOnly(...chosen) {
    const wanted = new Set(chosen);
    for (const tile of tiles) select(tile, wanted.has(tile));
  }

  function focus(index) {
    tiles[current].tabIndex = -1;
    current = Math.max(0, Math.min(tiles.length - 1, index));
    tiles[current].tabIndex = 0;
    tiles[current].focus();
  }

  function range(index) {
    const [from, to] = [Math.min(anchor, index), Math.max(anchor, index)];
    selectOnly(...tiles.slice(from, to + 1));
  }

  function label(value, chosen, remember = true) {
    if (!editable || !chosen.length) return;
    if (remember) {
      undo.push(chosen.map((tile) => [tile, tile.dataset.label]));
      undoButton.disabled = false;
    }
    for (const tile of chosen) {
      if (tile.dataset.label === value) continue;
      tile.dataset.before ??= tile.dataset.label;
      labels.set(tile.dataset.ref, tile.dataset.version, value || null);
      tile.classList.add("pending");
      tile.classList.remove("conflict");
      showLabel(tile, value);
    }
  }

  function takeBack() {
    for (const [tile, value] of undo.pop() ?? []) label(value, [tile], false);
    undoButton.disabled = !undo.length;
  }

  function labelAndMove(value) {
    const chosen = selected();
    if (chosen.length > 1) return label(value, chosen);
    label(value, [tiles[current]]);
    focus(current + 1);
    anchor = current;
    selectOnly(tiles[current]);
  }

  function columns() {
    const top = tiles[0].offsetTop;
    const found = tiles.findIndex((tile) => tile.offsetTop !== top);
    return found < 0 ? tiles.length : found;
  }

  const steps = { ArrowRight: () => 1, ArrowLeft: () => -1, ArrowDown: columns, ArrowUp: () => -columns(), Home: () => -current, End: () => tiles.length };
  const keys = { n: "normal", a: "anomaly", u: "" };

  gallery.addEventListener("keydown", (event) => {
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if ((event.ctrlKey || event.metaKey) && key === "a") selectOnly(...tiles);
    else if ((event.ctrlKey || event.metaKey) && key === "z") takeBack();
    else if (event.ctrlKey || event.metaKey || event.altKey) return;
    else if (key in steps) {
      const from = anchor;
      focus(current + steps[key]());
      anchor = from;
      if (event.shiftKey) range(current);
      else {
        anchor = current;
        selectOnly(tiles[current]);
      }
    } else if (key === " ") {
      select(tiles[current], tiles[current].getAttribute("aria-selected") !== "true");
      anchor = current;
    } else if (key === "Enter") go(tiles[current].dataset.href);
    else if (key === "PageDown" && pageLink("next")) go(pageLink("next").href);
    else if (key === "PageUp" && pageLink("prev")) go(pageLink("prev").href);
    else if (key === "Escape") selectOnly();
    else if (key in keys) labelAndMove(keys[key]);
    else return;
    event.preventDefault();
  });

  gallery.addEventListener("focusin", (event) => {
    const index = tiles.indexOf(event.target);
    if (index < 0 || index === current) return;
    tiles[current].tabIndex = -1;
    current = index;
    tiles[current].tabIndex = 0;
  });

  gallery.addEventListener("click", (event) => {
    const tile = event.target.closest(".tile");
    if (!tile) return;
    const [index, from] = [tiles.indexOf(tile), anchor];
    focus(index);
    anchor = from;
    if (event.shiftKey) range(index);
    else if (event.ctrlKey || event.metaKey) select(tile, tile.getAttribute("aria-selected") !== "true");
    else selectOnly(tile);
    if (!event.shiftKey) anchor = index;
  });
  gallery.addEventListener("dblclick", (event) => {
    const tile = event.target.closest(".tile");
    if (tile) go(tile.dataset.href);
  });

  const pageLink = (rel) => document.querySelector(`.pager a[rel=${rel}]`);

  const go = (address) => labels.flush().then(() => window.location.assign(address), () => {}); // else it is said why

  for (const button of document.querySelectorAll("[data-label]:is(button)")) {
    button.addEventListener("click", () => label(button.dataset.label, selected().length ? selected() : [tiles[current]]));
  }
  document.querySelector("[data-select=all]")?.addEventListener("click", () => selectOnly(...tiles));
  undoButton?.addEventListener("click", takeBack);

  // What others do meanwhile appears here.
  async function watch() {
    if (document.visibilityState !== "visible" || labels.running) return;
    const url = new URL(`${gallery.dataset.url}/state`, window.location.href);
    url.search = window.location.search;
    url.searchParams.set("since", gallery.dataset.updated);
    const state = await send("GET", url);
    gallery.dataset.updated = state.updated;
    if (state.stats) {
      const stats = { ...state.stats, Unlabelled: state.stats.Total - state.stats.Labeled };
      for (const shown of document.querySelectorAll("[data-stat]")) {
        shown.textContent = String(stats[shown.dataset.stat]).replace(/\B(?=(\d{3})+$)/g, "\u00a0");
      }
    }
    for (const entry of state.entries ?? []) {
      const tile = byRef.get(entry.ref);
      if (!tile || labels.isPending(entry.ref) || tile.dataset.version === entry.version) continue;
      if (state.status.endsWith("IN_PROGRESS")) continue; // what this page has saved may not be there yet
      labels.versions.set(entry.ref, entry.version);
      show(tile, entry);
    }
    if (state.status === "UPDATE_FAILED_ROLLBACK_COMPLETE" && saved) saved.textContent = state.message;
  }
  (async () => {
    for (;;) {
      await new Promise((resolve) => setTimeout(resolve, WATCH_MILLISECONDS));
      await watch().catch(() => {});
    }
  })();
}
