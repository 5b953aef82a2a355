// Trying a model: a picture in, the verdict and the mask out; and what people say of it, into the dataset.

import { takeFiles } from "./dropping.js";
import { Refused, insist, newToken, reason, say, send, sendJson } from "./ui.js";
import { drawHeat, drawMask, imageOf, loadImage } from "./masks.js";

const trial = document.getElementById("trial");
const element = (id) => document.getElementById(id);
let current = null;

if (trial) begin();

function begin() {
  takeFiles(element("drop"), [element("choose")], (files) => {
    if (files[0]?.file) attempt(files[0].file);
    else if (files.length) say(`${files[0].path} can't be read: is it still there, and may you read it?`);
  });
  element("over").addEventListener("change", draw);
  element("wrong")?.addEventListener("click", () => keep(current.result.IsAnomalous ? "normal" : "anomaly"));
  element("right")?.addEventListener("click", () => keep(current.result.IsAnomalous ? "anomaly" : "normal"));
}

async function attempt(file) {
  element("said").textContent = "";
  element("hint").textContent = `${file.name} …`;
  try {
    const result = await send("POST", trial.dataset.url, file, { "Content-Type": "application/octet-stream" });
    const image = await loadImage(URL.createObjectURL(file));
    const mask = result.AnomalyMask ? await imageOf(result.AnomalyMask) : null;
    const heat = result.AnomalyMap ? await imageOf(result.AnomalyMap) : null;
    current = { file, result, image, mask, heat };
    show();
    element("hint").textContent = `${file.name}. Drop the next one.`;
  } catch (error) {
    element("result").hidden = true;
    element("hint").textContent = "Drop a JPEG or PNG picture here";
    say(error instanceof Refused ? error.message : reason(error));
  }
}

function show() {
  const { result, mask, heat } = current;
  element("result").hidden = false;
  element("verdict").textContent = result.IsAnomalous ? "Anomaly" : "Normal";
  element("verdict").className = `verdict ${result.IsAnomalous ? "anomaly" : "normal"}`;
  element("confidence").textContent = `${(result.Confidence * 100).toFixed(1)} %`;
  for (const [name, there] of [["mask", mask], ["map", heat]]) element(`${name}_row`).hidden = !there;
  const over = element("over").querySelector(`[value=${mask ? "mask" : heat && result.IsAnomalous ? "map" : "nothing"}]`);
  over.checked = true;
  element("areas").replaceChildren(...(result.Anomalies ?? []).filter(({ Name }) => Name.toLowerCase() !== "background").map(({ Name, PixelAnomaly }) => {
    const item = document.createElement("li");
    const swatch = document.createElement("span");
    swatch.className = "swatch";
    swatch.style.background = PixelAnomaly.Color;
    item.append(swatch, ` ${Name}: ${(PixelAnomaly.TotalPercentageArea * 100).toFixed(2)} % of the picture`);
    return item;
  }));
  for (const id of ["wrong", "right"]) if (element(id)) element(id).disabled = false;
  draw();
}

function draw() {
  const { image, mask, heat } = current;
  const canvas = element("canvas");
  canvas.hidden = false;
  canvas.width = image.naturalWidth;
  canvas.height = image.naturalHeight;
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const shown = document.querySelector("[name=over]:checked")?.value;
  if (shown === "mask" && mask) drawMask(context, mask, canvas.width, canvas.height);
  if (shown === "map" && heat) drawHeat(context, heat, canvas.width, canvas.height);
}

async function keep(label) {
  const { bucket, prefix, dataset } = trial.dataset;
  for (const id of ["wrong", "right"]) element(id).disabled = true;
  const key = `${prefix}${newToken().slice(0, 8)}-${current.file.name}`;
  try {
    const query = new URLSearchParams({ bucket, key });
    await insist(() => send("PUT", `${dataset}/file?${query}`, current.file, { "Content-Type": "application/octet-stream" }), () => false);
    const document = { token: newToken(), at: new Date().toISOString(), refs: [`s3://${bucket}/${key}`], label };
    await insist(() => sendJson(`${dataset}/entries`, document), (error) => error.status === 409);
    element("said").textContent = `It is in the training dataset, as ${label}. The next training learns from it.`;
  } catch (error) {
    for (const id of ["wrong", "right"]) element(id).disabled = false;
    say(`It wasn't put into the dataset: ${reason(error)}`);
  }
}
