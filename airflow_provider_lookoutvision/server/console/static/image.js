// One image: its label by keys, and its mask, painted with brush, polygon and eraser.

import { Refused, insist, newToken, reason, say, send } from "./ui.js";
import { indicesOf, loadImage } from "./masks.js";
import { Painting } from "./painting.js";
import { Labels } from "./saving.js";

const COLORS = ["#2ca02c", "#d62728", "#1f77b4", "#ff7f0e", "#9467bd", "#17becf", "#e377c2", "#bcbd22", "#8c564b", "#0000ff"];
const painter = document.getElementById("painter");
const stage = document.getElementById("stage");
const canvas = document.getElementById("canvas");
const context = canvas.getContext("2d");
const element = (id) => document.getElementById(id);
const editable = painter.hasAttribute("data-editable");
const data = painter.dataset;

const listed = (id) => [...element(id).content.querySelectorAll("i")].map((each) => ({ name: each.dataset.name, color: each.dataset.color }));
const own = listed("own");
const classes = [...own, ...listed("known").filter(({ name }) => !own.some((each) => each.name === name))];

let image, painting, overlay;
let tool = "brush";
let chosen = 0;
let scale = 1;
let offset = { x: 0, y: 0 };
let polygon = [];
let cursor = null;
let pressed = null;
let space = false;
let dirty = false;

const labels = new Labels(data.url, (ref, entry) => {
  if (entry.failed) return showLabel(data.before ?? "");
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

// -- classes ------------------------------------------------------------------------------------------------

function showClasses() {
  const list = element("classes");
  list.replaceChildren(...classes.map(({ name, color }, index) => {
    const row = document.createElement("label");
    row.className = "row";
    const radio = Object.assign(document.createElement("input"), { type: "radio", name: "class", value: String(index), checked: index === chosen, disabled: !editable });
    radio.addEventListener("change", () => (chosen = index));
    const swatch = document.createElement("span");
    swatch.className = "swatch";
    swatch.style.background = color;
    const text = document.createElement("span");
    text.textContent = index < 9 ? `${index + 1} ${name}` : name;
    row.append(radio, swatch, text);
    return row;
  }));
  const free = COLORS.find((color) => !classes.some((each) => each.color.toLowerCase() === color));
  if (free && element("class_color")) element("class_color").value = free;
}

element("new_class")?.addEventListener("submit", (event) => {
  event.preventDefault();
  const name = element("class_name").value.trim();
  const color = element("class_color").value.toUpperCase();
  if (!name || name.toLowerCase() === "background") return say("Give the class a name, other than background.");
  if (classes.some((each) => each.name === name)) return say(`There is a class ${name} already.`);
  if (classes.some((each) => each.color.toUpperCase() === color) || color === "#FFFFFF" || color === "#000000") {
    return say("Choose a colour that no class has, nor the background: neither white nor black.");
  }
  classes.push({ name, color });
  chosen = classes.length - 1;
  element("class_name").value = "";
  showClasses();
});

// -- the view -----------------------------------------------------------------------------------------------

function fit() {
  const width = stage.clientWidth;
  const height = stage.clientHeight;
  canvas.width = width;
  canvas.height = height;
  scale = Math.min(width / image.naturalWidth, height / image.naturalHeight);
  offset = { x: (width - image.naturalWidth * scale) / 2, y: (height - image.naturalHeight * scale) / 2 };
  draw();
}

function zoom(factor, at = { x: canvas.width / 2, y: canvas.height / 2 }) {
  const wanted = Math.max(0.05, Math.min(40, scale * factor));
  offset = { x: at.x - ((at.x - offset.x) * wanted) / scale, y: at.y - ((at.y - offset.y) * wanted) / scale };
  scale = wanted;
  draw();
}

function draw() {
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.setTransform(scale, 0, 0, scale, offset.x, offset.y);
  context.imageSmoothingEnabled = scale < 2;
  context.drawImage(image, 0, 0);
  context.imageSmoothingEnabled = false;
  context.globalAlpha = element("opacity").value / 100;
  overlay.getContext("2d").putImageData(painting.image(classes.map(({ color }) => color), 0), 0, 0);
  context.drawImage(overlay, 0, 0);
  context.globalAlpha = 1;
  if (polygon.length) {
    context.lineWidth = 1.5 / scale;
    context.strokeStyle = classes[chosen]?.color ?? "#fff";
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
const place = (event) => {
  const box = canvas.getBoundingClientRect();
  return { x: (event.clientX - box.left - offset.x) / scale, y: (event.clientY - box.top - offset.y) / scale };
};

// -- painting -----------------------------------------------------------------------------------------------

function index() {
  if (tool === "eraser") return 0;
  if (!classes.length) {
    say("Add a class first: its name and its colour.");
    element("class_name").focus();
    return null;
  }
  return chosen + 1;
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
    painting.fill(polygon, chosen + 1);
    if (painting.end()) changed();
  }
  polygon = [];
  draw();
}

function choose(name) {
  tool = name;
  polygon = [];
  for (const button of document.querySelectorAll("[data-tool]")) button.setAttribute("aria-pressed", String(button.dataset.tool === name));
}

stage.addEventListener("pointerdown", (event) => {
  stage.focus();
  if (space || event.button === 1) {
    pressed = { move: true, x: event.clientX, y: event.clientY };
  } else if (editable && event.button === 0) {
    const at = place(event);
    const value = index();
    if (value === null) return;
    if (tool === "polygon") {
      polygon.push([at.x, at.y]);
      draw();
      return;
    }
    painting.begin();
    painting.dab(at.x - 0.5, at.y - 0.5, size(), value);
    pressed = { ...at, value };
    draw();
  }
  if (pressed) stage.setPointerCapture(event.pointerId);
  event.preventDefault();
});

stage.addEventListener("pointermove", (event) => {
  cursor = place(event);
  if (pressed?.move) {
    offset = { x: offset.x + event.clientX - pressed.x, y: offset.y + event.clientY - pressed.y };
    pressed = { move: true, x: event.clientX, y: event.clientY };
  } else if (pressed) {
    painting.stroke(pressed.x - 0.5, pressed.y - 0.5, cursor.x - 0.5, cursor.y - 0.5, size(), pressed.value);
    pressed = { ...cursor, value: pressed.value };
  }
  draw();
});

stage.addEventListener("pointerup", () => {
  if (pressed && !pressed.move && painting.end()) changed();
  pressed = null;
});
stage.addEventListener("pointerleave", () => {
  cursor = null;
  draw();
});
stage.addEventListener("dblclick", endPolygon);
stage.addEventListener("wheel", (event) => {
  event.preventDefault();
  const box = canvas.getBoundingClientRect();
  zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2, { x: event.clientX - box.left, y: event.clientY - box.top });
}, { passive: false });

function undo() {
  if (painting.undo()) changed();
}

function redo() {
  if (painting.redo()) changed();
}

// -- saving -------------------------------------------------------------------------------------------------

async function saveMask() {
  if (!editable || !dirty) return;
  await labels.flush();
  element("save_mask").disabled = true;
  const used = painting.used;
  const painted = classes.filter((_, number) => used.has(number + 1));
  const query = new URLSearchParams({ ref: data.ref, version: data.version, token: newToken(), at: new Date().toISOString() });
  for (const { name, color } of painted) {
    query.append("class", name);
    query.append("color", color);
  }
  try {
    element("saved").textContent = "Saving …";
    const body = painted.length ? await painting.png(classes.map(({ color }) => color)) : undefined;
    const answer = await insist(
      () => send("POST", `${data.url}/mask?${query}`, body, { "Content-Type": "image/png" }),
      (error) => error.status === 409 && error.code === "ConflictException",
    );
    const [entry] = answer.entries;
    data.version = entry.version;
    labels.versions.set(entry.ref, entry.version);
    showLabel(entry.label ?? "");
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

async function go(address) {
  if (!address) return;
  await labels.flush();
  window.location.assign(address);
}

const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

document.addEventListener("keydown", (event) => {
  if (event.target.matches("input:not([type=range], [type=radio]), textarea, select")) return;
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
  else if (/^[1-9]$/.test(key) && classes[Number(key) - 1]) {
    chosen = Number(key) - 1;
    showClasses();
  } else if (key === "Enter" && polygon.length) endPolygon();
  else if (key === "Escape" && polygon.length) polygon = [];
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
    cursor = { x: cursor.x + moves[key][0] * step, y: cursor.y + moves[key][1] * step };
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

try {
  image = await loadImage(data.image);
  painting = new Painting(image.naturalWidth, image.naturalHeight);
  overlay = new OffscreenCanvas(painting.width, painting.height);
  if (data.mask) {
    const mask = await loadImage(data.mask).catch(() => say("The mask of this image can't be read from its bucket."));
    if (mask) painting.indices = indicesOf(mask, own.map(({ color }) => color), painting.width, painting.height);
  }
  showClasses();
  showLabel(data.label);
  element("saved").textContent = "";
  fit();
  new ResizeObserver(fit).observe(stage);
  painter.dataset.ready = "";
} catch (error) {
  say(`${error.message}: is it in its bucket, and may your key read it (s3:GetObject)?`);
}
