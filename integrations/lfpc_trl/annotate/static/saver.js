// Saves one row. A change goes to the browser's own storage at once and to the server as fast as it answers, one request at
// a time, the newest state only. What the server has not confirmed survives a killed browser and a killed server.

import { postJSON } from "/static/shared/api.js";

const RETRY = 1500; // milliseconds

const keyOf = (project, row) => `lfpc-draft ${project} ${row}`;

/** Drafts of a project that the server never confirmed: [row, {base, content}]. */
export function drafts(project) {
  const start = keyOf(project, "");
  const found = [];
  for (let index = 0; index < localStorage.length; index += 1) {
    const key = localStorage.key(index);
    if (key.startsWith(start)) {
      try {
        found.push([key.slice(start.length), JSON.parse(localStorage.getItem(key))]);
      } catch {
        // not written by this page
      }
    }
  }
  return found;
}

export class Saver {
  /**
   * @param {{project: string, row: string, number: number, base: number, annotator: () => string,
   *   onsaved: (answer: object) => void, onconflict: (theirs: object) => void, onstate: () => void}} options
   */
  constructor(options) {
    Object.assign(this, options);
    this.wanted = null; // the content that is not confirmed yet
    this.state = "saved"; // saved, saving, offline, conflict, refused
    this.problem = "";
    this.busy = false;
    this.seconds = 0; // of work that no confirmed change has counted
  }

  /** Takes a change, made in so many seconds of work. */
  change(content, seconds = 0) {
    this.wanted = content;
    this.seconds += seconds;
    this.#keep();
    if (this.state !== "conflict") this.#send();
  }

  /** After a conflict: my version on top of theirs. */
  insist(revision) {
    this.base = revision;
    this.#keep();
    this.state = "saving";
    this.#send();
  }

  /** After a conflict: their version; mine is forgotten. */
  yieldTo(revision) {
    this.base = revision;
    this.#confirmed();
  }

  #keep() {
    localStorage.setItem(
      keyOf(this.project, this.row),
      JSON.stringify({ base: this.base, content: this.wanted }),
    );
  }

  #confirmed() {
    this.wanted = null;
    localStorage.removeItem(keyOf(this.project, this.row));
    this.#enter("saved");
  }

  #enter(state, problem = "") {
    this.state = state;
    this.problem = problem;
    this.onstate();
  }

  async #send() {
    if (this.busy || this.wanted === null) return;
    this.busy = true;
    this.#enter("saving");
    const content = this.wanted;
    const seconds = Math.min(Math.round(10 * this.seconds) / 10, 86400);
    try {
      const body = { base: this.base, annotator: this.annotator(), seconds, content };
      const { status, answer } = await postJSON(`/api/items/${this.number}`, body);
      this.busy = false;
      if (status === 409) this.#met(answer, content);
      else {
        this.seconds -= seconds;
        this.base = answer.revision;
        this.#settle(answer, content);
      }
    } catch (refusal) {
      this.busy = false;
      if (refusal.status === 422) {
        // The row cannot be that way, and asking again will not help: the next change may.
        if (this.wanted === content) this.#enter("refused", refusal.message);
        else this.#send();
      } else {
        this.#enter("offline", refusal.message);
        setTimeout(() => this.#send(), RETRY);
      }
    }
  }

  #settle(answer, content) {
    if (this.wanted === content) {
      this.#confirmed();
      this.onsaved(answer);
    } else {
      this.#keep(); // with the new base
      this.onsaved(answer);
      this.#send();
    }
  }

  #met(theirs, content) {
    // A request whose answer was lost comes back as a conflict with ourselves.
    if (JSON.stringify(theirs.content) === JSON.stringify(content)) {
      this.base = theirs.revision;
      this.#settle(theirs, content);
      return;
    }
    this.#enter("conflict");
    this.onconflict(theirs);
  }
}
