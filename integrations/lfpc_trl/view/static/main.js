// The page of `lfpc view`: filters, the list, one pane per run, curves.

import { getJSON } from "/static/shared/api.js";
import { LongList, byId, el, isTyping, put } from "/static/shared/dom.js";
import { showCurves } from "./curves.js";
import { Pane } from "./pane.js";

const PAGE = 100; // trajectories per request, as on the server
const POLL = 5000; // milliseconds between polls for new steps
const FILTERS = ["text", "outcome", "crop", "overlap_below", "step", "ending", "condition", "order", "against"];

let runs = [];
let panes = [];
let pages = new Map(); // page number: trajectories, or null while they load
let count = 0;
let current = -1; // index in the list
let latestQuery = 0;

const list = new LongList(byId("list"), 54, rowOf);

// --- the list ------------------------------------------------------------------------------------------

function query() {
  const words = new URLSearchParams();
  for (const name of FILTERS) {
    if (byId(name).value) words.set(name, byId(name).value.trim());
  }
  return words;
}

async function load(number) {
  const thisQuery = latestQuery;
  const words = query();
  words.set("from", number * PAGE);
  const answer = await getJSON(`/api/runs/0/list?${words}`);
  if (thisQuery !== latestQuery) return null; // the filter has changed
  pages.set(number, answer.page);
  return answer;
}

function at(index) {
  const number = Math.floor(index / PAGE);
  if (!pages.has(number)) {
    pages.set(number, null);
    load(number)
      .then((answer) => answer && list.draw())
      .catch(() => pages.delete(number));
  }
  return pages.get(number)?.[index % PAGE];
}

const SYMBOLS = { right: "✓", wrong: "✗", "": "·" };

function rowOf(index) {
  const each = at(index);
  if (!each) return el("div", { class: "row" }, el("span", { class: "row-id quiet" }, "…"));
  const outcome = each.accuracy === null ? "" : each.accuracy >= 0.5 ? "right" : "wrong";
  const facts = [
    each.condition,
    each.step === null ? "" : `step ${each.step}`,
    each.crops ? `${each.crops} crop${each.crops > 1 ? "s" : ""}` : "no crop",
    each.overlap === null ? "" : `overlap ${each.overlap.toFixed(2)}`,
  ];
  return el(
    "button",
    {
      type: "button",
      class: `row${index === current ? " current" : ""}`,
      role: "option",
      "aria-selected": index === current ? "true" : "false",
      onclick: () => open(index),
    },
    el("span", { class: `status ${outcome}`, "aria-label": outcome || "undecided" }, SYMBOLS[outcome]),
    el("span", { class: "row-id" }, each.question),
    el("span", { class: "row-extra" }, each.reward === null ? "" : each.reward.toFixed(2)),
    el("span", { class: "row-question" }, facts.filter(Boolean).join(" · ")),
  );
}

async function refilter({ keep = false } = {}) {
  latestQuery += 1;
  pages = new Map();
  let answer;
  try {
    answer = await load(0);
  } catch (refusal) {
    byId("count").textContent = refusal.message;
    return;
  }
  if (!answer) return;
  count = answer.count;
  byId("count").textContent =
    `${count.toLocaleString("en")} of ${runs[0].count.toLocaleString("en")} trajectories`;
  if (!keep) {
    current = -1;
    byId("list").scrollTop = 0;
  }
  list.show(count);
  if (!keep && count) await open(0);
}

async function open(index) {
  if (index < 0 || index >= count) return;
  current = index;
  list.reveal(index);
  const number = Math.floor(index / PAGE);
  if (!at(index)) await load(number);
  const each = at(index);
  if (each) await show(each);
}

/** Shows a trajectory of the first run, and the second run's for the same row, condition and nearest step. */
async function show({ position, row_id: row, step, condition }) {
  const words = new URLSearchParams({ row_id: row, step: step ?? "", condition: condition ?? "" });
  const others = panes.slice(1).map(async (pane) => {
    const { position: match } = await getJSON(`/api/runs/${pane.run}/match?${words}`);
    await pane.show(match);
  });
  await Promise.all([panes[0].show(position), ...others]);
}

// --- start ---------------------------------------------------------------------------------------------

function fill(select, values, label) {
  const before = select.value;
  put(
    select,
    select.options[0],
    values.map((value) => el("option", { value }, label(value))),
  );
  select.value = values.map(String).includes(before) ? before : "";
}

function showRuns() {
  put(
    byId("runs"),
    runs.map((run, index) =>
      el(
        "span",
        { class: `run-${index}`, title: run.name },
        el("i", { class: "dot" }),
        run.name,
        el("small", {}, `${run.count.toLocaleString("en")} trajectories`),
      ),
    ),
  );
  fill(byId("step"), runs[0].steps, (step) => `Step ${step}`);
  fill(byId("ending"), runs[0].endings, String);
  fill(byId("condition"), runs[0].conditions, String);
  byId("condition").hidden = !runs[0].conditions.length;
  byId("overlap_below").disabled = !runs[0].has_targets;
  byId("against").hidden = runs.length < 2;
}

function tab(name) {
  for (const each of ["trajectories", "curves"]) {
    byId(each).hidden = each !== name;
    byId(`tab-${each}`).setAttribute("aria-selected", each === name ? "true" : "false");
  }
  if (name === "curves") showCurves(byId("curves"));
}

async function poll() {
  if (document.hidden) return;
  let now;
  try {
    now = (await getJSON("/api/runs")).runs;
  } catch {
    return; // keep showing the loaded data
  }
  const changed = now.some((run, index) => run.generation !== runs[index].generation);
  runs = now;
  if (changed) {
    showRuns();
    await refilter({ keep: true });
  }
}

function listen() {
  let timer = 0;
  for (const name of FILTERS) {
    byId(name).addEventListener(name === "text" ? "input" : "change", () => {
      clearTimeout(timer);
      timer = setTimeout(refilter, name === "text" ? 200 : 0);
    });
  }
  byId("previous").addEventListener("click", () => open(current - 1));
  byId("next").addEventListener("click", () => open(current + 1));
  byId("tab-trajectories").addEventListener("click", () => tab("trajectories"));
  byId("tab-curves").addEventListener("click", () => tab("curves"));
  document.addEventListener("keydown", (event) => {
    if (isTyping(event.target) || event.ctrlKey || event.metaKey || event.altKey) return;
    const act = {
      j: () => open(current + 1),
      k: () => open(current - 1),
      0: () => panes.forEach((pane) => pane.picture.item && pane.picture.fit()),
      z: () => panes.forEach((pane) => pane.zoom()),
    }[event.key];
    if (act && !byId("trajectories").hidden) act();
  });
  setInterval(poll, POLL);
}

async function start() {
  try {
    ({ runs } = await getJSON("/api/runs"));
  } catch (refusal) {
    put(byId("panes"), el("p", { class: "stage-message" }, refusal.message));
    return;
  }
  document.title = `${runs.map((run) => run.name).join(" | ")} · lfpc view`;
  showRuns();
  panes = runs.map((run, number) => {
    const pane = new Pane({
      run: number,
      alone: runs.length === 1,
      name: run.name,
      onstep: (position) => pane.show(position),
    });
    return pane;
  });
  put(
    byId("panes"),
    panes.map((pane) => pane.node),
  );
  panes.forEach((pane) => pane.attach());
  listen();
  await refilter();
  if (!runs[0].count) tab("curves");
  else if (!count) put(byId("panes"), el("p", { class: "pane empty" }, "No trajectory matches the filters."));
}

start();
