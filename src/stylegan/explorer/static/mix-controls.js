// Mixing: other latents for some style inputs, each with an amount for every layer.

import { MAX_SEED, randomSeed } from "./seed-controls.js";
import { button, make, row, section } from "./widgets.js";

const MAX_MIXES = 8;
const RANGES = { Coarse: [0, 4], Middle: [4, 8], Fine: [8, Infinity], All: [0, Infinity] };

export function mixControls(store, network) {
  if (network.num_ws === 1) return null;
  const list = make("div", { className: "section-body", style: "padding: 0" });
  const replaceMix = (index, patch, moving) => {
    const mixes = store.state.mixes.map((mix, at) => (at === index ? { ...mix, ...patch } : mix));
    store.change({ mixes }, moving);
  };
  const remove = (index) =>
    store.change({ mixes: store.state.mixes.filter((_, at) => at !== index) });
  const add = button("Add a latent", () => {
    const mix = { base: { seed: randomSeed() }, amounts: amountsOf("Middle", network.num_ws) };
    store.change({ mixes: [...store.state.mixes, mix] });
  });
  let cards = [];
  const update = ({ mixes }) => {
    if (cards.length !== mixes.length) {
      cards = mixes.map((_, index) => mixCard(index, network.num_ws, replaceMix, remove));
      list.replaceChildren(...cards.map((card) => card.element));
    }
    mixes.forEach((mix, index) => cards[index].set(mix));
    add.disabled = mixes.length >= MAX_MIXES;
  };
  store.subscribe(update);
  return { element: section("Mixing", {}, list, row(add)), update };
}

/** Return the amounts of a named range of style inputs: 1 in it, 0 elsewhere. */
export function amountsOf(name, numWs) {
  const [first, end] = RANGES[name];
  return Array.from({ length: numWs }, (_, layer) => (layer >= first && layer < end ? 1 : 0));
}

function mixCard(index, numWs, replaceMix, remove) {
  const name = `latent ${index + 2}`;
  const change = (seed) =>
    replaceMix(index, { base: { seed: Math.min(MAX_SEED, Math.max(0, Math.round(seed) || 0)) } });
  const field = make("input", { type: "number", min: 0, max: MAX_SEED, "aria-label": `seed of ${name}` });
  field.onchange = () => change(Number(field.value));
  const sliders = Array.from({ length: numWs }, (_, layer) => {
    const range = make("input", {
      type: "range", min: 0, max: 1, step: 0.05, "aria-label": `${name}, layer ${layer}`,
    });
    const give = (isMoving) => () =>
      replaceMix(index, { amounts: sliders.map((each) => Number(each.value)) }, { isMoving });
    range.oninput = give(true);
    range.onchange = give(false);
    return range;
  });
  const ranges = Object.keys(RANGES)
    .filter((range) => RANGES[range][0] < numWs)
    .map((range) => button(range, () => replaceMix(index, { amounts: amountsOf(range, numWs) }), { title: `${range} layers of ${name}` }));
  const element = make(
    "div",
    { className: "card" },
    row(
      field,
      button("Random", () => change(randomSeed()), { title: `random seed of ${name}` }),
      button("✕", () => remove(index), { title: `remove ${name}` }),
    ),
    row(...ranges),
    make(
      "div",
      { className: "layers" },
      ...sliders.map((range, layer) => make("label", {}, range, `${layer}`)),
    ),
  );
  field.style.flex = 1;
  const set = ({ base, amounts }) => {
    field.value = base.saved ? "" : base.seed;
    field.placeholder = base.saved ? "saved latents" : "";
    sliders.forEach((range, layer) => (range.value = amounts[layer] ?? 0));
  };
  return { element, set };
}
