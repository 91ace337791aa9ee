// The boxes of one row while they are edited: regions of nested boxes, inner to outer, in whole pixels of the original.
// What is checked here colours the boxes while the mouse still moves. The server has the last word, and refuses at least as much.

export const MIN_SIDE = 8; // pixels; the crop tool refuses smaller boxes
const MAX_ASPECT = 100; // and longer ones

const isSame = (box, other) => box.join() === other.join();

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

/** What a box breaks beside the other boxes of its picture, in a few words, or null. */
export function hint(regions, number, index) {
  const box = regions[number][index];
  const twin = placesOf(regions).find(
    ({ region, index: at }) => !(region === number && at === index) && isSame(regions[region][at], box),
  );
  if (twin) return `is equal to ${twin.region === number ? "" : `${twin.region + 1}·`}B${twin.index + 1}`;
  const order = inOrder(regions[number]);
  const at = order.indexOf(box);
  if (at > 0 && !contains(box, order[at - 1])) return `does not contain B${at}`;
  if (at + 1 < order.length && !contains(order[at + 1], box)) return `is not inside B${at + 2}`;
  return fault(box);
}

/** Inner to outer. Nested boxes have one order only, that of their areas. */
export function inOrder(region) {
  return [...region].sort((a, b) => area(a) - area(b));
}

const placesOf = (regions) =>
  regions.flatMap((boxes, region) => boxes.map((_, index) => ({ region, index })));

/**
 * What the boxes of a picture began as, where a model had proposed them: `{by, box}`. Boxes are known by their numbers, and
 * nothing is forgotten, so that what is undone and done again is known again.
 */
export class Origins {
  constructor() {
    this.known = new Map();
  }

  of(box) {
    return this.known.get(box.join()) ?? null;
  }

  set(box, origin) {
    this.known.set(box.join(), origin);
  }

  /** `after` is what became of `before`. */
  follow(before, after) {
    const origin = this.of(before);
    if (origin) this.set(after, origin);
  }
}

/** The regions of one row, and what is selected. */
export class Boxes {
  constructor(regions, size, origins = new Origins()) {
    this.size = size;
    this.origins = origins;
    this.regions = regions.map(inOrder);
    this.region = Math.max(0, this.regions.length - 1); // where the next box goes; may be one past the last
    this.selected = null; // {region, index}
  }

  /** Other regions in place of these. The selected box stays selected; if it is another one now, the one in its place. */
  put(regions) {
    const { selected, selectedBox } = this;
    const isAsMany = regions.flat().length === this.regions.flat().length;
    const inPlace = isAsMany ? regions[selected?.region]?.[selected?.index] : null;
    this.#take(regions, regions.flat().find((box) => selectedBox && isSame(box, selectedBox)) ?? inPlace);
  }

  /** The first thing that is wrong with any box, in a few words, or null. */
  get fault() {
    for (const { region, index } of placesOf(this.regions)) {
      const wrong = hint(this.regions, region, index);
      if (wrong) return `B${index + 1} ${/^(does|is) /.test(wrong) ? wrong : `is ${wrong}`}`;
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
    this.origins.follow(this.selectedBox, box);
    this.change((regions) => {
      regions[region][index] = box;
      return box;
    });
  }

  /** Takes a proposal, `{box, by}`, as a box of the current region. */
  accept({ box, by }) {
    this.origins.set(box, { by, box });
    this.add([...box]);
  }

  /** Whether a proposal is a box of the picture already, or became one that was changed since. */
  has(proposal) {
    return this.regions.flat().some((box) => {
      const origin = this.origins.of(box);
      return isSame(box, proposal.box) || (origin?.by === proposal.by && isSame(origin.box, proposal.box));
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
        const larger = [
          Math.min(box[0], inner[0]),
          Math.min(box[1], inner[1]),
          Math.max(box[2], inner[2]),
          Math.max(box[3], inner[3]),
        ];
        this.origins.follow(box, larger);
        grown.push(larger);
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
