// The state of the page: in one object, in the address, with undo and redo.

/** The state of a picture, as the server reads it, and the timeline. */
export const DEFAULT = deepFreeze({
  base: { seed: 0, saved: null },
  walk: { space: "w", plane: 0, x: 0, y: 0 },
  psi: 1,
  cutoff: null,
  class: null,
  noise: { mode: "const", seed: 0, strength: 1 },
  lod: null,
  mixes: [],
  edits: [],
  timeline: { keys: [], seconds: 1.5, easing: "in-out", loop: true },
});

const MAX_UNDO = 500;

/** Return the part of the page's state that a picture depends on. */
export function pictureOf(state) {
  const { timeline, ...picture } = state;
  return picture;
}

/** Return a state for the address: only what differs from the default. */
export function encode(state) {
  const changed = differences(state, DEFAULT);
  return changed === undefined ? "" : encodeURIComponent(JSON.stringify(changed));
}

/** Return the state of an address; the default if it cannot be read. */
export function decode(text) {
  try {
    return withDefaults(JSON.parse(decodeURIComponent(text.replace(/^#/, ""))), DEFAULT);
  } catch {
    return DEFAULT;
  }
}

/** Return an object with the missing keys of `defaults`, and without unknown ones. */
export function withDefaults(value, defaults = DEFAULT) {
  if (!isObject(value)) return defaults;
  const keys = Object.keys(defaults).map((key) => {
    if (value[key] === undefined) return [key, defaults[key]];
    return [key, isObject(defaults[key]) ? withDefaults(value[key], defaults[key]) : value[key]];
  });
  return deepFreeze(Object.fromEntries(keys));
}

function differences(value, defaults) {
  if (!isObject(value) || !isObject(defaults)) {
    return JSON.stringify(value) === JSON.stringify(defaults) ? undefined : value;
  }
  const changed = Object.keys(value)
    .map((key) => [key, differences(value[key], defaults[key])])
    .filter(([, difference]) => difference !== undefined);
  return changed.length ? Object.fromEntries(changed) : undefined;
}

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function deepFreeze(value) {
  if (typeof value === "object" && value !== null) Object.values(value).forEach(deepFreeze);
  return Object.freeze(value);
}

/** Holds the state, tells its listeners about changes, and keeps it in the address. */
export class Store {
  #state;
  #committed;
  #undo = [];
  #redo = [];
  #listeners = [];

  constructor(state) {
    this.#state = state;
    this.#committed = state;
  }

  get state() {
    return this.#state;
  }

  get canUndo() {
    return this.#undo.length > 0;
  }

  get canRedo() {
    return this.#redo.length > 0;
  }

  /** Call `listener(state, {isMoving})` after each change. */
  subscribe(listener) {
    this.#listeners.push(listener);
  }

  /**
   * Replace some keys of the state. While a control moves, `isMoving` is set; the movement becomes
   * one step of undo with the last change, for which it is not set.
   */
  change(patch, { isMoving = false } = {}) {
    this.#state = withDefaults({ ...this.#state, ...patch });
    if (!isMoving) this.#commit();
    this.#notify(isMoving);
  }

  undo() {
    this.#travel(this.#undo, this.#redo);
  }

  redo() {
    this.#travel(this.#redo, this.#undo);
  }

  #commit() {
    if (encode(this.#state) === encode(this.#committed)) return;
    this.#undo.push(this.#committed);
    if (this.#undo.length > MAX_UNDO) this.#undo.shift();
    this.#redo = [];
    this.#committed = this.#state;
  }

  #travel(from, to) {
    if (!from.length) return;
    to.push(this.#committed);
    this.#committed = this.#state = from.pop();
    this.#notify(false);
  }

  #notify(isMoving) {
    if (!isMoving) history.replaceState(null, "", `#${encode(this.#state)}`);
    for (const listener of this.#listeners) listener(this.#state, { isMoving });
  }
}
