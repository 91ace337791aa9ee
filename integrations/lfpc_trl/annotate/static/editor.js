// Drawing with mouse, pen and fingers: from their events to changes of `Boxes`.
//
// Drag draws, whatever lies below: the inner box of a sign is drawn inside the outer one. A click selects, again for the next
// box outwards; on the label of a proposal it accepts. The rim of the selected box, on its inner side, resizes it; with Shift
// held a drag moves it. Outside a box, and from its label, drawing wins.
// Space, another button or the hand moves the picture; so do two fingers, which zoom too.

import { MIN_SIDE, boxBetween, fault, hint, moved, resized } from "./boxes.js";

const GRIP = { mouse: 7, pen: 7, touch: 16 }; // how far the rim reaches into a box, in CSS pixels
const CLICK = 4; // how far a click may wander, in CSS pixels

const placeOf = ({ clientX, clientY }) => ({ clientX, clientY });

export const HUES = 6; // regions have colours of their own, again after so many

export class Editor {
  /**
   * @param {import("/static/shared/picture.js").Picture} picture
   * @param {{onchange: () => void, onselect: () => void, ondrop: (proposal: object) => void, onrefuse: (reason: string) => void,
   *   onpoint: (point: number[] | null, box: number[] | null) => void}} events
   */
  constructor(picture, events) {
    this.picture = picture;
    this.events = events;
    this.boxes = null;
    this.proposals = []; // {box, by} on the shown picture
    this.highlight = 0; // which of those that are offered
    this.drag = null;
    this.fingers = new Map(); // pointer: where it is
    this.space = false;
    this.hand = false;
    this.frame = 0;
    const layer = picture.layer;
    layer.addEventListener("pointerdown", (event) => this.#down(event));
    layer.addEventListener("pointermove", (event) => this.#move(event));
    layer.addEventListener("pointerup", (event) => this.#up(event));
    layer.addEventListener("pointercancel", (event) => this.#lost(event));
    layer.addEventListener("lostpointercapture", (event) => this.#lost(event));
    layer.addEventListener("pointerleave", () => events.onpoint(null, null));
    layer.addEventListener("contextmenu", (event) => event.preventDefault());
  }

  /** Edits these boxes from now on. */
  edit(boxes, proposals) {
    this.boxes = boxes;
    this.drag = null;
    this.propose(proposals);
  }

  /** Shows other proposals beside the boxes. */
  propose(proposals) {
    this.proposals = proposals;
    this.highlight = 0;
    this.draw();
  }

  /** The proposals that are no boxes yet: what is accepted is not offered, and is offered again when that is undone. */
  get offered() {
    return this.boxes ? this.proposals.filter((proposal) => !this.boxes.has(proposal)) : [];
  }

  /** The proposal that is highlighted, if any. */
  get highlighted() {
    const { offered } = this;
    return offered[Math.min(this.highlight, offered.length - 1)];
  }

  draw() {
    if (!this.boxes) return;
    const { highlighted } = this;
    const shapes = this.offered.map((proposal, index) => {
      const isCurrent = proposal === highlighted;
      return {
        box: proposal.box,
        kind: `proposal${isCurrent ? " current" : ""}`,
        label: `P${index + 1}${isCurrent ? " · A accepts" : ""}`,
        proposal,
      };
    });
    shapes.sort((one, other) => (one.proposal === highlighted) - (other.proposal === highlighted)); // above the others
    const { selected } = this.boxes;
    const live = this.drag?.box;
    const shown = this.boxes.regions.map((region, number) => {
      const changed = live && this.drag.kind !== "draw" && selected?.region === number ? selected.index : -1;
      return region.map((box, index) => (index === changed ? live : box));
    });
    shown.forEach((region, number) => {
      // Outer boxes first: the inner one's line stays on top.
      [...region.keys()].reverse().forEach((index) => {
        const isSelected = selected?.region === number && selected.index === index;
        shapes.push({
          box: region[index],
          kind: `hue-${number % HUES}${hint(shown, number, index) ? " bad" : ""}${isSelected ? " selected" : ""}`,
          label: `${shown.length > 1 ? `${number + 1}·` : ""}B${index + 1}`,
          handles: isSelected,
          place: { region: number, index },
        });
      });
    });
    if (live && this.drag.kind === "draw") {
      const number = Math.min(this.boxes.region, shown.length);
      shown[number] = [...(shown[number] ?? []), live];
      const bad = hint(shown, number, shown[number].length - 1) ? " bad" : "";
      shapes.push({ box: live, kind: `hue-${number % HUES} drawing${bad}` });
    }
    this.picture.draw(shapes);
  }

  /** Draws with the next frame: a mouse moves more often than a screen shows. */
  #drawSoon() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.draw();
    });
  }

  #down(event) {
    if (!this.boxes || !this.picture.item) return;
    event.stopPropagation();
    event.preventDefault();
    if (event.pointerType === "touch") {
      this.fingers.set(event.pointerId, placeOf(event));
      if (this.fingers.size > 1) {
        this.cancel(); // the first of two fingers draws nothing
        return;
      }
    }
    if (this.drag) return; // a second button
    document.activeElement?.blur();
    this.picture.layer.setPointerCapture(event.pointerId);
    const start = this.picture.toImage(event);
    this.drag = { pointer: event.pointerId, start, x: event.clientX, y: event.clientY, far: false, box: null };
    const before = this.boxes.selectedBox;
    const edges = this.#edgesAt(event);
    if (event.button !== 0 || this.space || this.hand) this.drag.kind = "pan";
    else if (event.shiftKey && before) Object.assign(this.drag, { kind: "move", before });
    else if (edges) Object.assign(this.drag, { kind: "resize", edges, before });
    else Object.assign(this.drag, { kind: "draw", label: this.#labelAt(event) });
    this.draw();
  }

  #move(event) {
    if (!this.boxes || !this.picture.item) return;
    const { drag } = this;
    if (this.fingers.has(event.pointerId)) {
      event.stopPropagation();
      const before = [...this.fingers.values()];
      this.fingers.set(event.pointerId, placeOf(event));
      if (this.fingers.size === 2) this.picture.pinch(before, [...this.fingers.values()]);
    }
    const point = this.picture.toImage(event);
    if (!drag) {
      this.#cursor(event);
      this.events.onpoint(point, null);
      return;
    }
    event.stopPropagation();
    if (event.pointerId !== drag.pointer) return;
    if (drag.kind === "pan") {
      this.picture.panBy(event.clientX - drag.x, event.clientY - drag.y);
      [drag.x, drag.y] = [event.clientX, event.clientY];
      return;
    }
    drag.far ||= Math.hypot(event.clientX - drag.x, event.clientY - drag.y) >= CLICK;
    if (!drag.far) return;
    const [dx, dy] = [point[0] - drag.start[0], point[1] - drag.start[1]];
    const { size } = this.boxes;
    if (drag.kind === "draw") drag.box = boxBetween(drag.start, point, size);
    else if (drag.kind === "move") drag.box = moved(drag.before, dx, dy, size);
    else drag.box = resized(drag.before, drag.edges, dx, dy, size);
    this.#drawSoon();
    this.events.onpoint(point, drag.box);
  }

  #up(event) {
    this.fingers.delete(event.pointerId);
    const { drag } = this;
    if (!drag || drag.pointer !== event.pointerId) return;
    event.stopPropagation();
    this.drag = null;
    if (drag.kind === "pan") return;
    if (!drag.far) {
      this.#click(event, drag.label);
    } else if (drag.kind === "draw") this.#add(drag.box);
    else if (drag.box.join() !== drag.before.join()) {
      this.boxes.replace(drag.box);
      this.events.onchange();
    }
    this.draw();
  }

  #add(box) {
    const wrong = fault(box);
    if (wrong) {
      this.events.onrefuse(`Not drawn: the box is ${wrong}.`);
      return;
    }
    this.boxes.add(box);
    this.events.onchange();
  }

  #lost(event) {
    this.fingers.delete(event.pointerId);
    if (this.drag?.pointer === event.pointerId) this.cancel();
  }

  /** Forgets what is being drawn, moved or resized. */
  cancel() {
    this.drag = null;
    this.draw();
  }

  /** Draws a box in the middle of the view, a quarter of it wide: for the keyboard. */
  drawHere() {
    if (!this.boxes || !this.picture.item) return;
    const { left, top, right, bottom } = this.picture.layer.getBoundingClientRect();
    const centre = { clientX: (left + right) / 2, clientY: (top + bottom) / 2 };
    const [x, y] = this.picture.toImage(centre);
    const reach = Math.max(MIN_SIDE, (right - left) / this.picture.scale / 4) / 2;
    this.#add(boxBetween([x - reach, y - reach], [x + reach, y + reach], this.boxes.size));
    this.draw();
  }

  /** The shape whose label is under the mouse, if any. */
  #labelAt(event) {
    const tag = event.target.closest?.("[data-shape]");
    return tag && this.picture.shapes[tag.dataset.shape];
  }

  #click(event, label) {
    if (label?.proposal) {
      this.accept(label.proposal);
      return;
    }
    if (label?.place) {
      this.boxes.select(label.place.region, label.place.index);
      this.events.onselect();
      return;
    }
    const around = this.boxes.at(this.picture.toImage(event));
    const { selected } = this.boxes;
    const now = around.findIndex(
      ({ region, index }) => selected?.region === region && selected.index === index,
    );
    const next = around[now + 1]; // the innermost first, nothing behind the outermost
    if (next) this.boxes.select(next.region, next.index);
    else this.boxes.select(-1, -1);
    this.events.onselect();
  }

  /** The edges of the selected box whose rim is under the mouse, or null. */
  #edgesAt(event) {
    const box = this.boxes.selectedBox;
    if (!box) return null;
    const [left, top] = this.picture.toScreen([box[0], box[1]]);
    const [right, bottom] = this.picture.toScreen([box[2], box[3]]);
    const { clientX: x, clientY: y } = event;
    if (x < left || x > right || y < top || y > bottom) return null;
    const edges = new Set();
    const side = (value, low, high, first, second) => {
      // The middle half of a small box stays free for drawing.
      const rim = Math.min(GRIP[event.pointerType] ?? GRIP.mouse, (high - low) / 4);
      if (value - low <= rim) edges.add(first);
      else if (high - value <= rim) edges.add(second);
    };
    side(x, left, right, "left", "right");
    side(y, top, bottom, "top", "bottom");
    return edges.size ? edges : null;
  }

  #cursor(event) {
    const pans = this.space || this.hand;
    let cursor = pans ? "grab" : "crosshair";
    const moves = !pans && event.shiftKey && this.boxes.selectedBox;
    const edges = pans || moves ? null : this.#edgesAt(event);
    if (moves) cursor = "move";
    else if (this.#labelAt(event) && !edges && !pans) cursor = "pointer";
    if (edges) {
      const horizontal = edges.has("left") || edges.has("right");
      const vertical = edges.has("top") || edges.has("bottom");
      const falling = (edges.has("left") && edges.has("top")) || (edges.has("right") && edges.has("bottom"));
      if (horizontal && vertical) cursor = falling ? "nwse-resize" : "nesw-resize";
      else cursor = horizontal ? "ew-resize" : "ns-resize";
    }
    this.picture.layer.style.cursor = cursor;
  }

  /** Moves the selected box by whole pixels, or some of its edges. */
  nudge(dx, dy, edges = null) {
    const box = this.boxes?.selectedBox;
    if (!box) return;
    const { size } = this.boxes;
    const next = edges ? resized(box, edges, dx, dy, size) : moved(box, dx, dy, size);
    if (next.join() === box.join()) return;
    this.boxes.replace(next);
    this.draw();
    this.events.onchange();
  }

  /** Highlights another proposal. */
  browse(by) {
    const count = this.offered.length;
    if (!count) return;
    this.highlight = (Math.min(this.highlight, count - 1) + by + count) % count;
    this.draw();
  }

  /** Takes a proposal, the highlighted one if no other is named, as a box of the current region. */
  accept(proposal = this.highlighted) {
    if (!proposal) return;
    this.boxes.accept(proposal);
    this.draw();
    this.events.onchange();
  }

  /** Forgets the highlighted proposal. */
  drop() {
    const { highlighted } = this;
    if (!highlighted) return;
    this.proposals = this.proposals.filter((proposal) => proposal !== highlighted);
    this.draw();
    this.events.ondrop(highlighted);
  }
}
