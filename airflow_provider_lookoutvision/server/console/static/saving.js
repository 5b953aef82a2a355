// Labels on their way to the service: set at once on the page, sent in order, repeated until they are saved.
// What somebody else has changed meanwhile isn't overwritten: it is shown.

import { Refused, insist, newToken, say, sendJson } from "./ui.js";

const FLUSH_MILLISECONDS = 250;
const MOST = 500;

export class Labels {
  /**
   * @param {string} url of the dataset
   * @param {(ref: string, entry: object) => void} show an entry as it is now
   * @param {(waiting: number, problem: string | null) => void} report how many are not saved yet
   */
  constructor(url, show, report) {
    this.url = url;
    this.show = show;
    this.report = report;
    this.waiting = new Map();
    this.versions = new Map();
    this.running = null;
    window.addEventListener("beforeunload", (event) => {
      if (this.waiting.size || this.running) event.preventDefault();
    });
  }

  isPending(ref) {
    return this.waiting.has(ref) || Boolean(this.sending?.has(ref));
  }

  set(ref, version, label) {
    this.waiting.set(ref, { ref, version: this.versions.get(ref) ?? version, label });
    this.report(this.waiting.size, null);
    if (!this.timer && !this.running) {
      this.timer = setTimeout(() => this.flush().catch(() => {}), FLUSH_MILLISECONDS);
    }
  }

  /** Send what waits; resolved when all of it is saved, also what was on its way already. */
  flush() {
    clearTimeout(this.timer);
    this.timer = undefined;
    this.running ??= this.sendAll().finally(() => (this.running = null));
    return this.running;
  }

  async sendAll() {
    while (this.waiting.size) await this.sendSome();
    this.report(0, null);
  }

  async sendSome() {
    const some = [...this.waiting.values()].slice(0, MOST);
    for (const change of some) {
      this.waiting.delete(change.ref);
      change.version = this.versions.get(change.ref) ?? change.version;
    }
    this.sending = new Map(some.map((change) => [change.ref, change]));
    const document = { token: newToken(), at: new Date().toISOString(), changes: some };
    try {
      const answer = await insist(
        () => sendJson(`${this.url}/labels`, document),
        (error) => error.status === 409 && error.code === "ConflictException",
        (error) => this.report(this.waiting.size + some.length, error instanceof Refused ? null : "The service doesn't answer; trying again"),
      );
      this.sending = undefined;
      for (const entry of answer.entries) this.taken(entry);
    } catch (error) {
      this.sending = undefined;
      if (error.code === "EditConflict") {
        const changed = new Map(error.answer.entries.map((entry) => [entry.ref, entry]));
        for (const entry of changed.values()) this.taken({ ...entry, conflict: true });
        // What nobody else has touched goes on its way again.
        for (const change of some) {
          if (!changed.has(change.ref) && !this.waiting.has(change.ref)) this.waiting.set(change.ref, change);
        }
        const names = [...changed.keys()].map((ref) => ref.split("/").pop());
        say(`Somebody else has changed ${names.slice(0, 3).join(", ")}${names.length > 3 ? ` and ${names.length - 3} more` : ""} meanwhile. ` +
          "What they set is shown; your label for it wasn't saved. Set it again if it is right.");
      } else {
        const lost = [...some, ...this.waiting.values()];
        this.waiting.clear();
        for (const change of lost) this.show(change.ref, { failed: true });
        const message = error.message;
        this.report(0, message);
        say(`The labels weren't saved: ${message}`);
        throw error;
      }
    }
    this.report(this.waiting.size, null);
  }

  taken(entry) {
    this.versions.set(entry.ref, entry.version);
    if (entry.conflict) this.waiting.delete(entry.ref);
    if (!this.waiting.has(entry.ref)) this.show(entry.ref, entry);
  }
}
