// Adding images: files go into the bucket one by one, three at a time; those that are there already are skipped.

import { takeFiles } from "./dropping.js";
import { Refused, insist, newToken, pause, reason, say, send, sendJson } from "./ui.js";

const PARALLEL = 3;
const BATCH = 200; // files that are read at a time, and
const BATCH_BYTES = 48 << 20; // no more of them than this
const MOST_BYTES = 8 << 20;
const IMAGE = /\.(jpe?g|png)$/i;
const MASK = /(^|\/)masks\//i;

const panel = document.getElementById("files");
const url = panel.dataset.url;
const element = (id) => document.getElementById(id);
const isBusy = (error) => error.status === 409 || (error.status === 400 && /Somebody else is adding/.test(error.message));

const crcTable = new Uint32Array(256).map((_, number) => {
  for (let bit = 0; bit < 8; bit++) number = number & 1 ? 0xedb88320 ^ (number >>> 1) : number >>> 1;
  return number;
});

function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = crcTable[(crc ^ byte) & 0xff] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

function labelOf(path, chosen) {
  if (chosen !== "folder") return chosen || null;
  const folders = path.toLowerCase().split("/").slice(0, -1).reverse();
  return folders.find((folder) => folder === "normal" || folder === "anomaly") ?? null;
}

class Upload {
  constructor(files) {
    const images = files.filter(({ path, file }) => IMAGE.test(path) || !file);
    this.left = files.length - images.length;
    // As of a bucket's prefix: a mask is no image to learn from.
    this.files = images.filter(({ path }) => !MASK.test(path));
    this.masks = images.length - this.files.length;
    this.files.sort((one, other) => one.path.localeCompare(other.path, "en", { numeric: true }));
    this.bytes = this.files.reduce((sum, { file }) => sum + (file?.size ?? 0), 0);
    this.doneBytes = 0;
    this.bucket = element("bucket").value.trim();
    this.prefix = element("prefix").value.trim().replace(/^\/+/, "");
    this.label = element("label").value;
    this.next = 0;
    this.sent = 0;
    this.skipped = 0;
    this.added = 0;
    this.faults = [];
    this.ready = [];
    this.paused = false;
    this.ended = false;
  }

  report(text) {
    const done = this.sent + this.skipped + this.faults.length;
    element("bar").value = this.bytes ? this.doneBytes / this.bytes : 1;
    const parts = [`${done} of ${this.files.length} files (${inMegabytes(this.doneBytes)} of ${inMegabytes(this.bytes)} MB)`];
    if (this.skipped) parts.push(`${this.skipped} were there already`);
    if (this.faults.length) parts.push(`${this.faults.length} can't be used`);
    if (this.left) parts.push(`${this.left} are no JPEG or PNG`);
    if (this.masks) parts.push(`${this.masks} in folders named masks were left out`);
    element("said").textContent = `${parts.join(", ")}. ${text ?? ""}`;
  }

  fault({ path, file }, message) {
    this.faults.push(path);
    this.doneBytes += file?.size ?? 0;
    const item = document.createElement("li");
    item.textContent = `${path}: ${message}`;
    if (this.faults.length <= 50) element("faults").append(item);
  }

  async waitWhilePaused() {
    while (this.paused) await pause(200);
  }

  async run() {
    window.addEventListener("beforeunload", (this.guard = (event) => event.preventDefault()));
    try {
      this.report();
      for (let start = 0; start < this.files.length; ) {
        let end = start;
        for (let bytes = 0; end < this.files.length && end - start < BATCH && bytes < BATCH_BYTES; end++) bytes += this.files[end].file?.size ?? 0;
        await this.runBatch(this.files.slice(start, end));
        start = end;
      }
      this.report(`${this.added} were added to the dataset.`);
      element("done").hidden = false;
    } catch (error) {
      this.report("It has ended; drop the files again to go on.");
      say(`The upload has ended. ${reason(error)}`);
    } finally {
      this.ended = true;
      element("stop").hidden = true;
      window.removeEventListener("beforeunload", this.guard);
    }
  }

  async runBatch(files) {
    const read = [];
    for (const each of files) {
      const { path, file } = each;
      if (file?.size > MOST_BYTES) {
        this.fault(each, `it has ${file.size} bytes; the most is ${MOST_BYTES}. Save it smaller.`);
        continue;
      }
      const content = await file?.arrayBuffer().then((buffer) => new Uint8Array(buffer), () => null);
      if (content) read.push({ ...each, key: this.prefix + path, content, crc32: crc32(content) });
      else this.fault(each, "it can't be read: is it still there, and may you read it?");
    }
    const asked = read.map(({ key, content, crc32: crc }) => ({ key, size: content.length, crc32: crc }));
    const found = await this.insist(() => sendJson(`${url}/uploaded`, { bucket: this.bucket, files: asked }));
    const there = new Set(found.there);
    const waiting = read.filter(({ key }) => !there.has(key));
    this.skipped += read.length - waiting.length;
    this.ready = read.filter(({ key }) => there.has(key));
    for (const { file } of this.ready) this.doneBytes += file.size;
    this.report();
    await Promise.all(Array.from({ length: PARALLEL }, () => this.sendAll(waiting)));
    await this.addReady();
  }

  async sendAll(waiting) {
    for (let file = waiting.shift(); file; file = waiting.shift()) {
      await this.waitWhilePaused();
      if (this.ended) return; // by what happened to another one
      const query = new URLSearchParams({ bucket: this.bucket, key: file.key });
      try {
        await this.insist(() => send("PUT", `${url}/file?${query}`, file.content, { "Content-Type": "application/octet-stream" }));
        this.sent += 1;
        this.doneBytes += file.content.length;
        this.ready.push(file);
      } catch (error) {
        if (!(error instanceof Refused) || error.status !== 400) throw error;
        this.fault(file, error.message);
      }
      this.report();
    }
  }

  async addReady() {
    const groups = new Map();
    for (const file of this.ready) {
      const label = labelOf(file.path, this.label);
      if (!groups.has(label)) groups.set(label, []);
      groups.get(label).push(`s3://${this.bucket}/${file.key}`);
    }
    this.ready = [];
    for (const [label, refs] of groups) {
      this.report("Adding them to the dataset …");
      const document = { token: newToken(), at: new Date().toISOString(), refs, label };
      const answer = await this.insist(() => sendJson(`${url}/entries`, document));
      this.added += answer.added;
    }
  }

  insist(attempt) {
    return insist(attempt, isBusy, (error) => this.report(error instanceof TypeError ? "The service doesn't answer; trying again …" : undefined));
  }
}

const inMegabytes = (bytes) => (bytes / (1 << 20)).toFixed(1);

let upload = null;

async function begin(files) {
  if (!files.length) return;
  if (upload) return say("An upload is under way: wait for its end.");
  if (!element("bucket").reportValidity()) return;
  element("progress").hidden = false;
  element("done").hidden = true;
  Object.assign(element("stop"), { hidden: false, textContent: "Pause" });
  element("faults").replaceChildren();
  upload = new Upload(files);
  try {
    await upload.run();
  } finally {
    upload = null;
  }
}

element("stop").addEventListener("click", () => {
  if (!upload) return;
  upload.paused = !upload.paused;
  element("stop").textContent = upload.paused ? "Go on" : "Pause";
});

takeFiles(element("drop"), [element("choose_files"), element("choose_folder")], begin);

element("from_prefix").addEventListener("submit", async (event) => {
  event.preventDefault();
  const said = element("prefix_said");
  const button = event.target.querySelector("button");
  button.disabled = true;
  let added = 0;
  try {
    for (let after = 0; after !== null; ) {
      const document = { token: newToken(), at: new Date().toISOString(), prefix: element("source").value.trim(), label: element("source_label").value, after };
      const answer = await insist(() => sendJson(`${url}/prefix`, document), isBusy);
      added += answer.added;
      after = answer.after;
      said.textContent = `${answer.done} of ${answer.total}, ${added} of them new`;
    }
    said.textContent += ". Done.";
  } catch (error) {
    said.textContent = "";
    say(reason(error));
  } finally {
    button.disabled = false;
  }
});
