// A picture of any size with boxes on top. OpenSeadragon shows tiles cut by the server; boxes are SVG in screen
// pixels, so that their lines stay thin and sharp at every zoom. All coordinates are pixels of the original.

import { svg } from "./dom.js";

const TILE = 512;
const REST = 120; // milliseconds without movement
const { OpenSeadragon } = window;

/** The tile source of a picture. Level 0 is the original on the server; OpenSeadragon counts the other way. */
export function tileSource({ number, size, state }) {
  const finest = Math.ceil(Math.log2(Math.max(...size)));
  const coarsest = Math.max(0, finest - Math.max(0, Math.ceil(Math.log2(Math.max(...size) / TILE))));
  return {
    width: size[0],
    height: size[1],
    tileSize: TILE,
    minLevel: coarsest,
    maxLevel: finest,
    getTileUrl: (level, x, y) => `/tiles/${number}/${finest - level}/${x}/${y}?${state}`,
  };
}

/** The address of the coarsest tile; requesting it makes the server read the picture. */
export function coarsestTile(picture) {
  const source = tileSource(picture);
  return source.getTileUrl(source.minLevel, 0, 0);
}

export class Picture {
  /**
   * @param {HTMLElement} host
   * @param {{onmove?: (scale: number) => void, pan?: boolean}} options `pan`: whether dragging moves the picture
   */
  constructor(host, { onmove = () => {}, pan = true } = {}) {
    this.onmove = onmove;
    this.shapes = [];
    this.size = [1, 1];
    this.view = ""; // its last position and scale
    this.resting = 0;
    this.turned = 0; // how far the wheel was turned since the last frame
    this.viewer = new OpenSeadragon.Viewer({
      element: host,
      drawer: "canvas",
      showNavigationControl: false,
      animationTime: 0.25,
      springStiffness: 12,
      blendTime: 0,
      minScrollDeltaTime: -1, // handle every wheel event
      maxZoomPixelRatio: 32,
      minZoomImageRatio: 0.5,
      visibilityRatio: 0.4,
      constrainDuringPan: true,
      imageLoaderLimit: 4,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: false, dragToPan: pan, scrollToZoom: true },
      gestureSettingsPen: { clickToZoom: false, dblClickToZoom: false, dragToPan: pan },
    });
    this.viewer.addHandler("canvas-key", (event) => {
      event.preventDefaultAction = true; // the page handles keys itself
    });
    this.viewer.addHandler("canvas-scroll", (event) => {
      // Zoom at once and around the mouse: animating each wheel event drifts away from the mouse position.
      event.preventDefaultAction = true;
      event.preventDefault = true;
      this.#turn(event.position, wheelPixels(event.originalEvent));
    });
    this.layer = svg("svg", { class: "boxes", "aria-hidden": "true" });
    this.viewer.canvas.append(this.layer);
    this.viewer.addHandler("update-viewport", () => this.#moved());
    this.viewer.addHandler("resize", () => this.#moved());
  }

  /** Opens a picture, `{number, size, state}`; resolves when it can be zoomed. */
  open(picture) {
    this.size = picture.size;
    return new Promise((resolve, reject) => {
      this.viewer.addOnceHandler("open", resolve);
      this.viewer.addOnceHandler("open-failed", (event) => reject(new Error(event.message)));
      this.viewer.open(tileSource(picture));
    });
  }

  /** Opens a small picture from one file, scaled to the size of the original. */
  openFile(url, size) {
    this.size = size;
    return new Promise((resolve, reject) => {
      this.viewer.addOnceHandler("open", resolve);
      this.viewer.addOnceHandler("open-failed", (event) => reject(new Error(event.message)));
      this.viewer.open({ type: "image", url, buildPyramid: false });
    });
  }

  close() {
    this.viewer.close();
    this.draw([]);
  }

  get item() {
    return this.viewer.world.getItemAt(0);
  }

  /** Screen pixels per pixel of the original, and the screen position of its corner. */
  #transform() {
    const bounds = this.item.getBounds(true);
    const corner = this.viewer.viewport.pixelFromPoint(bounds.getTopLeft(), true);
    const opposite = this.viewer.viewport.pixelFromPoint(bounds.getBottomRight(), true);
    return { x: corner.x, y: corner.y, scale: (opposite.x - corner.x) / this.size[0] };
  }

  /** Screen pixels per pixel of the original. */
  get scale() {
    return this.item ? this.#transform().scale : 1;
  }

  /** Converts the screen position of an event to pixels of the original. */
  toImage(event) {
    const frame = this.layer.getBoundingClientRect();
    const { x, y, scale } = this.#transform();
    return [(event.clientX - frame.left - x) / scale, (event.clientY - frame.top - y) / scale];
  }

  /** Converts a point of the original to CSS pixels of the window. */
  toScreen([left, top]) {
    const frame = this.layer.getBoundingClientRect();
    const { x, y, scale } = this.#transform();
    return [frame.left + x + left * scale, frame.top + y + top * scale];
  }

  fit() {
    this.viewer.viewport.goHome();
  }

  /** Zooms and pans so that a box fills about half of the view. */
  show([x1, y1, x2, y2]) {
    const view = this.layer.getBoundingClientRect();
    const scale = Math.min(view.width / (x2 - x1), view.height / (y2 - y1)) / 2;
    this.#zoomTo(Math.min(scale, 16), [(x1 + x2) / 2, (y1 + y2) / 2]);
  }

  zoomBy(factor) {
    this.viewer.viewport.zoomBy(factor);
    this.viewer.viewport.applyConstraints();
  }

  /** Takes a turn of the wheel. All turns between two frames are one zoom: a fast wheel turns more often than a screen shows. */
  #turn(position, pixels) {
    const isFirst = this.turned === 0;
    this.turned += pixels;
    if (!isFirst) return;
    requestAnimationFrame(() => {
      this.#zoomAround(position, 1.0015 ** -this.turned);
      this.turned = 0;
    });
  }

  #zoomAround(position, factor) {
    if (!this.item) return;
    const { viewport } = this.viewer;
    viewport.zoomBy(factor, viewport.pointFromPixel(position, true), true);
    viewport.applyConstraints(true);
  }

  /** Shows one pixel of the original per screen pixel. */
  actualSize() {
    this.#zoomTo(1);
  }

  #zoomTo(scale, centre) {
    if (!this.item) return; // still loading
    const { viewport } = this.viewer;
    const bounds = this.item.getBounds(true);
    const unit = bounds.width / this.size[0];
    if (centre)
      viewport.panTo(new OpenSeadragon.Point(bounds.x + centre[0] * unit, bounds.y + centre[1] * unit));
    const shownWidth = viewport.getContainerSize().x / scale;
    viewport.zoomTo(1 / (shownWidth * unit));
    viewport.applyConstraints();
  }

  /** Moves and zooms with two fingers, keeping the points under them. Each argument is two points, `{clientX, clientY}`. */
  pinch(before, after) {
    if (!this.item) return;
    const middle = ([a, b]) => ({ clientX: (a.clientX + b.clientX) / 2, clientY: (a.clientY + b.clientY) / 2 });
    const apart = ([a, b]) => Math.max(1, Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY));
    const anchor = this.toImage(middle(before));
    const { viewport } = this.viewer;
    viewport.zoomBy(apart(after) / apart(before), null, true);
    viewport.applyConstraints(true);
    const [x, y] = this.toScreen(anchor);
    const target = middle(after);
    this.panBy(target.clientX - x, target.clientY - y);
  }

  /** Moves the picture by screen pixels. */
  panBy(dx, dy) {
    const { viewport } = this.viewer;
    viewport.panBy(viewport.deltaPointsFromPixels(new OpenSeadragon.Point(-dx, -dy), true), true);
    viewport.applyConstraints(true);
  }

  /**
   * Replaces the shown boxes.
   * @param {{box: number[], kind: string, label?: string, small?: string, handles?: boolean}[]} shapes `kind`: classes of the
   *   box; `small: "bare"`: no label if it is small on the screen
   */
  draw(shapes) {
    this.shapes = shapes;
    if (this.item) this.#redraw();
    else this.layer.replaceChildren();
  }

  #moved() {
    if (!this.item) return;
    this.#redraw();
    const { x, y, scale } = this.#transform();
    const view = `${x} ${y} ${scale}`;
    if (view !== this.view) {
      this.view = view;
      // Smoothing takes half a frame without a graphics card, so it waits until the picture is at rest.
      this.viewer.drawer.setImageSmoothingEnabled(false);
      clearTimeout(this.resting);
      // Zoomed in, show the original's pixels; zoomed out, smooth the picture.
      if (scale < 2) this.resting = setTimeout(() => this.viewer.drawer?.setImageSmoothingEnabled(true), REST);
    }
    this.onmove(scale);
  }

  #redraw() {
    const { x, y, scale } = this.#transform();
    this.layer.replaceChildren(
      ...this.shapes.map((shape, index) => {
        const [left, top] = [x + shape.box[0] * scale, y + shape.box[1] * scale];
        const [width, height] = [
          (shape.box[2] - shape.box[0]) * scale,
          (shape.box[3] - shape.box[1]) * scale,
        ];
        const area = { x: left, y: top, width: Math.max(width, 0), height: Math.max(height, 0) };
        const group = svg(
          "g",
          { class: `box ${shape.kind}` },
          svg("rect", { class: "halo", ...area }),
          svg("rect", { class: "line", ...area }),
        );
        // Labels of neighbors would cover a box that is small on the screen.
        if (shape.label && !(shape.small === "bare" && width < 40))
          group.append(tag(shape.label, index, left, top));
        if (shape.handles) group.append(...handles(left, top, width, height));
        return group;
      }),
    );
  }
}

function wheelPixels(event) {
  return event.deltaY * (event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 30 : 1);
}

function tag(label, index, left, top) {
  const width = 8 + label.length * 7.2;
  return svg(
    "g",
    { class: "tag", "data-shape": index, transform: `translate(${left}, ${Math.max(top, 17) - 17})` },
    svg("rect", { width, height: 17, rx: 3 }),
    svg("text", { x: width / 2, y: 12.5, "text-anchor": "middle" }, label),
  );
}

/** The handles on the edge of a box, drawn inside it like the edge. */
function handles(left, top, width, height) {
  const side = Math.min(8, width / 4, height / 4);
  const places = [
    [0, 0],
    [0.5, 0],
    [1, 0],
    [0, 0.5],
    [1, 0.5],
    [0, 1],
    [0.5, 1],
    [1, 1],
  ];
  return places.map(([h, v]) =>
    svg("rect", {
      class: "handle",
      x: left + h * (width - side),
      y: top + v * (height - side),
      width: side,
      height: side,
      rx: 1.5,
    }),
  );
}
