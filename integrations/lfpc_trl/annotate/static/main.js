// The page of `lfpc annotate`: the list of rows, the fields of one row, keys and dialogs.

import { Refusal, getJSON, getPicture } from "/static/shared/api.js";
import { LongList, byId, el, isTyping, put } from "/static/shared/dom.js";
import { Picture, coarsestTile } from "/static/shared/picture.js";
import { Boxes, hint } from "./boxes.js";
import { askAboutConflict, showHelp, showModelView } from "./dialogs.js";
import { Editor, HUES } from "./editor.js";
import { Saver, drafts } from "./saver.js";

const POLL = 2500; // milliseconds between questions for what others changed
const TYPING = 300; // milliseconds after the last key before a text is saved

let project = null;
let shown = []; // numbers of the rows in the list
let current = null; // {number, row, saver, status}
const savers = new Map(); // row id: Saver, while it has something to save

const picture = new Picture(byId("picture"), { onmove: showScale, pan: false });
const editor = new Editor(picture, { onchange: changed, onselect: selectionChanged, onpoint: showPoint });
const list = new LongList(byId("rows"), 54, rowOf);

// --- the list ------------------------------------------------------------------------------------------

const SYMBOLS = { open: "○", done: "●", skipped: "–", flagged: "⚑" };

function rowOf(index) {
  const number = shown[index];
  const item = project.items[number];
  const saver = savers.get(item.id);
  return el(
    "button",
    {
      type: "button",
      class: `row ${item.status}${current?.number === number ? " current" : ""}`,
      role: "option",
      "aria-selected": current?.number === number ? "true" : "false",
      onclick: () => open(number),
    },
    el("span", { class: "status", title: item.status, "aria-label": item.status }, SYMBOLS[item.status]),
    el("span", { class: "row-id" }, item.id),
    el(
      "span",
      { class: "row-extra" },
      saver?.state === "conflict"
        ? "conflict"
        : item.boxes
          ? `${item.boxes} box${item.boxes > 1 ? "es" : ""}`
          : "",
    ),
    el("span", { class: "row-question" }, item.question || "no question yet"),
  );
}

function filtered() {
  const wanted = byId("filter").value;
  const words = byId("search").value.trim().toLowerCase();
  return project.items
    .map((item, number) => ({ item, number }))
    .filter(({ item, number }) => {
      // The row that is open stays in sight when it is done.
      const status =
        wanted === "all" ||
        item.status === wanted ||
        (wanted === "unfinished" && (item.status === "open" || item.status === "flagged")) ||
        number === current?.number;
      return (
        status &&
        (!words || item.id.toLowerCase().includes(words) || item.question.toLowerCase().includes(words))
      );
    })
    .map(({ number }) => number);
}

function refreshList() {
  shown = filtered();
  list.show(shown.length);
  const total = project.items.length;
  const done = project.items.filter((item) => item.status === "done").length;
  const settled = project.items.filter((item) => item.status === "done" || item.status === "skipped").length;
  byId("progress-fill").style.width = `${(100 * settled) / total}%`;
  byId("progress").setAttribute("aria-valuemax", total);
  byId("progress").setAttribute("aria-valuenow", settled);
  const skipped = settled - done ? `, ${settled - done} skipped` : "";
  byId("progress-text").textContent = `${done} of ${total} done${skipped}`;
}

function step(by) {
  const at = shown.indexOf(current?.number);
  const next = shown[at + by];
  if (next !== undefined) open(next);
}

function nextUnfinished() {
  const { items } = project;
  for (let by = 1; by <= items.length; by += 1) {
    const number = (current.number + by) % items.length;
    if (items[number].status === "open" && number !== current.number) return number;
  }
  return null;
}

// --- one row -------------------------------------------------------------------------------------------

let opening = 0;

async function open(number) {
  flushTexts();
  opening += 1;
  const mine = opening;
  let row;
  try {
    // What was saved while the answer was under way is newer than the answer.
    do row = await getJSON(`/api/items/${number}`);
    while (row.revision < project.items[number].revision);
  } catch (refusal) {
    toast(refusal.message);
    return;
  }
  if (mine !== opening) return; // another row was asked for meanwhile
  if (current && current.saver.wanted === null) savers.delete(current.row.id);
  let saver = savers.get(row.id);
  if (!saver) {
    saver = newSaver(row.id, number, row.revision);
    const draft = drafts(project.key).find(([id]) => id === row.id);
    if (draft) restore(saver, draft[1]);
  }
  const content = saver.wanted ?? row.content;
  current = { number, row, saver, status: content.status, problems: row.problems, textTimer: 0 };
  history.replaceState(null, "", `#${encodeURIComponent(row.id)}`);
  document.title = `${row.id} · lfpc annotate`;
  fillFields(content);
  take(content, (content.target_images?.[0] ?? 1) - 1);
  refreshList();
  list.reveal(shown.indexOf(number));
  showAll();
  if (await openPicture(mine)) prefetch(nextUnfinished());
  if (saver.state === "conflict") settleConflict(saver);
}

/** Opens the picture that is worked on; whether it can be read. */
async function openPicture(mine) {
  const shown = current.row.pictures[current.at];
  byId("stage-message").hidden = true;
  try {
    await picture.open(shown);
    if (mine !== opening) return false;
    editor.draw();
    // A picture that cannot be read fails tile by tile: ask for one to learn why.
    const tile = await fetch(coarsestTile(shown));
    if (mine === opening && !tile.ok) showMessage(await tile.text());
    return tile.ok;
  } catch (error) {
    if (mine === opening) showMessage(error.message);
    return false;
  }
}

/** Takes the boxes of a row's content; those on the picture `at` are edited. */
function take(content, at) {
  const { row } = current;
  current.regions = row.pictures.map((_, place) =>
    content.targets.filter((_, index) => (content.target_images?.[index] ?? 1) === place + 1),
  );
  current.at = at < row.pictures.length ? at : 0;
  editShown();
}

function editShown() {
  const { row, at } = current;
  const suggestions = row.pictures.length > 1 ? [] : row.suggestions;
  editor.edit(new Boxes(current.regions[at], row.pictures[at].size), suggestions);
}

/** Goes on with another picture of the row. What was done on this one can no longer be undone. */
async function turnTo(at) {
  if (at === current.at) return;
  current.regions[current.at] = editor.boxes.regions;
  current.at = at;
  opening += 1;
  editShown();
  showAll();
  await openPicture(opening);
}

function showTabs() {
  const { pictures } = current.row;
  byId("tabs").hidden = pictures.length < 2;
  put(
    byId("tabs"),
    pictures.map((_, at) =>
      el(
        "button",
        {
          type: "button",
          role: "tab",
          "aria-selected": at === current.at ? "true" : "false",
          onclick: () => turnTo(at),
        },
        `Image ${at + 1}`,
      ),
    ),
  );
}

/** The regions of each picture. */
const allRegions = () =>
  current.regions.map((regions, at) => (at === current.at ? editor.boxes.regions : regions));

/** Makes the server read the picture that probably comes next. */
async function prefetch(number) {
  if (number === null) return;
  try {
    const row = await getJSON(`/api/items/${number}`);
    await fetch(coarsestTile(row.pictures[0]));
  } catch {
    // it is only a little slower then
  }
}

function showMessage(text) {
  byId("stage-message").textContent = text;
  byId("stage-message").hidden = false;
}

function fillFields(content) {
  byId("question").value = content.question;
  byId("answer").value = content.answer.join("\n");
  byId("choices").value = (content.choices ?? []).join("\n");
  byId("note").value = content.note;
  ["question", "answer", "choices", "note"].forEach((name) => grow(byId(name)));
}

const lines = (id) =>
  byId(id)
    .value.split("\n")
    .map((line) => line.trim())
    .filter(Boolean);

/** The row as the page shows it. The order of the keys is that of the server. */
function content() {
  const choices = lines("choices");
  const regions = allRegions();
  const images = regions.flatMap((own, at) => own.map(() => at + 1));
  return {
    question: byId("question").value.trim(),
    answer: lines("answer"),
    choices: choices.length ? choices : null,
    targets: regions.flat(),
    status: current.status,
    note: byId("note").value.trim(),
    ...(regions.length > 1 && images.length ? { target_images: images } : {}),
  };
}

// --- saving --------------------------------------------------------------------------------------------

function newSaver(id, number, base) {
  const saver = new Saver({
    project: project.key,
    row: id,
    number,
    base,
    annotator: () => byId("annotator").value.trim() || project.annotator,
    onsaved: (answer) => saved(saver, answer),
    onconflict: (theirs) => {
      saver.theirs = theirs;
      if (current?.saver === saver) settleConflict(saver);
      else toast(`${id}: ${theirs.annotator} changed this row too. Open it to choose.`);
      refreshList();
    },
    onstate: () => {
      if (saver.state === "saved" && current?.saver !== saver) savers.delete(id);
      else savers.set(id, saver);
      showSaveState();
    },
  });
  savers.set(id, saver);
  return saver;
}

function restore(saver, draft) {
  saver.base = draft.base;
  saver.change(draft.content);
}

function changed() {
  if (!current) return;
  // A finished row that is changed is looked at again.
  if (current.status === "done") current.status = "open";
  save();
  selectionChanged();
}

function save() {
  clearTimeout(current.textTimer);
  current.textTimer = 0;
  const now = content();
  current.saver.change(now);
  summarise(current.number, now);
}

function summarise(number, now, revision) {
  const item = project.items[number];
  item.status = now.status;
  item.question = now.question;
  item.boxes = now.targets.reduce((sum, region) => sum + region.length, 0);
  if (revision !== undefined) item.revision = revision;
  refreshList();
}

function saved(saver, answer) {
  const item = project.items[saver.number];
  item.revision = answer.revision;
  if (current?.saver !== saver) return;
  current.problems = answer.problems;
  current.row.revision = answer.revision;
  current.row.annotator = answer.annotator;
  showFacts();
  showProblems();
}

function flushTexts() {
  if (current?.textTimer) save();
}

function showSaveState() {
  const all = [...savers.values()];
  const worst =
    ["conflict", "offline", "refused", "saving"].find((state) =>
      all.some((saver) => saver.state === state),
    ) ?? "saved";
  const node = byId("save-state");
  const saver = all.find((each) => each.state === worst);
  node.className = worst;
  node.textContent = {
    saved: "Saved",
    saving: "Saving",
    offline: "Not saved: the server does not answer. Changes are kept in this browser.",
    conflict: "Conflict",
    refused: saver?.problem ?? "",
  }[worst];
  if (worst === "offline" && saver.problem.includes("token")) {
    node.textContent =
      "Not saved: open the address that the server printed. Changes are kept in this browser.";
  }
}

// --- conflicts -----------------------------------------------------------------------------------------

function settleConflict(saver) {
  const { theirs } = saver;
  askAboutConflict(saver.wanted, theirs, {
    keep: () => {
      saver.insist(theirs.revision);
      reload();
    },
    take: () => {
      saver.yieldTo(theirs.revision);
      reload();
    },
  });
}

/** Shows the row again as it is now, in the same view. */
async function reload() {
  const { number, saver } = current;
  const row = await getJSON(`/api/items/${number}`);
  if (current.number !== number) return;
  const now = saver.wanted ?? row.content;
  if (saver.wanted === null) saver.base = row.revision;
  Object.assign(current, { row, status: now.status, problems: row.problems });
  fillFields(now);
  take(now, current.at);
  summarise(number, now, row.revision);
  showAll();
}

async function poll() {
  if (document.hidden) return;
  let news;
  try {
    news = await getJSON(`/api/changes?seen=${project.seen}`);
  } catch {
    return; // a change that cannot be saved will say so
  }
  project.seen = news.seen;
  let listed = false;
  for (const [key, summary] of Object.entries(news.items)) {
    const number = Number(key);
    const item = project.items[number];
    const busy = savers.get(item.id)?.wanted != null;
    if (busy || summary.revision <= item.revision) continue;
    Object.assign(item, summary);
    listed = true;
    if (current?.number === number && !current.textTimer && !editor.drag) {
      await reload();
      toast(`${current.row.annotator} changed this row.`);
    }
  }
  if (listed) refreshList();
}

// --- what is shown -------------------------------------------------------------------------------------

function showAll() {
  byId("row-name").textContent = current.row.id;
  showTabs();
  showFacts();
  selectionChanged();
  showSaveState();
}

function showFacts() {
  const { row } = current;
  const by = row.revision ? `revision ${row.revision} by ${row.annotator}` : "not annotated yet";
  put(
    byId("row-facts"),
    el("span", { class: `chip ${current.status}` }, current.status),
    ` ${row.image === row.id ? "" : `${row.image} · `}${row.pictures[current.at].size.join(" × ")} px · ${by}`,
  );
}

function selectionChanged() {
  editor.draw();
  showRegions();
  showProblems();
  showPreview();
  showFacts();
}

function showRegions() {
  const { boxes } = editor;
  const rows = boxes.regions.map((region, number) =>
    el(
      "div",
      { class: `region hue-${number % HUES}${number === boxes.region ? " current" : ""}` },
      el(
        "button",
        { type: "button", class: "region-name", title: `${number + 1}`, onclick: () => choose(number) },
        `Region ${number + 1}`,
      ),
      el(
        "ol",
        {},
        region.map((box, index) => {
          const isSelected = boxes.selected?.region === number && boxes.selected.index === index;
          const wrong = hint(region, index);
          return el(
            "li",
            { class: `${isSelected ? "selected" : ""}${wrong ? " bad" : ""}` },
            el(
              "button",
              {
                type: "button",
                class: "box-line",
                onclick: () => {
                  boxes.select(number, index);
                  selectionChanged();
                },
              },
              el("b", {}, `B${index + 1}`),
              el("span", { class: "mono" }, box.join(", ")),
              el("span", { class: "quiet" }, wrong ?? `${box[2] - box[0]} × ${box[3] - box[1]}`),
            ),
            el(
              "button",
              {
                type: "button",
                class: "plain",
                "aria-label": `Delete B${index + 1}`,
                title: "Delete",
                onclick: () => {
                  boxes.select(number, index);
                  remove();
                },
              },
              "×",
            ),
          );
        }),
      ),
    ),
  );
  if (boxes.region >= boxes.regions.length && boxes.regions.length) {
    rows.push(
      el(
        "div",
        { class: `region current hue-${boxes.region % HUES}` },
        el("span", { class: "region-name" }, `Region ${boxes.region + 1}`),
        el("p", { class: "quiet" }, "The next box starts it."),
      ),
    );
  }
  if (!rows.length)
    rows.push(
      el(
        "p",
        { class: "quiet" },
        "Drag on the picture: first the words that answer the question, then the object around them. Order is by size.",
      ),
    );
  if (editor.suggestions.length) {
    rows.push(
      el(
        "p",
        { class: "suggestions" },
        `${editor.suggestions.length} box${editor.suggestions.length > 1 ? "es" : ""} of the model, dashed. `,
        el(
          "button",
          { type: "button", class: "small", id: "accept", onclick: () => editor.accept() },
          "Accept (A)",
        ),
        " ",
        el("button", { type: "button", class: "small", onclick: () => editor.browse(1) }, "Next ( ] )"),
      ),
    );
  }
  put(byId("regions"), rows);
}

/** What a problem of a region begins with; the server counts the regions of all pictures. */
function regionName(region) {
  const regions = allRegions();
  if (region === null || regions.flat().length < 2) return "";
  if (regions.length === 1) return `Region ${region + 1}: `;
  let at = 0;
  for (; at < regions.length - 1 && region >= regions[at].length; at += 1) region -= regions[at].length;
  return `Image ${at + 1}, region ${region + 1}: `;
}

function showProblems() {
  const nested = editor.boxes.regions.some((region) =>
    region.some((_, index) => hint(region, index)?.includes("B")),
  );
  put(
    byId("problems"),
    current.problems.map(({ sentence, region }) =>
      el(
        "li",
        {},
        `${regionName(region)}${sentence}`,
      ),
    ),
    nested &&
      el(
        "li",
        { class: "remedy" },
        el("button", { type: "button", class: "small", onclick: growBoxes }, "Grow the outer box (G)"),
        " ",
        el("button", { type: "button", class: "small", onclick: splitBox }, "Own region (M)"),
      ),
  );
}

let previewing = null;
let previewTimer = 0;
let previewUrl = "";

function showPreview() {
  clearTimeout(previewTimer);
  previewTimer = setTimeout(loadPreview, 120);
}

async function loadPreview() {
  previewing?.abort();
  const box = editor.boxes?.selectedBox ?? editor.boxes?.regions[editor.boxes.region]?.[0];
  const host = byId("preview");
  if (!box) {
    put(host, el("p", { class: "quiet" }, "Select a box."));
    return;
  }
  previewing = new AbortController();
  try {
    const { blob, headers } = await getPicture(
      `/api/items/${current.number}/crop?box=${box.join()}&image=${current.at + 1}`,
      previewing.signal,
    );
    URL.revokeObjectURL(previewUrl);
    previewUrl = URL.createObjectURL(blob);
    const image = el("img", { src: previewUrl, alt: "The crop" });
    const facts = el("p", { class: "quiet" });
    image.addEventListener("load", () => {
      const name = `B${(editor.boxes.selected?.index ?? 0) + 1}`;
      facts.textContent = `${name} comes back at ${image.naturalWidth} × ${image.naturalHeight} px, ${headers.get("x-tokens")} visual tokens`;
    });
    put(host, image, facts);
  } catch (refusal) {
    if (refusal.name === "AbortError") return;
    put(
      host,
      el(
        "p",
        { class: "warning" },
        refusal instanceof Refusal ? refusal.message : "The server does not answer.",
      ),
    );
  }
}

function showModel() {
  const region = editor.boxes.regions[editor.boxes.region] ?? [];
  showModelView({
    number: current.number,
    image: current.at + 1,
    overview: current.row.pictures[current.at].overview,
    question: byId("question").value,
    region,
  });
}

function showPoint(point, box) {
  const { size } = picture;
  const inside = point && point[0] >= 0 && point[1] >= 0 && point[0] < size[0] && point[1] < size[1];
  const place = inside ? `${Math.floor(point[0])}, ${Math.floor(point[1])}` : "";
  byId("pointer").textContent = box ? `${place}  ·  ${box[2] - box[0]} × ${box[3] - box[1]}` : place;
}

function showScale(scale) {
  byId("scale").textContent = `${scale >= 0.995 ? Math.round(scale * 100) : (scale * 100).toPrecision(2)} %`;
}

let toastTimer = 0;

function toast(text) {
  const node = byId("toast");
  node.textContent = text;
  node.hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => (node.hidden = true), 4000);
}

// --- what the keys and buttons do ----------------------------------------------------------------------

function choose(number) {
  const { boxes } = editor;
  if (number > boxes.regions.length) return;
  boxes.region = number;
  boxes.select(number, 0);
  selectionChanged();
}

function newRegion() {
  editor.boxes.region = editor.boxes.regions.length;
  editor.boxes.select(-1, -1);
  selectionChanged();
}

function edit(act) {
  const before = editor.boxes.regions;
  act();
  editor.draw();
  if (editor.boxes.regions !== before) changed();
}

const remove = () => edit(() => editor.boxes.remove());
const growBoxes = () => edit(() => editor.boxes.grow());
const undo = () => edit(() => editor.boxes.undo());
const redo = () => edit(() => editor.boxes.redo());

function splitBox() {
  const { boxes } = editor;
  if (!boxes.selected) {
    // The box that breaks the nesting is meant: the one drawn last is mostly the outermost of its region.
    boxes.select(boxes.region, (boxes.regions[boxes.region]?.length ?? 0) - 1);
  }
  edit(() => boxes.split());
}

async function settled() {
  flushTexts();
  const { saver } = current;
  for (let tries = 0; saver.state === "saving" && tries < 100; tries += 1) {
    await new Promise((wake) => setTimeout(wake, 30));
  }
  return saver.state !== "conflict" && saver.state !== "offline";
}

async function done() {
  if (!(await settled())) return;
  if (current.problems.length) {
    toast(`Not finished: ${current.problems[0].sentence}`);
    return;
  }
  mark("done");
}

function mark(status) {
  current.status = status;
  save();
  const next = nextUnfinished();
  if (next === null) {
    toast("No open row is left.");
    showFacts();
  } else open(next);
}

function toggleFlag() {
  if (current.status === "flagged") {
    current.status = "open";
    save();
    showFacts();
    return;
  }
  current.status = "flagged";
  save();
  showFacts();
  byId("note").focus();
  toast("Flagged. Say why in the note.");
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function arrow(event) {
  const [dx, dy] = ARROWS[event.key];
  if (event.ctrlKey || event.metaKey) {
    const edges = event.shiftKey ? [dx ? "left" : "top"] : [dx ? "right" : "bottom"];
    editor.nudge(dx, dy, new Set(edges));
  } else {
    const far = event.shiftKey ? 10 : 1;
    editor.nudge(dx * far, dy * far);
  }
}

function zoomToBox() {
  const box = editor.boxes.selectedBox ?? editor.boxes.regions[editor.boxes.region]?.at(-1);
  if (box) picture.show(box);
}

const ACTIONS = {
  Enter: done,
  j: () => step(1),
  k: () => step(-1),
  s: () => mark("skipped"),
  f: toggleFlag,
  b: (event) => {
    editor.boxes.step(event.shiftKey ? -1 : 1);
    selectionChanged();
  },
  r: newRegion,
  m: splitBox,
  g: growBoxes,
  a: () => editor.accept(),
  "]": () => editor.browse(1),
  "[": () => editor.browse(-1),
  v: showModel,
  z: zoomToBox,
  o: () => picture.actualSize(),
  0: () => picture.fit(),
  "+": () => picture.zoomBy(1.4),
  "=": () => picture.zoomBy(1.4),
  "-": () => picture.zoomBy(1 / 1.4),
  Delete: remove,
  Backspace: remove,
  q: () => byId("question").focus(),
  w: () => byId("answer").focus(),
  Escape: () => {
    editor.boxes.select(-1, -1);
    selectionChanged();
  },
};

function onKey(event) {
  if (!current || document.querySelector("dialog[open]")) return;
  if (isTyping(event.target)) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const command = event.ctrlKey || event.metaKey;
  let act = null;
  if (event.key === " " && !event.target.matches("button")) act = () => (editor.space = true);
  else if (event.key in ARROWS && editor.boxes.selected) act = () => arrow(event);
  else if (command && event.key.toLowerCase() === "z") act = event.shiftKey ? redo : undo;
  else if (command && event.key.toLowerCase() === "y") act = redo;
  else if (command || event.altKey) return;
  else if (event.key === "?") act = showHelp;
  else if (/^[1-9]$/.test(event.key)) act = () => choose(Number(event.key) - 1);
  else if (event.key === "Enter" && event.target.matches("button")) return;
  else act = ACTIONS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!act) return;
  event.preventDefault();
  act(event);
}

// --- start ---------------------------------------------------------------------------------------------

function grow(field) {
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight + 2}px`;
}

function listen() {
  for (const name of ["question", "answer", "choices", "note"]) {
    byId(name).addEventListener("input", () => {
      grow(byId(name));
      if (!current) return;
      if (name !== "note" && current.status === "done") current.status = "open";
      clearTimeout(current.textTimer);
      current.textTimer = setTimeout(save, TYPING);
    });
    byId(name).addEventListener("change", flushTexts);
  }
  byId("annotator").addEventListener("change", () =>
    localStorage.setItem("lfpc-annotator", byId("annotator").value.trim()),
  );
  byId("filter").addEventListener("change", refreshList);
  byId("search").addEventListener("input", refreshList);
  const clicks = {
    previous: () => step(-1),
    next: () => step(1),
    help: showHelp,
    fit: () => picture.fit(),
    actual: () => picture.actualSize(),
    "zoom-in": () => picture.zoomBy(1.4),
    "zoom-out": () => picture.zoomBy(1 / 1.4),
    "zoom-box": zoomToBox,
    "model-view": showModel,
    "new-region": newRegion,
    skip: () => mark("skipped"),
    flag: toggleFlag,
    done,
  };
  for (const [id, act] of Object.entries(clicks)) {
    byId(id).addEventListener("click", (event) => {
      event.currentTarget.blur(); // the keys belong to the picture
      if (current || id === "help") act();
    });
  }
  document.addEventListener("keydown", onKey);
  document.addEventListener("keyup", (event) => {
    if (event.key === " ") editor.space = false;
  });
  addEventListener("pagehide", flushTexts);
  addEventListener("blur", () => (editor.space = false));
  setInterval(poll, POLL);
}

async function start() {
  try {
    project = await getJSON("/api/project");
  } catch (refusal) {
    showMessage(refusal.message);
    return;
  }
  byId("source").textContent = project.source;
  byId("annotator").value = localStorage.getItem("lfpc-annotator") || project.annotator;
  byId("save-state").title = project.journal;
  listen();
  // What a killed browser or server left unconfirmed.
  for (const [id, draft] of drafts(project.key)) {
    const number = project.items.findIndex((item) => item.id === id);
    if (number >= 0) restore(newSaver(id, number, draft.base), draft);
  }
  const asked = decodeURIComponent(location.hash.slice(1));
  const named = project.items.findIndex((item) => item.id === asked);
  const unfinished = project.items.findIndex((item) => item.status === "open");
  refreshList();
  await open(named >= 0 ? named : Math.max(unfinished, 0));
}

start();
