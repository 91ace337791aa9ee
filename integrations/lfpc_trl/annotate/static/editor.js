// Drawing with mouse, pen and fingers: from their events to changes of `Boxes`.
//
// Drag draws, whatever lies below: the inner box of a sign is drawn inside the outer one. A click selects, again for the next
// box outwards. The rim of the selected box, on its inner side, resizes it, its label moves it: outside a box, drawing wins.
// Space, another button or the hand moves the picture; so do two fingers, which zoom too.

import { MIN_SIDE, boxBetween, fault, hint, moved, resized } from "./boxes.js";

const GRIP = { mouse: 7, pen: 7, touch: 16 }; // how far the rim reaches into a box, in CSS pixels
const CLICK = 4; // how far a click may wander, in CSS pixels

const placeOf = ({ clientX, clientY }) => ({ clientX, clientY });

export const HUES = 6; // regions have colours of their own, again after so many

export class Editor {
  /**
   * @param {import("/static/shared/picture.js").Picture} picture
   * @param {{onchange: () => void, onselect: () => void, onrefuse: (reason: string) => void,
   *   onpoint: (point: number[] | null, box: number[] | null) => void}} events
   */
  constructor(picture, events) {
    this.picture = picture;
    this.events = events;
    this.boxes = null;
    this.suggestions = [];
    this.suggestion = -1;
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
  edit(boxes, suggestions) {
    this.boxes = boxes;
    this.suggestions = suggestions;
    this.suggestion = suggestions.length ? 0 : -1;
    this.drag = null;
    this.draw();
  }

  draw() {
    if (!this.boxes) return;
    const shapes = this.suggestions.map((box) => ({ box, kind: "suggestion" }));
    // The current one above the others.
    shapes.push(
      ...shapes
        .splice(this.suggestion, this.suggestion < 0 ? 0 : 1)
        .map(({ box }) => ({ box, kind: "suggestion current", label: "A accepts" })),
    );
    const { selected } = this.boxes;
    const live = this.drag?.box;
    this.boxes.regions.forEach((region, number) => {
      const changed = live && this.drag.kind !== "draw" && selected?.region === number ? selected.index : -1;
      const shown = region.map((box, index) => (index === changed ? live : box));
      // Outer boxes first: the inner one's line stays on top.
      [...shown.keys()].reverse().forEach((index) => {
        const isSelected = selected?.region === number && selected.index === index;
        shapes.push({
          box: shown[index],
          kind: `hue-${number % HUES}${hint(shown, index) ? " bad" : ""}${isSelected ? " selected" : ""}`,
          label: `${this.boxes.regions.length > 1 ? `${number + 1}·` : ""}B${index + 1}`,
          handles: isSelected,
          place: { region: number, index },
        });
      });
    });
    if (live && this.drag.kind === "draw") {
      const region = [...(this.boxes.regions[this.boxes.region] ?? []), live];
      const bad = hint(region, region.length - 1) ? " bad" : "";
      shapes.push({ box: live, kind: `hue-${this.boxes.region % HUES} drawing${bad}` });
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
    const tag = event.target.closest?.("[data-shape]");
    const edges = this.#edgesAt(event);
    if (event.button !== 0 || this.space || this.hand) this.drag.kind = "pan";
    else if (edges) Object.assign(this.drag, { kind: "resize", edges, before: this.boxes.selectedBox });
    else if (tag && this.picture.shapes[tag.dataset.shape]?.place) {
      const { region, index } = this.picture.shapes[tag.dataset.shape].place;
      this.boxes.select(region, index);
      Object.assign(this.drag, { kind: "move", before: this.boxes.selectedBox });
      this.events.onselect();
    } else this.drag.kind = "draw";
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
      if (drag.kind !== "move") this.#click(event); // on its label a box is selected already
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

  #click(event) {
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
    const edges = pans ? null : this.#edgesAt(event);
    if (event.target.closest?.("[data-shape]") && !edges && !pans) cursor = "move";
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

  /** Makes another suggestion the current one. */
  browse(by) {
    if (!this.suggestions.length) return;
    this.suggestion = (this.suggestion + by + this.suggestions.length) % this.suggestions.length;
    this.draw();
  }

  /** Takes the current suggestion as a box of the current region. */
  accept() {
    const box = this.suggestions[this.suggestion];
    if (!box || !this.boxes) return;
    this.suggestions = this.suggestions.filter((each) => each !== box);
    this.suggestion = Math.min(this.suggestion, this.suggestions.length - 1);
    this.boxes.add([...box]);
    this.draw();
    this.events.onchange();
  }
}
