// The dialogs: keys, the model's view, a choice between two versions.

import { byId, el, put } from "/static/shared/dom.js";

function closing(dialog) {
  return el(
    "div",
    { class: "foot" },
    el("button", { type: "button", class: "main", onclick: () => dialog.close() }, "Close"),
  );
}

const KEYS = [
  [
    "Draw",
    [
      ["drag", "draw a box, also inside another"],
      ["click", "select a box; again: the one around it"],
      ["B", "select the next box, with Shift the one before"],
      ["drag an edge, drag the label", "resize, move the selected box"],
      ["arrows", "move it by one pixel of the original, with Shift by ten"],
      ["Ctrl + arrows", "move its right or bottom edge, with Shift its left or top edge"],
      ["Delete", "delete it"],
      ["Ctrl + Z, Ctrl + Y", "undo, redo"],
      ["G", "grow outer boxes around inner ones"],
    ],
  ],
  [
    "Regions",
    [
      ["R", "the next box starts a new region (another object)"],
      ["1 to 9", "go on in that region"],
      ["M", "move the selected box into a region of its own"],
    ],
  ],
  [
    "Model's boxes",
    [
      ["A", "accept the highlighted box"],
      ["[ and ]", "highlight another one"],
    ],
  ],
  [
    "View",
    [
      ["wheel, + and −", "zoom"],
      ["space + drag, right drag", "move the picture"],
      ["0, O, Z", "fit, 1:1, zoom to the selected box"],
      ["V", "as the model sees it"],
    ],
  ],
  [
    "Rows",
    [
      ["Enter", "done, go to the next open row"],
      ["J and K", "next and previous row"],
      ["S and F", "skip; flag for another look"],
      ["Q and W", "to the question, to the answer; Escape leaves the field"],
      ["?", "this list"],
    ],
  ],
];

/** All keys. */
export function showHelp() {
  const dialog = byId("help-dialog");
  put(
    dialog,
    el("h2", { id: "help-title" }, "Keys"),
    el(
      "div",
      { class: "keys" },
      KEYS.map(([title, rows]) =>
        el(
          "section",
          {},
          el("h3", {}, title),
          el(
            "dl",
            {},
            rows.map(([key, what]) => [el("dt", {}, key), el("dd", {}, what)]),
          ),
        ),
      ),
    ),
    closing(dialog),
  );
  dialog.showModal();
}

/**
 * The overview and the crops of one region as the model would get them.
 * @param {{number: number, image: number, overview: object, question: string, region: number[][]}} row
 */
export function showModelView({ number, image, overview, question, region }) {
  const dialog = byId("model-dialog");
  const [width, height] = overview.size;
  put(
    dialog,
    el("h2", { id: "model-title" }, "As the model sees it"),
    el(
      "p",
      { class: "quiet" },
      `First the whole picture at ${width} × ${height} px (${overview.tokens} visual tokens). Can you answer from it? Then the question needs no crop.`,
    ),
    el("p", { class: "model-question" }, question),
    el(
      "div",
      { class: "model-pictures" },
      el(
        "figure",
        {},
        el("img", { src: `/api/items/${number}/overview?image=${image}`, width, height, alt: "The overview" }),
        el("figcaption", {}, "Overview"),
      ),
      el(
        "div",
        {},
        region.map((box, index) =>
          el(
            "figure",
            {},
            el("img", { src: `/api/items/${number}/crop?box=${box.join()}&image=${image}`, alt: `Crop of B${index + 1}` }),
            el("figcaption", {}, `Crop of B${index + 1}`),
          ),
        ),
      ),
    ),
    closing(dialog),
  );
  dialog.showModal();
}

function inWords(version) {
  const boxes = version.targets.flatMap((region, number) =>
    region.map(
      (box, index) => `${version.targets.length > 1 ? `${number + 1}·` : ""}B${index + 1}  ${box.join(", ")}`,
    ),
  );
  return {
    Question: version.question,
    Choices: (version.choices ?? []).join(" / "),
    Answer: version.answer.join(" / "),
    Boxes: boxes.join("\n"),
    Status: version.status,
    Note: version.note,
  };
}

/** A version of a row; what differs from the other one stands out. */
function describe(version, other) {
  const [words, others] = [inWords(version), inWords(other)];
  return el(
    "dl",
    { class: "version" },
    Object.entries(words).map(([name, value]) => [
      el("dt", {}, name),
      el("dd", { class: value === others[name] ? "" : "differs" }, value || "none"),
    ]),
  );
}

/**
 * Asks which version of a row is to stay.
 * @param {object} mine what this page has
 * @param {{annotator: string, content: object}} theirs what the journal has
 * @param {{keep: () => void, take: () => void}} choices
 */
export function askAboutConflict(mine, theirs, { keep, take }) {
  const dialog = byId("conflict-dialog");
  const closingWith = (choose) => () => {
    dialog.close();
    choose();
  };
  put(
    dialog,
    el("h2", { id: "conflict-title" }, "Two versions of this row"),
    el(
      "p",
      {},
      `${theirs.annotator} saved this row while you changed it. Choose one; nothing of yours is saved yet.`,
    ),
    el(
      "div",
      { class: "two" },
      el("section", {}, el("h3", {}, "Yours"), describe(mine, theirs.content)),
      el("section", {}, el("h3", {}, `By ${theirs.annotator}`), describe(theirs.content, mine)),
    ),
    el(
      "div",
      { class: "foot" },
      el(
        "button",
        { type: "button", id: "take-theirs", onclick: closingWith(take) },
        `Take the version by ${theirs.annotator}`,
      ),
      el(
        "button",
        { type: "button", id: "keep-mine", class: "main", onclick: closingWith(keep) },
        "Keep yours",
      ),
    ),
  );
  if (!dialog.open) dialog.showModal();
}
