// The way back over every edit of one row: boxes, texts, choices, the mark that no boxes are needed.

const PAUSE = 1000; // milliseconds; typing in one field without such a pause is one step
const LONGEST = 200; // steps

export class History {
  /** @param {object} state what the row is like; never changed afterwards */
  constructor(state) {
    this.states = [state];
    this.at = 0;
    this.field = null; // in which the last step was typed
    this.time = 0;
  }

  get now() {
    return this.states[this.at];
  }

  get canUndo() {
    return this.at > 0;
  }

  get canRedo() {
    return this.at + 1 < this.states.length;
  }

  /** Takes a state as the next one. `field` names where it was typed, null for what is a step by itself. */
  record(state, field = null) {
    if (JSON.stringify(state) === JSON.stringify(this.now)) return;
    const time = performance.now();
    const goesOn = field !== null && field === this.field && time - this.time < PAUSE;
    this.states.length = this.at + (goesOn ? 0 : 1);
    this.states.push(state);
    if (this.states.length > LONGEST) this.states.shift();
    this.at = this.states.length - 1;
    [this.field, this.time] = [field, time];
  }

  /** The state before this one, or null. */
  undo() {
    return this.#go(-1);
  }

  /** The state that was taken back last, or null. */
  redo() {
    return this.#go(1);
  }

  #go(by) {
    if (!this.states[this.at + by]) return null;
    this.at += by;
    this.field = null;
    return this.now;
  }
}
