// How long somebody works on a row.

const IDLE = 30000; // milliseconds; of a longer pause of hands and eyes no more than this counts

export class Clock {
  constructor() {
    this.spent = 0;
    this.last = performance.now();
    for (const kind of ["pointermove", "pointerdown", "keydown", "wheel"]) {
      addEventListener(kind, () => this.#tick(), { capture: true, passive: true });
    }
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) this.#tick();
      else this.last = performance.now();
    });
  }

  #tick() {
    const now = performance.now();
    this.spent += Math.min(now - this.last, IDLE);
    this.last = now;
  }

  /** The seconds since it was last asked. */
  take() {
    this.#tick();
    const seconds = this.spent / 1000;
    this.spent = 0;
    return seconds;
  }
}
