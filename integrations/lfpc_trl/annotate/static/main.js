// The page of `lfpc annotate`: the fields of one row, how they are saved, what keys and buttons do.

import { Refusal, getJSON, getPicture, postJSON } from "/static/shared/api.js";
import { byId, el, isTyping, put } from "/static/shared/dom.js";
import { Picture, coarsestTile } from "/static/shared/picture.js";
import { Boxes, hint } from "./boxes.js";
import { Clock } from "./clock.js";
import { askAboutConflict, showHelp, showLeftOut, showModelView } from "./dialogs.js";
import { Editor, HUES } from "./editor.js";
import { History } from "./history.js";
import { actionOf } from "./keys.js";
import { Rows } from "./rows.js";
import { Saver, drafts } from "./saver.js";

const POLL = 2500; // milliseconds between questions for what others changed
const TYPING = 300; // milliseconds after the last key before a text is saved

const TEXTS = ["question", "choices", "answer", "note"];

let project = null;
let rows = null;
let current = null; // {number, row, saver, status, problems, history, textTimer, at, regions}
const savers = new Map(); // row id: Saver, while it has something to save
const histories = new Map(); // row id: History, as long as the page is open
const clock = new Clock();

const picture = new Picture(byId("picture"), { onmove: showScale, pan: false });
const editor = new Editor(picture, {
  onchange: changed,
  onselect: selectionChanged,
  onpoint: showPoint,
  onrefuse: toast,
});

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
    while (row.revision < rows.items[number].revision);
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
  const before = current && shownPicture();
  current = {
    number,
    row,
    saver,
    status: content.status,
    problems: row.problems,
    history: historyOf(row, content),
    textTimer: 0,
    at: 0, // which picture is shown
    regions: [], // of each picture; those of the shown one are with the editor
  };
  clock.take(); // what went before belongs to the row before
  history.replaceState(null, "", `#${encodeURIComponent(row.id)}`);
  document.title = `${row.id} · lfpc annotate`;
  show(asTyped(content, row), (content.target_images?.[0] ?? 1) - 1);
  rows.refresh();
  rows.reveal(number);
  showAll();
  const now = shownPicture();
  // Another question about a picture is asked in the same view.
  const isSame = before?.number === now.number && before.state === now.state;
  if (!isSame && (await openPicture(mine))) prefetch(rows.nextOpen);
  if (current.saver === saver && saver.state === "conflict") settleConflict(saver);
}

const shownPicture = () => current.row.pictures[current.at];

/** Opens the picture that is worked on; whether it can be read. */
async function openPicture(mine) {
  const shown = shownPicture();
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

/** Shows a state of the row, with the boxes of the picture `at` to edit. */
function show(state, at) {
  fillFields(state);
  current.regions = state.regions;
  current.at = at in state.regions ? at : 0;
  editShown();
}

function editShown() {
  const { row, at, regions } = current;
  const taken = regions[at].flat().map(String);
  const suggestions = row.suggestions
    .filter(([box, image]) => image === at + 1 && !taken.includes(String(box)))
    .map(([box]) => box);
  editor.edit(new Boxes(regions[at], shownPicture().size), suggestions);
}

/** Goes on with another picture of the row. */
async function turnTo(at) {
  if (at === current.at) return;
  current.regions = allRegions();
  current.at = at;
  opening += 1;
  editShown();
  showAll();
  await openPicture(opening);
}

function stepPicture(by) {
  const count = current.row.pictures.length;
  turnTo((current.at + by + count) % count);
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
          title: "P",
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

// What is edited, as it stands in the fields; undo goes back to such a state. It becomes the content of a row when it is saved.

/** The state of the fields and the boxes. */
function typed() {
  const texts = Object.fromEntries(TEXTS.map((name) => [name, byId(name).value]));
  return { ...texts, regions: allRegions(), withoutBoxes: byId("without-boxes").checked };
}

/** The state that shows a content of a row. */
const asTyped = (content, row) => ({
  question: content.question,
  choices: (content.choices ?? []).join("\n"),
  answer: content.answer.join("\n"),
  note: content.note,
  regions: row.pictures.map((_, at) =>
    content.targets.filter((_, index) => (content.target_images?.[index] ?? 1) === at + 1),
  ),
  withoutBoxes: content.without_boxes,
});

function lines(text) {
  return text
    .split("\n")
    .map((line) => line.trim())
    .filter(Boolean);
}

/** The content of a state. The order of the keys is that of the server. */
function asContent(state, status) {
  const choices = lines(state.choices);
  const images = state.regions.flatMap((own, at) => own.map(() => at + 1));
  return {
    question: state.question.trim(),
    answer: lines(state.answer),
    choices: choices.length ? choices : null,
    targets: state.regions.flat(),
    status,
    note: state.note.trim(),
    without_boxes: state.withoutBoxes,
    ...(state.regions.length > 1 && images.length ? { target_images: images } : {}),
  };
}

function fillFields(state) {
  for (const name of TEXTS) {
    if (byId(name).value !== state[name]) byId(name).value = state[name]; // leaves the cursor where it is
    grow(byId(name));
  }
  byId("without-boxes").checked = state.withoutBoxes;
}

/** The history of a row: the one from before, unless somebody else has changed the row since. */
function historyOf(row, content) {
  const known = histories.get(row.id);
  const isSame = (state) => JSON.stringify(asContent(state, content.status)) === JSON.stringify(content);
  if (!known || !isSame(known.now)) histories.set(row.id, new History(asTyped(content, row)));
  return histories.get(row.id);
}

// --- saving --------------------------------------------------------------------------------------------

function newSaver(id, number, base) {
  const saver = new Saver({
    project: project.key,
    row: id,
    number,
    base,
    annotator,
    onsaved: (answer) => saved(saver, answer),
    onconflict: (theirs) => {
      saver.theirs = theirs;
      if (current?.saver === saver) settleConflict(saver);
      else toast(`${id}: ${theirs.annotator} changed this row too. Open it to choose.`);
      rows.refresh();
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

/** After an edit; `field` names the field that it was typed into. */
function changed(field = null) {
  if (!current) return;
  if (allRegions().flat().length) byId("without-boxes").checked = false;
  current.history.record(typed(), field);
  edited(field);
}

/** After any change of the state, also by undo and redo. */
function edited(field = null) {
  // A finished row that is changed is looked at again.
  if (field !== "note" && current.status === "done") current.status = "open";
  showSteps();
  if (field === null) {
    save();
    selectionChanged();
  } else {
    clearTimeout(current.textTimer);
    current.textTimer = setTimeout(save, TYPING);
  }
}

function save() {
  clearTimeout(current.textTimer);
  current.textTimer = 0;
  const now = asContent(typed(), current.status);
  current.saver.change(now, clock.take());
  summarise(current.number, now);
}

function summarise(number, now, revision) {
  const item = rows.items[number];
  item.status = now.status;
  item.question = now.question;
  item.boxes = now.targets.reduce((sum, region) => sum + region.length, 0);
  if (revision !== undefined) item.revision = revision;
  rows.refresh();
  if (current?.number === number) showQuestions();
}

function saved(saver, answer) {
  const item = rows.items[saver.number];
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
  Object.assign(current, { row, status: now.status, problems: row.problems, history: historyOf(row, now) });
  show(asTyped(now, row), current.at);
  summarise(number, now, row.revision);
  showAll();
}

/** Asks for what others changed. */
async function poll() {
  let news;
  try {
    news = await getJSON(`/api/changes?seen=${project.seen}`);
  } catch {
    return; // a change that cannot be saved will say so
  }
  project.seen = news.seen;
  rows.medianSeconds = news.median_seconds;
  for (const [key, summary] of Object.entries(news.items)) {
    const number = Number(key);
    const item = rows.items[number];
    if (!item) {
      rows.items[number] = summary; // a question that was added
      continue;
    }
    const busy = savers.get(item.id)?.wanted != null;
    if (busy || summary.revision <= item.revision) continue;
    Object.assign(item, summary);
    if (current?.number === number && !current.textTimer && !editor.drag) {
      await reload();
      toast(`${current.row.annotator} changed this row.`);
    }
  }
  rows.refresh();
  if (current) showQuestions();
}

// --- what is shown -------------------------------------------------------------------------------------

function showAll() {
  byId("row-name").textContent = current.row.id;
  showTabs();
  showFacts();
  showQuestions();
  showSteps();
  selectionChanged();
  showSaveState();
}

function showFacts() {
  const { row } = current;
  const by = row.revision ? `revision ${row.revision} by ${row.annotator}` : "not annotated yet";
  put(
    byId("row-facts"),
    el("span", { class: `chip ${current.status}` }, current.status),
    ` ${row.image === row.id ? "" : `${row.image} · `}${shownPicture().size.join(" × ")} px · ${by}`,
  );
}

/** The questions about this picture, one of which is open. */
function showQuestions() {
  const numbers = rows.questionsOf(current.number);
  put(
    byId("questions"),
    numbers.map((number, index) => {
      const item = rows.items[number];
      const isOpen = number === current.number;
      return el(
        "button",
        {
          type: "button",
          role: "tab",
          class: item.status,
          title: item.question || "no question yet",
          "aria-label": `Question ${index + 1}`,
          "aria-selected": isOpen ? "true" : "false",
          onclick: () => isOpen || open(number),
        },
        `${index + 1}`,
      );
    }),
  );
  byId("questions").hidden = numbers.length < 2;
  byId("delete-question").hidden = !current.row.after;
  byId("delete-question").textContent = current.status === "deleted" ? "Bring back" : "Delete";
}

/** Whether there is something to undo and to redo. */
function showSteps() {
  byId("undo").disabled = !current.history.canUndo;
  byId("redo").disabled = !current.history.canRedo;
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
  const parts = boxes.regions.map((region, number) =>
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
    parts.push(
      el(
        "div",
        { class: `region current hue-${boxes.region % HUES}` },
        el("span", { class: "region-name" }, `Region ${boxes.region + 1}`),
        el("p", { class: "quiet" }, "The next box starts it."),
      ),
    );
  }
  if (!parts.length)
    parts.push(
      el(
        "p",
        { class: "quiet" },
        "Drag on the picture: first the words that answer the question, then the object around them. Order is by size.",
      ),
    );
  if (editor.suggestions.length) {
    parts.push(
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
  put(byId("regions"), parts);
  byId("without-boxes").disabled = allRegions().flat().length > 0;
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
    overview: shownPicture().overview,
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
const undo = () => travel("undo");
const redo = () => travel("redo");

/** Goes a step through the history of the row, to the picture on which boxes change by it. */
function travel(step) {
  const before = current.history.now;
  const state = current.history[step]();
  if (!state) return;
  const isOther = (own, at) => JSON.stringify(own) !== JSON.stringify(before.regions[at]);
  const at = state.regions.findIndex(isOther);
  fillFields(state);
  current.regions = state.regions;
  editor.boxes.put(state.regions[current.at]);
  if (at >= 0) turnTo(at);
  edited();
}

function toggleWithoutBoxes() {
  const box = byId("without-boxes");
  if (box.disabled) {
    toast("This row has boxes.");
    return;
  }
  box.checked = !box.checked;
  changed();
}

function splitBox() {
  const { boxes } = editor;
  if (!boxes.selected) {
    // The box that breaks the nesting is meant: the one drawn last is mostly the outermost of its region.
    boxes.select(boxes.region, (boxes.regions[boxes.region]?.length ?? 0) - 1);
  }
  edit(() => boxes.split());
}

/** Waits until the server has what is on the page; whether it has. */
async function settled() {
  flushTexts();
  const { saver } = current;
  for (let tries = 0; saver.state === "saving" && tries < 100; tries += 1) {
    await new Promise((wake) => setTimeout(wake, 30));
  }
  return saver.state === "saved";
}

async function done() {
  const mine = current;
  const isSaved = await settled();
  if (current !== mine) return;
  // What the page marks red, and what the server says of it: either is enough.
  const wrong = current.problems[0]?.sentence ?? editor.boxes.fault;
  if (!isSaved) toast(`Not finished: ${byId("save-state").textContent}`);
  else if (wrong) toast(`Not finished: ${wrong}`);
  else mark("done");
}

function mark(status) {
  current.status = status;
  save();
  const next = rows.nextOpen;
  if (next === null) {
    toast("No open row is left.");
    showFacts();
  } else open(next);
}

// --- the questions of a picture ------------------------------------------------------------------------

async function addQuestion() {
  flushTexts();
  try {
    const { answer } = await postJSON(`/api/items/${current.number}/questions`, { annotator: annotator() });
    await poll(); // this question, and those that others added before it
    await open(answer.number);
    byId("question").focus();
  } catch (refusal) {
    toast(refusal.message);
  }
}

function stepQuestion(by) {
  const numbers = rows.questionsOf(current.number);
  const next = numbers[numbers.indexOf(current.number) + by];
  if (next !== undefined) open(next);
}

function toggleDeleted() {
  if (!current.row.after) {
    toast("The first question of a picture can be skipped, not deleted.");
    return;
  }
  const isBack = current.status === "deleted";
  current.status = isBack ? "open" : "deleted";
  save();
  showFacts();
  if (isBack) return;
  toast("Deleted. The list of deleted questions has it, and X brings it back.");
  open(rows.questionsOf(current.number)[0]);
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
const PAN = 60; // CSS pixels by which an arrow moves the picture

function arrow(event) {
  const [dx, dy] = ARROWS[event.key];
  if (editor.boxes.selected) {
    const far = event.shiftKey ? 10 : 1;
    editor.nudge(dx * far, dy * far);
  } else {
    const far = event.shiftKey ? 5 * PAN : PAN;
    picture.panBy(-dx * far, -dy * far);
  }
}

function arrowEdge(event) {
  const [dx, dy] = ARROWS[event.key];
  const edge = event.shiftKey ? (dx ? "left" : "top") : dx ? "right" : "bottom";
  editor.nudge(dx, dy, new Set([edge]));
}

function toggleHand() {
  editor.hand = !editor.hand;
  byId("hand").setAttribute("aria-pressed", editor.hand ? "true" : "false");
}

function stepRow(by) {
  const number = rows.beside(by);
  if (number !== undefined) open(number);
}

function zoomToBox() {
  const box = editor.boxes.selectedBox ?? editor.boxes.regions[editor.boxes.region]?.at(-1);
  if (box) picture.show(box);
}

const FIELDS = { q: "question", c: "choices", w: "answer", e: "note" };
const LIST_FIELDS = { "/": "search", t: "filter" };
const ZOOMS = { "+": 1.4, "=": 1.4, "-": 1 / 1.4 };
const LOOKS = { 0: () => picture.fit(), o: () => picture.actualSize(), z: zoomToBox };
const low = (event) => event.key.toLowerCase();

/** What the keys of `keys.js` do. */
const ACTIONS = {
  drawHere: () => editor.drawHere(),
  stepBox: (event) => {
    editor.boxes.step(event.shiftKey ? -1 : 1);
    selectionChanged();
  },
  arrow,
  arrowEdge,
  remove,
  escape: () => {
    editor.boxes.select(-1, -1);
    selectionChanged();
  },
  growBoxes,
  toggleWithoutBoxes,
  newRegion,
  chooseRegion: (event) => choose(Number(event.key) - 1),
  splitBox,
  accept: () => editor.accept(),
  browse: (event) => editor.browse(event.key === "]" ? 1 : -1),
  undo,
  redo,
  toField: (event) => byId(FIELDS[low(event)]).focus(),
  done,
  stepRow: (event) => stepRow(low(event) === "j" ? 1 : -1),
  skip: () => mark("skipped"),
  toggleFlag,
  toList: (event) => byId(LIST_FIELDS[low(event)]).focus(),
  addQuestion,
  stepQuestion: (event) => stepQuestion(event.key === "." ? 1 : -1),
  stepPicture: (event) => stepPicture(event.shiftKey ? -1 : 1),
  toggleDeleted,
  zoom: (event) => picture.zoomBy(ZOOMS[event.key]),
  toggleHand,
  look: (event) => LOOKS[low(event)](),
  showModel,
  showLeftOut: () => showLeftOut(project.left_out),
  help: showHelp,
};
const WHILE_TYPING = ["undo", "redo"]; // of the texts of a row, and with Ctrl + Enter done

function onKey(event) {
  if (!current || document.querySelector("dialog[open]")) return;
  let action = actionOf(event);
  if (editor.drag) {
    // Nothing else may change the boxes while one of them is in the hand.
    if (event.key === "Escape") editor.cancel();
    event.preventDefault();
    return;
  }
  if (isTyping(event.target) && event.target.type !== "checkbox") {
    if (event.key === "Escape") event.target.blur();
    const isOfRow = TEXTS.includes(event.target.id);
    const isCommand = WHILE_TYPING.includes(action) || (action === "done" && (event.ctrlKey || event.metaKey));
    if (!isOfRow || !isCommand) return;
  } else if (event.target.matches?.("button, input") && (event.key === "Enter" || event.key === " ")) {
    return; // of the button itself
  } else if (event.key === " ") {
    editor.space = true;
    action = null;
  }
  if (action === undefined) return;
  event.preventDefault();
  if (action) ACTIONS[action](event);
}

// --- start ---------------------------------------------------------------------------------------------

function grow(field) {
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight + 2}px`;
}

const annotator = () => byId("annotator").value.trim() || project.annotator;

function listen() {
  for (const name of TEXTS) {
    byId(name).addEventListener("input", () => {
      grow(byId(name));
      changed(name);
    });
    byId(name).addEventListener("change", flushTexts);
  }
  byId("without-boxes").addEventListener("change", () => changed());
  byId("annotator").addEventListener("change", () =>
    localStorage.setItem("lfpc-annotator", byId("annotator").value.trim()),
  );
  byId("filter").addEventListener("change", () => rows.refresh());
  byId("search").addEventListener("input", () => rows.refresh());
  const clicks = {
    previous: () => stepRow(-1),
    next: () => stepRow(1),
    help: showHelp,
    "left-out": ACTIONS.showLeftOut,
    fit: () => picture.fit(),
    actual: () => picture.actualSize(),
    "zoom-in": () => picture.zoomBy(1.4),
    "zoom-out": () => picture.zoomBy(1 / 1.4),
    "zoom-box": zoomToBox,
    "model-view": showModel,
    hand: toggleHand,
    undo,
    redo,
    "add-question": addQuestion,
    "delete-question": toggleDeleted,
    "new-region": newRegion,
    skip: () => mark("skipped"),
    flag: toggleFlag,
    done,
  };
  for (const [id, act] of Object.entries(clicks)) {
    byId(id).addEventListener("click", (event) => {
      event.currentTarget.blur(); // the keys belong to the picture
      if (current) act();
    });
  }
  document.addEventListener("keydown", onKey);
  document.addEventListener("keyup", (event) => {
    if (event.key === " ") editor.space = false;
  });
  addEventListener("pagehide", flushTexts);
  addEventListener("blur", () => (editor.space = false));
  setInterval(() => document.hidden || poll(), POLL);
}

async function start() {
  try {
    project = await getJSON("/api/project");
  } catch (refusal) {
    showMessage(refusal.message);
    return;
  }
  rows = new Rows(project.items, {
    current: () => current?.number,
    open,
    hasConflict: (id) => savers.get(id)?.state === "conflict",
  });
  rows.medianSeconds = project.median_seconds;
  byId("source").textContent = project.source;
  byId("annotator").value = localStorage.getItem("lfpc-annotator") || project.annotator;
  byId("save-state").title = project.journal;
  byId("without-boxes-label").hidden = project.stage === 1; // there no row needs boxes
  const files = project.left_out.length;
  byId("left-out").hidden = files === 0;
  byId("left-out").textContent = `${files} file${files > 1 ? "s" : ""} left out`;
  listen();
  // What a killed browser or server left unconfirmed.
  for (const [id, draft] of drafts(project.key)) {
    const number = project.items.findIndex((item) => item.id === id);
    if (number >= 0) restore(newSaver(id, number, draft.base), draft);
  }
  const asked = decodeURIComponent(location.hash.slice(1));
  const named = project.items.findIndex((item) => item.id === asked);
  rows.refresh();
  await open(named >= 0 ? named : (rows.nextOpen ?? 0));
}

start();
