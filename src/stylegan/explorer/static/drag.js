// Dragging: arrows from handles to targets on the picture, and a mask of what may change.

import { DEFAULT, pictureOf, withDefaults } from "./state.js";
import { button, choice, make, row, section, slider } from "./widgets.js";

const MASK_SIDE = 64; // cells, as the server expects them
const BRUSH = 0.06; // radius of the mask's brush, as a fraction of the picture
const SVG = "http://www.w3.org/2000/svg";

export function dragControls(page) {
  const { canvas, engine, network, renderer, store, showError } = page;
  if (!engine.abilities.has("drag")) return null;
  let points = []; // {handle: [x, y], target: [x, y]} in pixels
  let mask = new Uint8Array(MASK_SIDE ** 2); // 1 where the picture may change; all 0: everywhere
  let mode = "off";
  let isRunning = false;
  let learningRate = 0.01;

  const overlay = document.createElementNS(SVG, "svg");
  overlay.id = "overlay";
  overlay.setAttribute("viewBox", `0 0 ${network.width} ${network.height}`);
  overlay.setAttribute("aria-hidden", true);
  const painted = make("canvas", { id: "mask", width: MASK_SIDE, height: MASK_SIDE, "aria-hidden": "true" });
  canvas.after(painted, overlay);

  const modes = choice(
    "Drawing",
    [["off", "Off"], ["points", "Points"], ["mask", "Mask"], ["erase", "Erase"]],
    (value) => setMode(value),
  );
  const list = make("div", { className: "section-body", style: "padding: 0" });
  const hint = make("p", { className: "hint" });
  const add = button("Add points", () => {
    const middle = [Math.floor(network.width / 2), Math.floor(network.height / 2)];
    points.push({ handle: middle, target: [middle[0] + 2, middle[1]] });
    draw();
  });
  const clear = button("Clear", () => {
    points = [];
    mask = new Uint8Array(MASK_SIDE ** 2);
    draw();
  });
  const speed = slider("Step size", {
    min: 0.001, max: 0.05, step: 0.001, initial: learningRate,
    onChange: (value) => (learningRate = value),
  });
  const run = button("Drag", () => (isRunning ? engine.stop() : start()), { className: "primary" });

  function setMode(value) {
    mode = value;
    modes.set(value);
    canvas.classList.toggle("is-drawing", mode !== "off");
    draw();
  }

  /** Return the place of a pointer in pixels of the picture, within it. */
  function place(event) {
    const box = canvas.getBoundingClientRect();
    const along = (at, start, length, size) =>
      Math.max(0, Math.min(size - 1, Math.floor(((at - start) / length) * size)));
    return [
      along(event.clientX, box.left, box.width, network.width),
      along(event.clientY, box.top, box.height, network.height),
    ];
  }

  let drawing = null; // the arrow that is being drawn, or "brush"
  canvas.addEventListener("pointerdown", (event) => {
    if (mode === "off" || isRunning) return;
    canvas.setPointerCapture(event.pointerId);
    if (mode === "points") {
      drawing = { handle: place(event), target: place(event) };
      points.push(drawing);
    } else {
      drawing = "brush";
      paint(event);
    }
    draw();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!drawing) return;
    if (drawing === "brush") paint(event);
    else drawing.target = place(event);
    draw();
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (drawing = null));

  function paint(event) {
    const box = canvas.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * MASK_SIDE;
    const y = ((event.clientY - box.top) / box.height) * MASK_SIDE;
    const radius = BRUSH * MASK_SIDE;
    mask.forEach((_, cell) => {
      const dx = (cell % MASK_SIDE) + 0.5 - x;
      const dy = Math.floor(cell / MASK_SIDE) + 0.5 - y;
      if (dx * dx + dy * dy <= radius * radius) mask[cell] = mode === "mask" ? 1 : 0;
    });
  }

  /** Show points and mask on the picture, and the points as numbers. */
  function draw() {
    const size = Math.max(network.width, network.height) / 64;
    overlay.replaceChildren(...points.flatMap(({ handle, target }) => {
      const at = ([x, y]) => [x + 0.5, y + 0.5];
      const [[x1, y1], [x2, y2]] = [at(handle), at(target)];
      return [
        shape("line", { x1, y1, x2, y2, class: "arrow", "stroke-width": size / 2 }),
        shape("circle", { cx: x1, cy: y1, r: size, class: "handle" }),
        shape("circle", { cx: x2, cy: y2, r: size, class: "target" }),
      ];
    }));
    const context = painted.getContext("2d");
    const pixels = context.createImageData(MASK_SIDE, MASK_SIDE);
    const isMasked = mask.includes(1);
    mask.forEach((value, cell) => (pixels.data[4 * cell + 3] = isMasked && !value ? 150 : 0));
    context.putImageData(pixels, 0, 0);
    list.replaceChildren(...points.map(pointFields));
    run.disabled = !isRunning && points.length === 0;
    overlay.style.display = painted.style.display = points.length || isMasked ? "" : "none";
  }

  function pointFields(point, index) {
    const field = (key, axis) => {
      const max = (axis ? network.height : network.width) - 1;
      const input = make("input", {
        type: "number", min: 0, max, value: point[key][axis],
        "aria-label": `${key} ${index + 1}, ${axis ? "y" : "x"}`,
      });
      input.onchange = () => {
        point[key][axis] = Math.max(0, Math.min(max, Math.round(Number(input.value)) || 0));
        draw();
      };
      return input;
    };
    const remove = button("✕", () => {
      points.splice(index, 1);
      draw();
    }, { title: `remove points ${index + 1}` });
    return make("div", { className: "point" },
      field("handle", 0), field("handle", 1), "→", field("target", 0), field("target", 1), remove);
  }

  async function start() {
    isRunning = true;
    run.textContent = "Stop";
    const parameters = {
      state: pictureOf(store.state),
      handles: points.map(({ handle }) => handle),
      targets: points.map(({ target }) => target),
      mask: mask.includes(1) ? mask.join("") : "",
      learning_rate: learningRate,
    };
    try {
      const last = await engine.run("drag", parameters, async (reply) => {
        reply.handles.forEach((handle, index) => (points[index].handle = handle));
        draw();
        if (reply.step) hint.textContent = `Step ${reply.step}`;
        if (reply.image) renderer.show({ bitmap: await createImageBitmap(reply.image) });
      });
      if (last.state) {
        store.change({ ...withDefaults(last.state, DEFAULT), timeline: store.state.timeline });
      }
    } catch (error) {
      showError(error);
    }
    isRunning = false;
    run.textContent = "Drag";
    draw();
  }

  const element = section(
    "Drag",
    {},
    make("p", { className: "hint" }, "Draw arrows on the picture: what is at the start moves to the end. Paint what may change; the rest stays."),
    modes.element,
    list,
    row(add, clear),
    speed.element,
    row(run, hint),
  );
  setMode("off");
  return { element, update: () => {}, isDrawing: () => mode !== "off" };
}

function shape(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}
