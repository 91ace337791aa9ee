// One trajectory: its picture with targets and crops, its scores, its conversation. Output of the model and texts from
// the data are always inserted as text.

import { getJSON } from "/static/shared/api.js";
import { el, put } from "/static/shared/dom.js";
import { Picture, coarsestTile } from "/static/shared/picture.js";

const CLASSES = ["hue-1", "hue-0", "hue-3", "hue-4", "hue-5", "hue-2"];

const figure = (value) => (value === null || value === undefined ? "–" : Number(value.toFixed(3)).toString());
const verdict = (accuracy) => (accuracy === null ? "" : accuracy >= 0.5 ? "right" : "wrong");

export class Pane {
  /**
   * @param {{run: number, alone: boolean, name: string, onstep: (position: number) => void}} options
   */
  constructor({ run, alone, name, onstep }) {
    this.run = run;
    this.name = name;
    this.onstep = onstep;
    this.latestRequest = 0;
    this.off = new Set(); // what the legend has turned off
    this.at = 0; // index of the shown picture
    this.host = el("div", { class: "picture" });
    this.tabs = el("div", { class: "tabs", role: "tablist", "aria-label": "Pictures", hidden: true });
    this.legend = el("div", { class: "legend" });
    this.note = el("p", { class: "note", hidden: true });
    this.stage = el(
      "section",
      { class: "stage", "aria-label": "Picture" },
      this.host,
      this.tabs,
      this.legend,
      this.note,
    );
    this.text = el("div", { class: "scroll text", tabindex: "0", "aria-label": "Trajectory" });
    this.node = el(
      "article",
      { class: `pane run-${run}${alone ? " alone" : ""}`, "aria-label": name },
      this.stage,
      this.text,
    );
  }

  /** Creates the picture once the pane is in the page: OpenSeadragon measures it. */
  attach() {
    this.picture = new Picture(this.host);
  }

  async show(position) {
    this.latestRequest += 1;
    const thisRequest = this.latestRequest;
    if (position === null) {
      this.#empty("This run has no trajectory for this row.");
      return;
    }
    let data;
    try {
      data = await getJSON(`/api/runs/${this.run}/trajectories/${position}`);
    } catch (refusal) {
      this.#empty(refusal.message);
      return;
    }
    if (thisRequest !== this.latestRequest) return;
    const before = this.data;
    this.data = data;
    this.#fill();
    const sameRow =
      before &&
      before.row_id === data.row_id &&
      JSON.stringify(before.pictures) === JSON.stringify(data.pictures);
    // The picture that the model cropped, else the one with the target.
    if (!sameRow) this.at = (data.box_images[0] ?? data.target_images[0] ?? 1) - 1;
    this.#drawTabs();
    if (!sameRow || !this.picture.item) await this.#openPicture(thisRequest);
    if (thisRequest === this.latestRequest) this.#draw();
  }

  /** Shows another picture of the same question. */
  async #turnTo(at) {
    if (at === this.at) return;
    this.at = at;
    this.latestRequest += 1;
    const thisRequest = this.latestRequest;
    this.#drawTabs();
    await this.#openPicture(thisRequest);
    if (thisRequest === this.latestRequest) this.#draw();
  }

  #drawTabs() {
    const { pictures } = this.data;
    this.tabs.hidden = pictures.length < 2;
    put(
      this.tabs,
      pictures.map((picture, at) =>
        el(
          "button",
          {
            type: "button",
            role: "tab",
            "aria-selected": at === this.at ? "true" : "false",
            title: picture.name,
            onclick: () => this.#turnTo(at),
          },
          `Image ${at + 1}`,
        ),
      ),
    );
  }

  /** Whether the crop or region with this index is on the shown picture. */
  #isHere(numbers, index) {
    return (numbers[index] ?? 1) === this.at + 1;
  }

  #empty(text) {
    this.data = null;
    this.picture.close();
    this.tabs.hidden = true;
    put(this.legend);
    this.note.hidden = true;
    put(this.text, el("p", { class: "empty" }, text));
  }

  async #openPicture(thisRequest) {
    const { data } = this;
    const shown = data.pictures[this.at];
    this.note.hidden = true;
    const size = shown.size ?? [1000, 1000];
    try {
      if (shown.original) {
        await this.picture.open(shown.original);
        // An unreadable picture fails tile by tile: request one to get the error.
        const probe = await fetch(coarsestTile(shown.original));
        if (probe.ok || thisRequest !== this.latestRequest) return;
        throw new Error(await probe.text());
      }
      if (data.thumbnails <= this.at) throw new Error("The file has no picture for this trajectory.");
      await this.picture.openFile(`/thumbnails/${this.run}/${data.position}/${this.at}`, size);
      if (thisRequest === this.latestRequest) this.#tell("Thumbnail. Start with --data to see the original.");
    } catch (error) {
      if (thisRequest !== this.latestRequest) return;
      this.picture.close();
      this.#tell(error.message);
    }
  }

  #tell(text) {
    this.note.textContent = text;
    this.note.hidden = false;
  }

  #draw() {
    const { data } = this;
    const shapes = [];
    if (!this.off.has("targets")) {
      (data.targets ?? []).forEach((region, number) =>
        (this.#isHere(data.target_images, number) ? [...region.entries()] : [])
          .reverse()
          .forEach(([index, box]) =>
            shapes.push({
              box,
              kind: "target",
              label: `${data.targets.length > 1 ? `${number + 1}·` : ""}B${index + 1}`,
              small: "bare",
            }),
          ),
      );
    }
    data.boxes.forEach((box, index) => {
      if (!this.off.has(index) && this.#isHere(data.box_images, index))
        shapes.push({ box, kind: `crop ${CLASSES[index % CLASSES.length]}`, label: `crop ${index + 1}` });
    });
    this.picture.draw(shapes);
    const toggle = (key, label, hue) =>
      el(
        "button",
        {
          type: "button",
          "aria-pressed": this.off.has(key) ? "false" : "true",
          class: hue,
          onclick: () => {
            if (!this.off.delete(key)) this.off.add(key);
            this.#draw();
          },
        },
        el("span", { class: "swatch" }),
        label,
      );
    put(
      this.legend,
      data.targets ? toggle("targets", "targets", "box target") : el("span", {}, "no targets"),
      data.boxes.length
        ? data.boxes.map((_, index) => toggle(index, `crop ${index + 1}`, CLASSES[index % CLASSES.length]))
        : el("span", {}, "no crop"),
      el(
        "button",
        { type: "button", title: "0", onclick: () => this.picture.item && this.picture.fit() },
        "fit",
      ),
      shapes.length > 0 && el("button", { type: "button", title: "Z", onclick: () => this.zoom() }, "zoom"),
    );
  }

  /** Zooms to all boxes of the trajectory. */
  zoom() {
    const { targets, boxes: crops, target_images, box_images } = this.data ?? {};
    const boxes = [
      ...(targets ?? []).filter((_, index) => this.#isHere(target_images, index)).flat(),
      ...(crops ?? []).filter((_, index) => this.#isHere(box_images, index)),
    ];
    if (!boxes.length || !this.picture.item) return;
    const side = (at, pick) => pick(...boxes.map((box) => box[at]));
    this.picture.show([side(0, Math.min), side(1, Math.min), side(2, Math.max), side(3, Math.max)]);
  }

  #fill() {
    const { data } = this;
    const outcome = verdict(data.accuracy);
    put(
      this.text,
      el(
        "section",
        {},
        el(
          "p",
          { class: "quiet" },
          [this.name, data.step === null ? "" : `step ${data.step}`, data.row_id, data.image]
            .filter(Boolean)
            .join(" · "),
        ),
        el("h2", {}, data.question),
        data.choices &&
          el(
            "ol",
            { class: "options", type: "A" },
            data.choices.map((choice) => el("li", {}, choice)),
          ),
        el(
          "dl",
          { class: "says-row" },
          el("dt", {}, "Answer"),
          el("dd", {}, data.answer || "none"),
          el("dt", {}, "Accepted"),
          el("dd", {}, data.accepted.join(" / ") || "–"),
        ),
        el(
          "p",
          { class: "facts" },
          outcome && el("span", { class: `chip ${outcome === "right" ? "good" : "bad"}` }, outcome),
          data.condition && el("span", { class: "chip" }, data.condition),
          data.ending && el("span", { class: "chip" }, data.ending),
          data.masked && el("span", { class: "chip warn" }, "masked in the loss"),
          el("span", { class: "chip" }, `${data.crops} crop${data.crops === 1 ? "" : "s"}`),
        ),
        this.#others(),
      ),
      this.#scores(),
      el(
        "section",
        {},
        el("h3", {}, "Conversation"),
        el(
          "ol",
          { class: "turns" },
          data.messages.map((message, index) => this.#turn(message, index)),
        ),
      ),
    );
    this.text.scrollTop = 0;
  }

  #others() {
    const { data } = this;
    const chip = (position, label, kind) =>
      el(
        "button",
        {
          type: "button",
          class: `${kind}${position === data.position ? " current" : ""}`,
          onclick: () => this.onstep(position),
        },
        label,
      );
    const siblings = data.siblings.length > 1 && [
      el("p", { class: "quiet" }, "Rollouts of this question, by reward"),
      el(
        "div",
        { class: "chips" },
        data.siblings.map((each) =>
          chip(
            each.position,
            [each.condition, each.reward === null ? `#${each.rollout}` : figure(each.reward)]
              .filter(Boolean)
              .join(" "),
            verdict(each.accuracy),
          ),
        ),
      ),
    ];
    const steps = data.steps.length > 1 && [
      el("p", { class: "quiet" }, "Logged steps"),
      el(
        "div",
        { class: "chips" },
        data.steps.map(([step, position]) =>
          chip(step === data.step ? data.position : position, String(step), ""),
        ),
      ),
    ];
    return (siblings || steps) && el("div", {}, siblings, steps);
  }

  #scores() {
    const { data } = this;
    const names = Object.keys(data.scores);
    return el(
      "section",
      {},
      el("h3", {}, "Scores"),
      el(
        "dl",
        { class: "scores" },
        [
          ...names.map((name) => [name, data.scores[name]]),
          ["reward", data.reward],
          ["advantage", data.advantage],
        ].map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, figure(value)))),
      ),
      data.boxes.length > 0 &&
        el(
          "table",
          {},
          el(
            "thead",
            {},
            el(
              "tr",
              {},
              [
                "crop",
                ...(data.pictures.length > 1 ? ["image"] : []),
                "box in the original",
                "size",
                "overlap",
                "IoU",
              ].map((name) => el("th", { scope: "col" }, name)),
            ),
          ),
          el(
            "tbody",
            {},
            data.boxes.map((box, index) =>
              el(
                "tr",
                {},
                el(
                  "td",
                  { class: CLASSES[index % CLASSES.length] },
                  el("span", { class: "swatch" }),
                  String(index + 1),
                ),
                data.pictures.length > 1 && el("td", {}, String(data.box_images[index] ?? 1)),
                el(
                  "td",
                  {},
                  el(
                    "button",
                    {
                      type: "button",
                      class: "plain mono",
                      title: "Zoom to this crop",
                      onclick: async () => {
                        await this.#turnTo((data.box_images[index] ?? 1) - 1);
                        if (this.picture.item) this.picture.show(box);
                      },
                    },
                    box.join(", "),
                  ),
                ),
                el("td", {}, `${box[2] - box[0]} × ${box[3] - box[1]}`),
                el("td", {}, figure(data.box_scores[index].overlap)),
                el("td", {}, figure(data.box_scores[index].iou)),
              ),
            ),
          ),
        ),
    );
  }

  #turn(message, index) {
    const { data } = this;
    const parts = message.parts.map((part) => this.#part(part));
    if (!parts.length) parts.push(el("p", { class: "quiet" }, "empty"));
    // The system message is the same for all: collapse it.
    if (message.role === "system") {
      return el("li", { class: "turn system" }, el("details", {}, el("summary", {}, "system"), parts));
    }
    const turn = data.messages.slice(0, index + 1).filter((each) => each.role === "assistant").length;
    const role = message.role === "assistant" ? `model, turn ${turn}` : message.role;
    return el(
      "li",
      { class: `turn ${message.role === "assistant" ? "assistant" : ""}` },
      el("p", { class: "role" }, role),
      parts,
    );
  }

  #part(part) {
    if ("text" in part) return el("pre", { class: "says" }, part.text);
    if ("call" in part) return el("pre", { class: "says call" }, part.call);
    const { data } = this;
    if (part.thumbnail < 0 || part.thumbnail >= data.thumbnails)
      return el("p", { class: "quiet" }, "This picture is not in the file.");
    // The overviews come first; the crops follow in order, unless the counts do not match.
    const overviews = data.pictures.length;
    const linked = data.thumbnails === data.boxes.length + overviews;
    const behind = part.thumbnail - overviews + 1;
    const shown = overviews > 1 ? `image ${part.thumbnail + 1} as shown` : "the picture as shown";
    const name = behind < 1 ? shown : linked ? `crop ${behind}` : `picture ${behind}`;
    return el(
      "figure",
      {},
      el("img", {
        src: `/thumbnails/${this.run}/${data.position}/${part.thumbnail}`,
        alt: name,
        loading: "lazy",
      }),
      el("figcaption", {}, `${name} (thumbnail)`),
    );
  }
}
