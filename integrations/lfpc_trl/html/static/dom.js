// Creates elements from data. Texts become text nodes: output of a file or model is never parsed as HTML.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...present(children));
  return node;
}

const present = (children) =>
  children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);

/** An HTML element: el("button", {class: "x", onclick: f}, "text", child). */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** An SVG element. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** The element with this id. */
export function byId(id) {
  return document.getElementById(id);
}

/** Replaces the children of an element. */
export function put(node, ...children) {
  node.replaceChildren(...present(children));
}

/** Whether the keyboard focus is in an input field. */
export function isTyping(target = document.activeElement) {
  return target instanceof HTMLElement && target.matches("input, textarea, select");
}

/** A long list of rows of equal height that keeps only the visible rows in the page. */
export class LongList {
  /**
   * @param {HTMLElement} host the scrolling element
   * @param {number} height height of a row in CSS pixels
   * @param {(index: number) => HTMLElement} make
   */
  constructor(host, height, make) {
    this.host = host;
    this.height = height;
    this.make = make;
    this.count = 0;
    this.space = el("div", { class: "long-list", role: "presentation" });
    host.append(this.space);
    host.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.draw()).observe(host);
  }

  /** Redraws the list with `count` rows. */
  show(count) {
    this.count = count;
    this.draw();
  }

  /** Draws the visible rows. */
  draw() {
    this.space.style.height = `${this.count * this.height}px`;
    const first = Math.max(0, Math.floor(this.host.scrollTop / this.height) - 4);
    const last = Math.min(
      this.count,
      Math.ceil((this.host.scrollTop + this.host.clientHeight) / this.height) + 4,
    );
    const rows = [];
    for (let index = first; index < last; index += 1) {
      const row = this.make(index);
      row.style.top = `${index * this.height}px`;
      rows.push(row);
    }
    this.space.replaceChildren(...rows);
  }

  /** Scrolls until a row is visible. */
  reveal(index) {
    const top = index * this.height;
    const bottom = top + this.height;
    if (top < this.host.scrollTop) this.host.scrollTop = top - this.height;
    else if (bottom > this.host.scrollTop + this.host.clientHeight) {
      this.host.scrollTop = bottom - this.host.clientHeight + this.height;
    }
    this.draw();
  }
}
