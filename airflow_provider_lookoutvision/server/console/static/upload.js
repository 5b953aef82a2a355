// Adding images: files go into the bucket one by one, three at a time; those that are there already are skipped.

import { Refused, insist, newToken, pause, reason, say, send, sendJson } from "./ui.js";

const PARALLEL = 3;
const BATCH = 200;
const MOST_BYTES = 8 << 20;
const IMAGE = /\.(jpe?g|png)$/i;

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
    this.files = files.filter(({ path }) => IMAGE.test(path));
    this.files.sort((one, other) => one.path.localeCompare(other.path, "en", { numeric: true }));
    this.left = files.length - this.files.length;
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
  }

  report(text) {
    const done = this.sent + this.skipped + this.faults.length;
    element("bar").value = this.files.length ? done / this.files.length : 1;
    const parts = [`${done} of ${this.files.length} files`];
    if (this.skipped) parts.push(`${this.skipped} were there already`);
    if (this.faults.length) parts.push(`${this.faults.length} can't be used`);
    if (this.left) parts.push(`${this.left} are no JPEG or PNG`);
    element("said").textContent = `${parts.join(", ")}. ${text ?? ""}`;
  }

  fault(path, message) {
    this.faults.push(path);
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
      for (let start = 0; start < this.files.length; start += BATCH) {
        await this.runBatch(this.files.slice(start, start + BATCH));
      }
      this.report(`${this.added} were added to the dataset.`);
      element("done").hidden = false;
      element("stop").hidden = true;
    } catch (error) {
      this.report("");
      say(`The upload ended: ${reason(error)}. What is there stays; drop the files again to go on.`);
    } finally {
      window.removeEventListener("beforeunload", this.guard);
    }
  }

  async runBatch(files) {
    const read = [];
    for (const { path, file } of files) {
      if (file.size > MOST_BYTES) {
        this.fault(path, `it has ${file.size} bytes; the most is ${MOST_BYTES}`);
        continue;
      }
      const content = new Uint8Array(await file.arrayBuffer());
      read.push({ path, key: this.prefix + path, content, crc32: crc32(content) });
    }
    const asked = read.map(({ key, content, crc32: crc }) => ({ key, size: content.length, crc32: crc }));
    const found = await this.insist(() => sendJson(`${url}/uploaded`, { bucket: this.bucket, files: asked }));
    const there = new Set(found.there);
    const waiting = read.filter(({ key }) => !there.has(key));
    this.skipped += read.length - waiting.length;
    this.ready = read.filter(({ key }) => there.has(key));
    this.report();
    await Promise.all(Array.from({ length: PARALLEL }, () => this.sendAll(waiting)));
    await this.addReady();
  }

  async sendAll(waiting) {
    for (let file = waiting.shift(); file; file = waiting.shift()) {
      await this.waitWhilePaused();
      const query = new URLSearchParams({ bucket: this.bucket, key: file.key });
      try {
        await this.insist(() => send("PUT", `${url}/file?${query}`, file.content, { "Content-Type": "application/octet-stream" }));
        this.sent += 1;
        this.ready.push(file);
      } catch (error) {
        if (!(error instanceof Refused) || error.status !== 400) throw error;
        this.fault(file.path, error.message);
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

let upload = null;

async function begin(files) {
  if (!files.length) return;
  if (upload) return say("An upload is under way: wait for its end.");
  if (!element("bucket").reportValidity()) return;
  element("progress").hidden = false;
  element("done").hidden = true;
  element("stop").hidden = false;
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

for (const id of ["choose_files", "choose_folder"]) {
  element(id).addEventListener("change", (event) => {
    const files = [...event.target.files].map((file) => ({ path: file.webkitRelativePath || file.name, file }));
    event.target.value = "";
    begin(files);
  });
}

async function walk(entry) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    return [{ path: entry.fullPath.replace(/^\//, ""), file }];
  }
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return found;
    for (const each of some) found.push(...(await walk(each)));
  }
}

const drop = element("drop");
for (const kind of ["dragenter", "dragover"]) {
  drop.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
}
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", async (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const plain = [...event.dataTransfer.files].map((file) => ({ path: file.name, file }));
  begin(entries.length ? (await Promise.all(entries.map(walk))).flat() : plain);
});

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
