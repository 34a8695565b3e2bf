// Seeds, and the pad on which dragging walks in a plane of latents.

import { button, choice, make, row, section } from "./widgets.js";

export const MAX_SEED = 2 ** 32 - 1;
const MAX_STEPS = 10;
const PAD_STEPS = 2; // from the middle of the pad to its border

export function randomSeed() {
  return crypto.getRandomValues(new Uint32Array(1))[0] % 1_000_000;
}

/** Show another seed, at the middle of the plane. */
export function changeSeed(store, seed) {
  const { walk } = store.state;
  store.change({
    base: { seed: Math.min(MAX_SEED, Math.max(0, Math.round(seed) || 0)), saved: null },
    walk: { ...walk, x: 0, y: 0 },
  });
}

export function seedControls(store, network) {
  const field = make("input", { type: "number", min: 0, max: MAX_SEED, id: "seed" });
  field.onchange = () => changeSeed(store, Number(field.value));
  const step = (by) => () => changeSeed(store, store.state.base.seed + by);
  const pad = walkPad(store);
  const space = choice(
    "Plane in",
    [["z", "z", "latents before the mapping"], ["w", "w", "latents after the mapping"]],
    (value) => store.change({ walk: { ...store.state.walk, space: value } }),
  );
  const saved = make("p", { className: "hint" });
  const update = ({ base, walk }) => {
    field.value = base.seed;
    pad.set(walk);
    space.set(walk.space);
    saved.textContent = base.saved ? "Saved latents are shown; a seed replaces them." : "";
  };
  store.subscribe(update);
  const element = section(
    "Seed",
    { isOpen: true },
    row(
      make("label", { htmlFor: "seed" }, "Seed"),
      button("−", step(-1), { title: "previous seed" }),
      field,
      button("+", step(1), { title: "next seed" }),
      button("Random", () => changeSeed(store, randomSeed()), { title: "random seed", className: "primary" }),
    ),
    saved,
    pad.element,
    row(
      ...(network.has_truncation ? [space.element] : []),
      button("Other plane", () =>
        store.change({ walk: { ...store.state.walk, plane: randomSeed(), x: 0, y: 0 } }),
      ),
      button("Center", () => store.change({ walk: { ...store.state.walk, x: 0, y: 0 } })),
    ),
  );
  return { element, update };
}

/** Return the state of a walk after a movement of the pointer, in steps. */
export function walked(walk, dx, dy) {
  const bounded = (value) => Math.max(-MAX_STEPS, Math.min(MAX_STEPS, value));
  return { ...walk, x: bounded(walk.x + dx), y: bounded(walk.y + dy) };
}

/** Let dragging an element walk in the plane, and arrow keys step in it. */
export function walkOn(element, store, { stepsPerWidth, isActive = () => true }) {
  let start = null;
  element.addEventListener("pointerdown", (event) => {
    if (!isActive() || event.button !== 0) return;
    element.setPointerCapture(event.pointerId);
    start = { x: event.clientX, y: event.clientY, walk: store.state.walk };
  });
  const move = (event, isMoving) => {
    if (!start) return;
    const scale = stepsPerWidth / element.clientWidth;
    const dx = (event.clientX - start.x) * scale;
    const dy = (event.clientY - start.y) * scale;
    if (!isMoving) start = { ...start, isOver: true };
    store.change({ walk: walked(start.walk, dx, dy) }, { isMoving });
  };
  element.addEventListener("pointermove", (event) => move(event, true));
  for (const end of ["pointerup", "pointercancel"]) {
    element.addEventListener(end, (event) => {
      move(event, false);
      start = null;
    });
  }
  element.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (!isActive() || !steps[event.key]) return;
    event.preventDefault();
    const [dx, dy] = steps[event.key].map((step) => step * (event.shiftKey ? 0.5 : 0.1));
    store.change({ walk: walked(store.state.walk, dx, dy) });
  });
}

function walkPad(store) {
  const dot = make("span", { className: "pad-dot" });
  const element = make(
    "div",
    {
      className: "pad",
      tabIndex: 0,
      role: "slider",
      "aria-label": "Walk in a plane of latents: drag, or use the arrow keys",
      "aria-valuemin": -MAX_STEPS,
      "aria-valuemax": MAX_STEPS,
    },
    dot,
  );
  walkOn(element, store, { stepsPerWidth: 2 * PAD_STEPS });
  const set = ({ x, y }) => {
    const place = (value) => `${50 + (50 * Math.max(-PAD_STEPS, Math.min(PAD_STEPS, value))) / PAD_STEPS}%`;
    dot.style.left = place(x);
    dot.style.top = place(y);
    element.setAttribute("aria-valuenow", x.toFixed(2));
    element.setAttribute("aria-valuetext", `x ${x.toFixed(2)}, y ${y.toFixed(2)}`);
  };
  return { element, set };
}
