// The boxes of one row while they are edited: regions of nested boxes, inner to outer, in whole pixels of the original.
// What is checked here colours the boxes while the mouse still moves. The server has the last word, and refuses at least as much.

export const MIN_SIDE = 8; // pixels; the crop tool refuses smaller boxes
const MAX_ASPECT = 100; // and longer ones

const area = ([x1, y1, x2, y2]) => (x2 - x1) * (y2 - y1);

export const contains = (outer, inner) =>
  outer[0] <= inner[0] && outer[1] <= inner[1] && outer[2] >= inner[2] && outer[3] >= inner[3];

/** A box from two opposite corners, in whole pixels, inside the picture. */
export function boxBetween([ax, ay], [bx, by], [width, height]) {
  const clamp = (value, limit) => Math.min(Math.max(Math.round(value), 0), limit);
  const [x1, x2] = [clamp(ax, width), clamp(bx, width)].sort((a, b) => a - b);
  const [y1, y2] = [clamp(ay, height), clamp(by, height)].sort((a, b) => a - b);
  return [x1, y1, x2, y2];
}

/** A box moved as a whole, stopped by the borders of the picture. */
export function moved([x1, y1, x2, y2], dx, dy, [width, height]) {
  const x = Math.min(Math.max(Math.round(dx), -x1), width - x2);
  const y = Math.min(Math.max(Math.round(dy), -y1), height - y2);
  return [x1 + x, y1 + y, x2 + x, y2 + y];
}

/**
 * A box with some of its edges moved; `edges` is a set of "left", "top", "right", "bottom".
 * No edge comes nearer to its opposite than the crop tool allows; where it is nearer already, it may only move away.
 */
export function resized([x1, y1, x2, y2], edges, dx, dy, [width, height]) {
  const within = (value, low, high) => Math.min(Math.max(Math.round(value), low), high);
  return [
    edges.has("left") ? within(x1 + dx, 0, Math.max(0, x2 - MIN_SIDE)) : x1,
    edges.has("top") ? within(y1 + dy, 0, Math.max(0, y2 - MIN_SIDE)) : y1,
    edges.has("right") ? within(x2 + dx, Math.min(width, x1 + MIN_SIDE), width) : x2,
    edges.has("bottom") ? within(y2 + dy, Math.min(height, y1 + MIN_SIDE), height) : y2,
  ];
}

/** What is wrong with a box by itself, in a few words, or null. */
export function fault([x1, y1, x2, y2]) {
  if (x1 >= x2 || y1 >= y2) return "empty";
  // The crop tool rounds outwards.
  const cut = [Math.ceil(x2) - Math.floor(x1), Math.ceil(y2) - Math.floor(y1)];
  if (Math.min(...cut) < MIN_SIDE) return `thinner than ${MIN_SIDE} px`;
  const isLong = (sides) => Math.max(...sides) > MAX_ASPECT * Math.min(...sides);
  if (isLong(cut) || isLong([x2 - x1, y2 - y1])) return `longer than ${MAX_ASPECT} times its width`;
  return null;
}

/** What a box breaks beside its neighbours in the region, in a few words, or null. */
export function hint(region, index) {
  const box = region[index];
  const order = inOrder(region);
  const at = order.indexOf(box);
  if (at > 0 && !contains(box, order[at - 1])) return `does not contain B${at}`;
  if (at + 1 < order.length && !contains(order[at + 1], box)) return `is not inside B${at + 2}`;
  return fault(box);
}

/** Inner to outer. Nested boxes have one order only, that of their areas. */
export function inOrder(region) {
  return [...region].sort((a, b) => area(a) - area(b));
}

/** The regions of one row, and what is selected. */
export class Boxes {
  constructor(regions, size) {
    this.size = size;
    this.regions = regions.map(inOrder);
    this.region = Math.max(0, this.regions.length - 1); // where the next box goes; may be one past the last
    this.selected = null; // {region, index}
  }

  /** Other regions in place of these. The selected box stays selected; if it is another one now, the one in its place. */
  put(regions) {
    const { selected, selectedBox } = this;
    const isSame = (box) => box.join() === selectedBox?.join();
    const isAsMany = regions.flat().length === this.regions.flat().length;
    const inPlace = isAsMany ? regions[selected?.region]?.[selected?.index] : null;
    this.#take(regions, regions.flat().find(isSame) ?? inPlace);
  }

  /** The first thing that is wrong with any box, in a few words, or null. */
  get fault() {
    for (const region of this.regions) {
      for (const index of region.keys()) {
        const wrong = hint(region, index);
        if (wrong) return `B${index + 1} ${/^(does|is) /.test(wrong) ? wrong : `is ${wrong}`}`;
      }
    }
    return null;
  }

  get selectedBox() {
    return this.selected && this.regions[this.selected.region]?.[this.selected.index];
  }

  select(region, index) {
    this.selected = this.regions[region]?.[index] ? { region, index } : null;
    if (this.selected) this.region = region;
  }

  /** Makes a change: `edit` gets a copy of the regions, and may name the box that is selected afterwards. */
  change(edit) {
    const regions = this.regions.map((region) => [...region]);
    this.#take(regions, edit(regions));
  }

  #take(regions, box) {
    this.regions = regions.filter((region) => region.length).map(inOrder);
    this.selected = null;
    if (box) {
      const region = this.regions.findIndex((each) => each.includes(box));
      if (region >= 0) this.select(region, this.regions[region].indexOf(box));
    }
    this.region = Math.min(this.region, this.regions.length);
  }

  add(box) {
    this.change((regions) => {
      if (!regions[this.region]) regions.push([]);
      this.region = Math.min(this.region, regions.length - 1);
      regions[this.region].push(box);
      return box;
    });
  }

  /** Puts `box` in the place of the selected one. */
  replace(box) {
    const { region, index } = this.selected;
    this.change((regions) => {
      regions[region][index] = box;
      return box;
    });
  }

  remove() {
    if (!this.selected) return;
    const { region, index } = this.selected;
    this.change((regions) => void regions[region].splice(index, 1));
  }

  /** Moves the selected box into a region of its own. */
  split() {
    if (!this.selected) return;
    const { region, index } = this.selected;
    this.change((regions) => {
      const [box] = regions[region].splice(index, 1);
      regions.push([box]);
      return box;
    });
  }

  /** Grows every outer box until it holds the one inside it. */
  grow() {
    const regions = this.regions.map((region) => {
      const grown = [];
      for (const box of inOrder(region)) {
        const inner = grown.at(-1) ?? box;
        grown.push([
          Math.min(box[0], inner[0]),
          Math.min(box[1], inner[1]),
          Math.max(box[2], inner[2]),
          Math.max(box[3], inner[3]),
        ]);
      }
      return grown;
    });
    if (JSON.stringify(regions) === JSON.stringify(this.regions)) return;
    const kept = this.selected;
    this.change((copy) => void copy.splice(0, copy.length, ...regions));
    if (kept) this.select(kept.region, kept.index);
  }

  /** The boxes around a point, innermost first, as {region, index}. */
  at([x, y]) {
    const found = [];
    this.regions.forEach((region, number) =>
      region.forEach((box, index) => {
        if (x >= box[0] && x <= box[2] && y >= box[1] && y <= box[3])
          found.push({ region: number, index, area: area(box) });
      }),
    );
    return found.sort((a, b) => a.area - b.area);
  }

  /** Selects the next box of all, or the one before it. */
  step(by) {
    const all = this.regions.flatMap((region, number) => region.map((_, index) => [number, index]));
    if (!all.length) return;
    const now = this.selected
      ? all.findIndex(([r, i]) => r === this.selected.region && i === this.selected.index)
      : by > 0
        ? -1
        : 0;
    this.select(...all[(now + by + all.length) % all.length]);
  }
}
