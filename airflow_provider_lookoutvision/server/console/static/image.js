// One image: its label by keys, and its mask, painted with brush, polygon and eraser.

import { Refused, confirmed, insist, newToken, reason, say, send } from "./ui.js";
import { Classes } from "./classes.js";
import { indicesOf, loadImage } from "./masks.js";
import { Painting } from "./painting.js";
import { Labels } from "./saving.js";
import { View } from "./view.js";

const painter = document.getElementById("painter");
const stage = document.getElementById("stage");
const canvas = document.getElementById("canvas");
const context = canvas.getContext("2d");
const element = (id) => document.getElementById(id);
const editable = painter.hasAttribute("data-editable");
const data = painter.dataset;

const classes = new Classes(editable);

let image, painting, overlay, view;
let tool = "brush";
let polygon = [];
let cursor = null;
let pressed = null;
let space = false;
let dirty = false;
let savedLabel = data.label;

const labels = new Labels(data.url, (ref, entry) => {
  if (entry.failed) return showLabel(savedLabel);
  savedLabel = entry.label ?? "";
  if (entry.version) data.version = entry.version;
  showLabel(entry.label ?? "");
}, (waiting, problem) => {
  element("saved").textContent = problem ?? (waiting ? "Saving …" : "Saved");
});

function showLabel(label) {
  data.label = label;
  element("label_shown").textContent = label || "no label";
  element("label_shown").className = `state ${label === "normal" ? "good" : label === "anomaly" ? "bad" : ""}`;
}

function label(value) {
  if (!editable || data.label === value) return;
  labels.set(data.ref, data.version, value || null);
  showLabel(value);
}

// -- the view -----------------------------------------------------------------------------------------------

function fit() {
  view?.fit();
  draw();
}

function zoom(factor, at) {
  view?.zoom(factor, at);
  draw();
}

function draw() {
  if (!view) return; // the image is on its way
  const { scale, offset } = view;
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.setTransform(scale, 0, 0, scale, offset.x, offset.y);
  context.imageSmoothingEnabled = scale < 2;
  context.drawImage(image, 0, 0);
  context.imageSmoothingEnabled = false;
  context.globalAlpha = element("opacity").value / 100;
  overlay.getContext("2d").putImageData(painting.image(classes.colors, 0), 0, 0);
  context.drawImage(overlay, 0, 0);
  context.globalAlpha = 1;
  if (polygon.length) {
    context.lineWidth = 1.5 / scale;
    context.strokeStyle = classes.colors[classes.chosen] ?? "#fff";
    context.beginPath();
    polygon.forEach(([x, y]) => context.lineTo(x, y));
    if (cursor) context.lineTo(cursor.x, cursor.y);
    context.stroke();
  }
  if (cursor && editable) {
    context.lineWidth = 1.5 / scale;
    for (const [color, dash] of [["#000", []], ["#fff", [3 / scale, 3 / scale]]]) {
      context.strokeStyle = color;
      context.setLineDash(dash);
      context.beginPath();
      context.arc(cursor.x, cursor.y, tool === "polygon" ? 3 / scale : Math.max(0.5, size() / 2), 0, 7);
      context.stroke();
    }
    context.setLineDash([]);
  }
}

const size = () => Number(element("size")?.value ?? 1);

// -- painting -----------------------------------------------------------------------------------------------

function index() {
  if (tool === "eraser") return 0;
  if (!classes.all.length) {
    say("Add a class first: its name and its colour.");
    element("class_name").focus();
    return null;
  }
  return classes.chosen + 1;
}

function changed() {
  dirty = true;
  element("save_mask").disabled = false;
  element("undo").disabled = !painting.done.length;
  element("redo").disabled = !painting.undone.length;
  draw();
}

function endPolygon() {
  if (polygon.length > 2) {
    painting.begin();
    painting.fill(polygon, classes.chosen + 1);
    if (painting.end()) changed();
  }
  polygon = [];
  draw();
}

function choose(name) {
  tool = name;
  polygon = [];
  draw();
  for (const button of document.querySelectorAll("[data-tool]")) button.setAttribute("aria-pressed", String(button.dataset.tool === name));
}

/** A second finger takes back what the first one has begun. */
function giveUp() {
  if (pressed?.corner) polygon.pop();
  else if (pressed && !pressed.move) painting.cancel();
  pressed = cursor = null;
}

stage.addEventListener("pointerdown", (event) => {
  stage.focus();
  event.preventDefault();
  if (view.pinch(event)) {
    giveUp();
    return draw();
  }
  if (space || event.button === 1) {
    pressed = { move: true, x: event.clientX, y: event.clientY };
  } else if (editable && event.button === 0) {
    const at = view.place(event);
    const value = index();
    if (value === null) return;
    if (tool === "polygon") {
      polygon.push([at.x, at.y]);
      pressed = { ...at, corner: true };
    } else {
      painting.begin();
      painting.dab(at.x - 0.5, at.y - 0.5, size(), value);
      pressed = { ...at, value };
    }
    draw();
  }
  if (pressed) stage.setPointerCapture(event.pointerId);
});

stage.addEventListener("pointermove", (event) => {
  if (view.pinch(event)) return draw();
  cursor = view.place(event);
  if (pressed?.move) {
    view.move(event.clientX - pressed.x, event.clientY - pressed.y);
    pressed = { move: true, x: event.clientX, y: event.clientY };
  } else if (pressed && !pressed.corner) {
    painting.stroke(pressed.x - 0.5, pressed.y - 0.5, cursor.x - 0.5, cursor.y - 0.5, size(), pressed.value);
    pressed = { ...cursor, value: pressed.value };
  }
  draw();
});

for (const kind of ["pointerup", "pointercancel"]) {
  stage.addEventListener(kind, (event) => {
    if (view.pinch(event)) return;
    if (pressed && !pressed.move && !pressed.corner && painting.end()) changed();
    pressed = null;
  });
}
stage.addEventListener("pointerleave", () => {
  cursor = null;
  draw();
});
stage.addEventListener("dblclick", endPolygon);
stage.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2, view.on(event));
}, { passive: false });

const undo = () => painting?.undo() && changed();
const redo = () => painting?.redo() && changed();

// -- saving -------------------------------------------------------------------------------------------------

async function saveMask() {
  if (!editable || !dirty) return;
  try {
    await labels.flush();
  } catch {
    return; // it is said why
  }
  element("save_mask").disabled = true;
  const used = painting.used;
  const painted = classes.all.filter((_, number) => used.has(number + 1));
  const query = new URLSearchParams({ ref: data.ref, version: data.version, token: newToken(), at: new Date().toISOString() });
  for (const { name, color } of painted) {
    query.append("class", name);
    query.append("color", color);
  }
  try {
    element("saved").textContent = "Saving …";
    const body = painted.length ? await painting.png(classes.colors) : undefined;
    const answer = await insist(
      () => send("POST", `${data.url}/mask?${query}`, body, { "Content-Type": "image/png" }),
      (error) => error.status === 409 && error.code === "ConflictException",
    );
    const [entry] = answer.entries;
    data.version = entry.version;
    labels.versions.set(entry.ref, entry.version);
    savedLabel = entry.label ?? "";
    showLabel(savedLabel);
    dirty = false;
    element("saved").textContent = "Saved";
  } catch (error) {
    element("save_mask").disabled = false;
    element("saved").textContent = "Not saved";
    if (error instanceof Refused && error.code === "EditConflict") {
      say("Somebody else has changed this image meanwhile; your mask wasn't saved. Open the page again in another tab to see theirs, and save yours from here once more if it is right.");
      const now = error.answer.entries[0];
      data.version = now.version ?? data.version;
      labels.versions.set(data.ref, data.version);
    } else say(`The mask wasn't saved: ${reason(error)}`);
  }
}

window.addEventListener("beforeunload", (event) => dirty && event.preventDefault());
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href]");
  if (!link || !dirty || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  go(link.href);
});

async function go(address) {
  if (!address) return;
  if (dirty && !(await confirmed("The mask isn't saved. Leave it as it was?", "Leave it"))) return;
  dirty = false;
  labels.flush().then(() => window.location.assign(address), () => {}); // else it is said why
}

const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

document.addEventListener("keydown", (event) => {
  if (event.target.matches("input:not([type=range], [type=radio]), textarea, select") || document.querySelector("dialog[open]")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const control = event.ctrlKey || event.metaKey;
  const onStage = document.activeElement === stage;
  if (control && key === "z") event.shiftKey ? redo() : undo();
  else if (control && key === "y") redo();
  else if (control && key === "s") saveMask();
  else if (control || event.altKey) return;
  else if (key in { n: 1, a: 1, u: 1 }) label({ n: "normal", a: "anomaly", u: "" }[key]);
  else if (key === "b" && editable) choose("brush");
  else if (key === "p" && editable) choose("polygon");
  else if (key === "e" && editable) choose("eraser");
  else if (key === "+" || key === "=") zoom(1.25);
  else if (key === "-") zoom(0.8);
  else if (key === "0") fit();
  else if (/^[1-9]$/.test(key)) classes.choose(Number(key) - 1);
  else if (key === "Enter" && polygon.length) endPolygon();
  else if (key === "Escape" && polygon.length) choose(tool);
  else if (key === "Escape") go(data.gallery);
  else if (key === "x" && onStage && editable && cursor) {
    const value = index();
    if (value === null) return;
    if (tool === "polygon") polygon.push([cursor.x, cursor.y]);
    else {
      painting.begin();
      painting.dab(cursor.x - 0.5, cursor.y - 0.5, size(), value);
      if (painting.end()) changed();
    }
    draw();
  } else if (key in moves && onStage && editable) {
    cursor ??= { x: image.naturalWidth / 2, y: image.naturalHeight / 2 };
    const step = event.shiftKey ? 10 : Math.max(1, size() / 2);
    cursor = {
      x: Math.max(0, Math.min(image.naturalWidth, cursor.x + moves[key][0] * step)),
      y: Math.max(0, Math.min(image.naturalHeight, cursor.y + moves[key][1] * step)),
    };
    view.follow(cursor);
    draw();
  } else if ((key === "ArrowLeft" || key === "ArrowRight") && event.target.matches("input")) return;
  else if (key === "ArrowLeft") go(data.before);
  else if (key === "ArrowRight") go(data.after);
  else if (key === " " && onStage) space = true;
  else return;
  event.preventDefault();
});
document.addEventListener("keyup", (event) => {
  if (event.key === " ") space = false;
});

for (const button of document.querySelectorAll("button[data-label]")) button.addEventListener("click", () => label(button.dataset.label));
for (const button of document.querySelectorAll("[data-tool]")) button.addEventListener("click", () => choose(button.dataset.tool));
for (const button of document.querySelectorAll("[data-zoom]")) {
  button.addEventListener("click", () => ({ in: () => zoom(1.25), out: () => zoom(0.8), fit })[button.dataset.zoom]());
}
element("opacity").addEventListener("input", draw);
element("size")?.addEventListener("input", () => (element("size_shown").value = element("size").value));
element("undo")?.addEventListener("click", undo);
element("redo")?.addEventListener("click", redo);
element("save_mask")?.addEventListener("click", saveMask);
element("clear")?.addEventListener("click", () => {
  painting.begin();
  painting.clear();
  if (painting.end()) changed();
});

stage.inert = true;
try {
  image = await loadImage(data.image);
  painting = new Painting(image.naturalWidth, image.naturalHeight);
  overlay = new OffscreenCanvas(painting.width, painting.height);
  if (data.mask) {
    const mask = await loadImage(data.mask).catch(() => say("The mask of this image can't be read from its bucket."));
    if (mask) painting.indices = indicesOf(mask, classes.ownColors, painting.width, painting.height);
  }
  classes.show();
  showLabel(data.label);
  view = new View(canvas, image);
  stage.inert = false;
  element("saved").textContent = "";
  fit();
  new ResizeObserver(fit).observe(stage);
  painter.dataset.ready = "";
} catch (error) {
  say(`${error.message}: is it in its bucket, and may your key read it (s3:GetObject)?`);
}
