// The rows of the project: their order, the list with its filter, how far the work is.

import { LongList, byId, el } from "/static/shared/dom.js";

const SYMBOLS = { open: "○", done: "●", skipped: "–", flagged: "⚑", deleted: "×" };

/** Seconds in a few words. */
function inWords(seconds) {
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 2) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  return minutes < 100 ? `${minutes} min` : `${(minutes / 60).toFixed(1)} h`;
}

export class Rows {
  /**
   * @param {object[]} items as the server lists them; the index is the row's number
   * @param {{current: () => number | undefined, open: (number: number) => void, hasConflict: (id: string) => boolean}} page
   */
  constructor(items, page) {
    this.items = items;
    this.page = page;
    this.medianSeconds = null;
    this.shown = []; // numbers of the rows in the list
    this.list = new LongList(byId("rows"), 54, (index) => this.#line(this.shown[index]));
  }

  /** The numbers of all rows in the order of the source, each followed by the questions that were added to it. */
  get order() {
    const added = new Map();
    this.items.forEach((item, number) => {
      if (item.after) added.set(item.after, [...(added.get(item.after) ?? []), number]);
    });
    return this.items.flatMap((item, number) => (item.after ? [] : [number, ...(added.get(item.id) ?? [])]));
  }

  /** The numbers of the questions about the picture of a row, or about the same pictures, without deleted ones. */
  questionsOf(number) {
    const pictures = this.items[number].pictures.join();
    return this.order.filter(
      (each) =>
        this.items[each].pictures.join() === pictures &&
        (this.items[each].status !== "deleted" || each === number),
    );
  }

  /** The number of the next open row, or null. */
  get nextOpen() {
    const { order } = this;
    const at = order.indexOf(this.page.current());
    const others = [...order.slice(at + 1), ...order.slice(0, Math.max(at, 0))];
    return others.find((number) => this.items[number].status === "open") ?? null;
  }

  /** The number of the row that is so many lines below the current one in the list, or undefined. */
  beside(by) {
    return this.shown[this.shown.indexOf(this.page.current()) + by];
  }

  /** Shows list and progress as they are now. */
  refresh() {
    this.shown = this.#filtered();
    this.list.show(this.shown.length);
    this.#showProgress();
  }

  /** Scrolls the list until a row is in sight. */
  reveal(number) {
    this.list.reveal(this.shown.indexOf(number));
  }

  #filtered() {
    const wanted = byId("filter").value;
    const words = byId("search").value.trim().toLowerCase();
    return this.order.filter((number) => {
      const item = this.items[number];
      // The row that is open stays in sight when it is done.
      const isWanted =
        (wanted === "all" && item.status !== "deleted") ||
        item.status === wanted ||
        (wanted === "unfinished" && (item.status === "open" || item.status === "flagged")) ||
        number === this.page.current();
      return (
        isWanted &&
        (!words || item.id.toLowerCase().includes(words) || item.question.toLowerCase().includes(words))
      );
    });
  }

  #line(number) {
    const item = this.items[number];
    const isCurrent = this.page.current() === number;
    const boxes = item.boxes ? `${item.boxes} box${item.boxes > 1 ? "es" : ""}` : "";
    return el(
      "button",
      {
        type: "button",
        class: `row ${item.status}${item.after ? " added" : ""}${isCurrent ? " current" : ""}`,
        role: "option",
        "aria-selected": isCurrent ? "true" : "false",
        onclick: () => this.page.open(number),
      },
      el("span", { class: "status", title: item.status, "aria-label": item.status }, SYMBOLS[item.status]),
      el("span", { class: "row-id", title: item.id }, item.id),
      el("span", { class: "row-extra" }, this.page.hasConflict(item.id) ? "conflict" : boxes),
      el("span", { class: "row-question" }, item.question || "no question yet"),
    );
  }

  #showProgress() {
    const count = (...wanted) => this.items.filter((item) => wanted.includes(item.status)).length;
    const [done, skipped, left] = [count("done"), count("skipped"), count("open", "flagged")];
    const total = done + skipped + left;
    byId("progress-fill").style.width = `${(100 * (done + skipped)) / total}%`;
    byId("progress").setAttribute("aria-valuemax", total);
    byId("progress").setAttribute("aria-valuenow", done + skipped);
    byId("progress-text").textContent =
      `${done} of ${total} done, ${skipped ? `${skipped} skipped, ` : ""}${left} left`;
    const median = this.medianSeconds;
    byId("pace").textContent =
      median === null
        ? ""
        : `${inWords(median)} a row${left ? `, about ${inWords(median * left)} to go` : ""}`;
  }
}
