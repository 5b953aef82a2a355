// Judging a model: precision and recall over the threshold, and its test images, the most wrong first.

import { base, reason, say, send } from "./ui.js";
import { drawHeat, drawOutlines, foregroundOf, imageOf, indicesOf, loadImage } from "./masks.js";

const PAGE = 60;
const judge = document.getElementById("judge");
const element = (id) => document.getElementById(id);
const TRUTH = "#ffd400";
const PREDICTION = "#00e5ff";

/** Counts at a threshold: an image is anomalous above it. */
export function countsAt(verdicts, threshold) {
  const counts = { tp: 0, fp: 0, fn: 0, tn: 0 };
  for (const { label, score } of verdicts) {
    const said = score > threshold;
    counts[label === "anomaly" ? (said ? "tp" : "fn") : said ? "fp" : "tn"] += 1;
  }
  return counts;
}

export function metricsOf({ tp, fp, fn }) {
  const precision = tp + fp ? tp / (tp + fp) : 1;
  const recall = tp + fn ? tp / (tp + fn) : 1;
  return { precision, recall, f1: precision + recall ? (2 * precision * recall) / (precision + recall) : 0 };
}

const svg = (name, attributes, text) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
};

const BOX = { left: 44, top: 8, width: 366, height: 190 };
const x = (share) => BOX.left + share * BOX.width;
const y = (share) => BOX.top + (1 - share) * BOX.height;

function axes(chart, most, unit) {
  for (const share of [0, 0.25, 0.5, 0.75, 1]) {
    chart.append(svg("line", { x1: x(0), x2: x(1), y1: y(share), y2: y(share), class: "grid" }));
    chart.append(svg("text", { x: x(0) - 5, y: y(share) + 4, "text-anchor": "end" }, unit ? `${share * 100} %` : Math.round(share * most)));
    chart.append(svg("text", { x: x(share), y: y(0) + 16, "text-anchor": "middle" }, share));
  }
}

function drawCurves(chart, sets) {
  chart.replaceChildren();
  axes(chart, 1, true);
  for (const [verdicts, dashed] of sets) {
    const steps = Array.from({ length: 201 }, (_, number) => number / 200);
    const found = steps.map((threshold) => metricsOf(countsAt(verdicts, threshold)));
    for (const name of ["precision", "recall"]) {
      const points = found.map((metrics, number) => `${x(steps[number]).toFixed(1)},${y(metrics[name]).toFixed(1)}`);
      chart.append(svg("polyline", { points: points.join(" "), class: `curve ${name}${dashed ? " dashed" : ""}` }));
    }
  }
  chart.append(svg("line", { id: "curve_mark", y1: y(0), y2: y(1), class: "mark" }));
}

function drawHistogram(chart, verdicts) {
  const bins = 20;
  const counts = { normal: new Array(bins).fill(0), anomaly: new Array(bins).fill(0) };
  for (const { label, score } of verdicts) counts[label][Math.min(bins - 1, Math.floor(score * bins))] += 1;
  const most = Math.max(1, ...counts.normal, ...counts.anomaly);
  chart.replaceChildren();
  axes(chart, most, false);
  for (const [number, label] of ["normal", "anomaly"].entries()) {
    counts[label].forEach((count, bin) => {
      if (!count) return;
      const width = BOX.width / bins / 2 - 1;
      chart.append(svg("rect", { x: x(bin / bins) + number * (width + 1), width, y: y(count / most), height: y(0) - y(count / most), class: label }));
    });
  }
  chart.append(svg("line", { id: "histogram_mark", y1: y(0), y2: y(1), class: "mark" }));
}

const percent = (share) => `${(share * 100).toFixed(1)} %`;

async function begin() {
  const { verdicts } = await send("GET", `${judge.dataset.url}/verdicts`);
  const other = judge.dataset.other ? (await send("GET", `${judge.dataset.other}/verdicts`)).verdicts : null;
  const otherScores = new Map((other ?? []).map((each) => [each.ref, each]));
  const slider = element("threshold");
  let shownCount = PAGE;
  let tiles = [];

  drawCurves(element("curve"), [[verdicts, false], ...(other ? [[other, true]] : [])]);
  drawHistogram(element("histogram"), verdicts);

  function move() {
    const threshold = Number(slider.value);
    const counts = countsAt(verdicts, threshold);
    const metrics = metricsOf(counts);
    element("threshold_shown").value = threshold.toFixed(3);
    const field = document.querySelector("#save_threshold [name=threshold]");
    if (field) field.value = slider.value;
    for (const [id, count] of Object.entries(counts)) element(id).textContent = count;
    for (const name of ["precision", "recall", "f1"]) element(name).textContent = percent(metrics[name]);
    element("wrong").textContent = `${counts.fp + counts.fn} of ${verdicts.length}`;
    for (const id of ["curve_mark", "histogram_mark"]) {
      element(id).setAttribute("x1", x(threshold));
      element(id).setAttribute("x2", x(threshold));
    }
    if (element("only_wrong").checked || !tiles.length) list();
    else for (const [verdict, tile] of tiles) mark(verdict, tile);
  }

  const isWrong = ({ label, score }) => (label === "anomaly") !== score > Number(slider.value);

  function mark(verdict, tile) {
    const beside = otherScores.get(verdict.ref);
    const wrong = isWrong(verdict);
    tile.classList.toggle("is-wrong", wrong);
    tile.querySelector(".classes").textContent =
      `${verdict.label}, score ${verdict.score.toFixed(2)}${beside ? ` / ${beside.score.toFixed(2)}` : ""}${wrong ? " (wrong)" : ""}`;
  }

  function list() {
    const some = element("only_wrong").checked ? verdicts.filter(isWrong) : verdicts;
    element("shown").textContent = `${some.length} images`;
    element("more").hidden = some.length <= shownCount;
    tiles = some.slice(0, shownCount).map((verdict) => {
      const item = document.createElement("li");
      item.className = "tile tested";
      const button = document.createElement("button");
      button.type = "button";
      button.className = "plain-button";
      const image = Object.assign(document.createElement("img"), { loading: "lazy", alt: "", src: `${base}/pictures/thumbnail?uri=${encodeURIComponent(verdict.ref)}` });
      const name = Object.assign(document.createElement("span"), { className: "name", textContent: verdict.ref.split("/").pop(), title: verdict.ref });
      const said = Object.assign(document.createElement("span"), { className: "classes" });
      button.append(image, said, name);
      button.addEventListener("click", () => open(verdict));
      item.append(button);
      mark(verdict, item);
      return [verdict, item];
    });
    element("tested").replaceChildren(...tiles.map(([, item]) => item));
  }

  async function open(verdict) {
    const dialog = element("detail");
    element("detail_title").textContent = verdict.ref.split("/").pop();
    element("detail_said").textContent = `It is ${verdict.label}; the model said ${verdict.predicted}, with the score ${verdict.score.toFixed(3)}.`;
    element("detail_note").textContent = "";
    element("detail_page").hidden = true;
    dialog.showModal();
    try {
      const address = (ref) => `${base}/pictures/original?uri=${encodeURIComponent(ref)}`;
      const [image, truth] = await Promise.all([
        loadImage(address(verdict.ref)),
        send("GET", `${judge.dataset.url}/truth?ref=${encodeURIComponent(verdict.ref)}`),
      ]);
      const [width, height] = [image.naturalWidth, image.naturalHeight];
      const canvas = Object.assign(element("detail_canvas"), { width, height });
      const context = canvas.getContext("2d");
      const thickness = Math.max(1, Math.max(width, height) / 400);
      const outlines = [];
      let heat = null;
      const draw = () => {
        context.drawImage(image, 0, 0);
        if (heat && element("show_map").checked) drawHeat(context, heat, width, height);
        for (const [indices, color] of outlines) drawOutlines(context, indices, width, height, color, thickness);
      };
      element("show_map").onchange = draw;
      element("map_row").hidden = true;
      if (truth.page) Object.assign(element("detail_page"), { href: truth.page, hidden: false });
      if (truth.mask) outlines.push([indicesOf(await loadImage(address(truth.mask)), Object.values(truth.colors), width, height), TRUTH]);
      draw();
      if (!judge.dataset.detect) {
        element("detail_note").textContent = "(host the model to see where it finds something)";
        return;
      }
      const result = await send("POST", `${judge.dataset.detect}?ref=${encodeURIComponent(verdict.ref)}`);
      if (result.AnomalyMask) outlines.push([foregroundOf(await imageOf(result.AnomalyMask), width, height), PREDICTION]);
      else {
        element("detail_note").textContent = "(the model was trained without masks: it has no outlines)";
        element("show_map").checked = true;
      }
      if (result.AnomalyMap) heat = await imageOf(result.AnomalyMap);
      element("map_row").hidden = !heat;
      draw();
      dialog.dataset.ready = "";
    } catch (error) {
      element("detail_note").textContent = error.status ? error.message : reason(error);
    }
  }

  slider.addEventListener("input", move);
  element("only_wrong").addEventListener("change", () => {
    shownCount = PAGE;
    list();
  });
  element("more").addEventListener("click", () => {
    shownCount += PAGE;
    list();
  });
  element("detail_close").addEventListener("click", () => element("detail").close());
  move();
  judge.dataset.ready = "";
}

if (judge) begin().catch((error) => say(error.status ? error.message : reason(error)));
