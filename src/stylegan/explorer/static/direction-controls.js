// Directions in w as sliders, with thumbnails of their ends.

import { pictureOf } from "./state.js";
import { make, row, section, select, slider, button } from "./widgets.js";

const MAX_STRENGTH = 6; // of a slider, in standard deviations of w
const END_STRENGTH = 3; // of the thumbnails
const RESTED_MS = 500; // after which thumbnails are computed
const TITLES = { factorize: "Closed form (SeFa)", pca: "Principal components" };

export function directionControls({ engine, network, store, showError }) {
  if (!engine.abilities.has("directions")) return null;
  const list = make("div", { className: "section-body", style: "padding: 0" });
  const hint = make("p", { className: "hint" });
  const sets = select("Set", [], (name) => open(name));
  const reset = button("Reset all", () => store.change({ edits: [] }));
  const element = section("Directions", {}, sets.element, hint, list, row(reset));
  let name = null; // of the set that is shown
  let rows = [];
  let resting = 0;
  let newest = 0; // number of the last drawing of thumbnails; earlier ones end

  const fill = () => sets.fill(network.direction_sets.map((each, index) => [each, TITLES[each] ?? `Own ${index - 1}: ${each.slice(0, 6)}`]));
  fill();

  async function open(chosen) {
    name = chosen;
    hint.textContent = "Computing…";
    try {
      const { names } = await engine.call("list_directions", { directions: chosen });
      if (name !== chosen) return; // another set was chosen meanwhile
      sets.set(chosen);
      rows = names.map((each, index) => directionRow(store, network, { name, index, label: each }));
      list.replaceChildren(...rows.map((each) => each.element));
      hint.textContent = "";
    } catch (error) {
      hint.textContent = error.message;
    }
    update(store.state);
    drawEnds();
  }

  function update(state) {
    for (const each of rows) each.set(state.edits);
    reset.disabled = state.edits.length === 0;
  }

  async function drawEnds() {
    const mine = ++newest;
    for (const [index, each] of rows.entries()) {
      if (mine !== newest || !element.open) return;
      const state = pictureOf(store.state);
      try {
        const { image } = await engine.call("ends", { state, directions: name, index, strength: END_STRENGTH });
        each.showEnds(image);
      } catch (error) {
        return showError(error);
      }
    }
  }

  element.addEventListener("toggle", () => {
    if (!element.open) return;
    if (name === null) open(network.direction_sets[0]);
    else drawEnds();
  });
  store.subscribe((state) => {
    update(state);
    newest++; // the thumbnails that are being drawn are of an older state
    clearTimeout(resting);
    if (element.open && name !== null) resting = setTimeout(drawEnds, RESTED_MS);
  });

  /** Add a set of directions to the list, and show it. */
  const show = (set) => {
    if (!network.direction_sets.includes(set)) network.direction_sets.push(set);
    fill();
    const opened = open(set); // before the section opens, which shows the first set otherwise
    element.open = true;
    return opened;
  };
  return { element, update, show };
}

function directionRow(store, network, { name, index, label }) {
  const isMine = (edit) => edit.directions === name && edit.index === index;
  const change = (patch, moving) => {
    const before = store.state.edits.find(isMine) ?? { directions: name, index, strength: 0, layers: null };
    const after = { ...before, ...patch };
    const others = store.state.edits.filter((edit) => !isMine(edit));
    const isIdle = after.strength === 0 && after.layers === null;
    store.change({ edits: isIdle ? others : [...others, after] }, moving);
  };
  const strength = slider(label, {
    min: -MAX_STRENGTH, max: MAX_STRENGTH, step: 0.05, initial: 0,
    onChange: (value, moving) => change({ strength: value }, moving),
  });
  const layers = make("select", {
    "aria-label": `layers of ${label}`,
    onchange: () => change({ layers: JSON.parse(layers.value) }),
  });
  layers.append(...layerChoices(network.num_ws).map(([text, value]) => make("option", { value: JSON.stringify(value) }, text)));
  const [lower, upper] = [-1, 1].map((sign) =>
    button("", () => change({ strength: sign * END_STRENGTH }), {
      title: `${label} ${sign * END_STRENGTH}`,
      className: sign > 0 ? "end upper" : "end",
    }),
  );
  const value = make("span", { className: "hint" });
  const element = make(
    "div",
    { className: "direction" },
    make("div", { className: "direction-head" }, make("span", {}, label), value, layers),
    lower,
    strength.element,
    upper,
  );
  let address = null;
  const showEnds = (image) => {
    if (address) URL.revokeObjectURL(address);
    address = URL.createObjectURL(image);
    for (const each of [lower, upper]) each.style.backgroundImage = `url(${address})`;
  };
  const set = (edits) => {
    const mine = edits.find(isMine);
    strength.set(mine?.strength ?? 0);
    value.textContent = mine?.strength ? mine.strength.toFixed(2) : "";
    layers.value = JSON.stringify(mine?.layers ?? null);
  };
  return { element, set, showEnds };
}

/** Return names and style inputs to choose from: ranges of the paper, and each input alone. */
function layerChoices(numWs) {
  const range = (first, end) => Array.from({ length: Math.min(end, numWs) - first }, (_, at) => first + at);
  const choices = [["all layers", null]];
  if (numWs > 1) choices.push(["coarse", range(0, 4)]);
  if (numWs > 4) choices.push(["middle", range(4, 8)]);
  if (numWs > 8) choices.push(["fine", range(8, numWs)]);
  if (numWs > 1) choices.push(...range(0, numWs).map((layer) => [`layer ${layer}`, [layer]]));
  return choices;
}
