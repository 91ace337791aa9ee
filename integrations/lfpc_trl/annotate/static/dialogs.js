// The dialogs: keys, files that were left out, the model's view, a choice between two versions.

import { byId, el, put } from "/static/shared/dom.js";
import { KEYS } from "./keys.js";

function closing(dialog) {
  return el(
    "div",
    { class: "foot" },
    el("button", { type: "button", class: "main", onclick: () => dialog.close() }, "Close"),
  );
}

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

/** The files of the folder that are not annotated, `[name, reason]` each. */
export function showLeftOut(files) {
  const dialog = byId("left-out-dialog");
  put(
    dialog,
    el("h2", { id: "left-out-title" }, "Left out of the folder"),
    el(
      "div",
      { class: "left-out" },
      el(
        "dl",
        {},
        files.map(([name, reason]) => [el("dt", {}, name), el("dd", {}, reason)]),
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
  const boxes = version.targets.flatMap((region, number) => {
    const image = version.target_images ? `Image ${version.target_images[number]}  ` : "";
    const place = version.targets.length > 1 ? `${number + 1}·` : "";
    return region.map((box, index) => {
      const by = version.proposed?.[number]?.[index]?.by;
      return `${image}${place}B${index + 1}  ${box.join(", ")}${by ? `  proposed by ${by}` : ""}`;
    });
  });
  return {
    Question: version.question,
    Choices: (version.choices ?? []).join(" / "),
    Answer: version.answer.join(" / "),
    Boxes: version.without_boxes ? "none needed" : boxes.join("\n"),
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
