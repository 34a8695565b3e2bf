// Truncation, class, noise and level of detail.

import { randomSeed } from "./seed-controls.js";
import { button, choice, row, section, select, slider } from "./widgets.js";

export function truncationControls(store, network) {
  if (!network.has_truncation) return null;
  const psi = slider("Psi", {
    min: -1, max: 2, step: 0.01, initial: 1,
    onChange: (value, moving) => store.change({ psi: value }, moving),
  });
  const cutoff = slider("Truncated layers", {
    min: 0, max: network.num_ws, step: 1, initial: network.num_ws,
    onChange: (value, moving) =>
      store.change({ cutoff: value === network.num_ws ? null : value }, moving),
  });
  const update = (state) => {
    psi.set(state.psi);
    cutoff.set(state.cutoff ?? network.num_ws);
  };
  store.subscribe(update);
  return { element: section("Truncation", { isOpen: true }, psi.element, cutoff.element), update };
}

export function classControls(store, network) {
  if (network.num_classes === 0) return null;
  const options = Array.from({ length: network.num_classes }, (_, index) => [
    index,
    network.class_names[index] ?? `${index}`,
  ]);
  const list = select("Class", options, (value) => store.change({ class: Number(value) }));
  const update = (state) => list.set(state.class ?? 0);
  store.subscribe(update);
  return { element: section("Class", { isOpen: true }, list.element), update };
}

export function noiseControls(store, network) {
  if (!network.has_noise) return null;
  const change = (patch, moving) => store.change({ noise: { ...store.state.noise, ...patch } }, moving);
  const mode = choice(
    "Noise",
    [["const", "Stored"], ["random", "Random"], ["none", "None"]],
    (value) => change({ mode: value }),
  );
  const strength = slider("Strength", {
    min: 0, max: 4, step: 0.05, initial: 1,
    onChange: (value, moving) => change({ strength: value }, moving),
  });
  const update = ({ noise }) => {
    mode.set(noise.mode);
    strength.set(noise.strength);
  };
  store.subscribe(update);
  const redraw = button("Draw again", () => change({ mode: "random", seed: randomSeed() }));
  return {
    element: section("Noise", {}, mode.element, strength.element, row(redraw)),
    update,
  };
}

export function lodControls(store, network) {
  if (network.max_lod === 0) return null;
  const lod = slider("Level of detail", {
    min: 0, max: network.max_lod, step: 0.05, initial: network.lod,
    onChange: (value, moving) => store.change({ lod: value }, moving),
  });
  const update = (state) => lod.set(state.lod ?? network.lod);
  store.subscribe(update);
  return { element: section("Growing", {}, lod.element), update };
}
