// The page: connects the engine, the state, the canvas and the sections.

import { ServerEngine } from "./engine-server.js";
import { directionControls } from "./direction-controls.js";
import { dragControls } from "./drag.js";
import { acceptFiles } from "./files.js";
import { gallery } from "./gallery.js";
import { bindKeys } from "./keyboard.js";
import { mixControls } from "./mix-controls.js";
import { classControls, lodControls, noiseControls, truncationControls } from "./picture-controls.js";
import { Renderer } from "./renderer.js";
import { seedControls, walkOn } from "./seed-controls.js";
import { Store, decode, pictureOf } from "./state.js";
import { timelineControls } from "./timeline.js";
import { toolbar } from "./toolbar.js";

const element = (id) => document.getElementById(id);

function showError(error) {
  element("message").hidden = error === null;
  element("message").textContent = error?.message ?? "";
}

function showSpeed({ latencyMs, framesPerSecond, isPreview }) {
  const preview = isPreview ? " · preview" : "";
  element("speed").textContent = `${latencyMs.toFixed(0)} ms · ${framesPerSecond} fps${preview}`;
}

function showNetwork(network) {
  document.title = `${network.name} – stylegan explore`;
  element("network-name").textContent = network.name;
  element("network-facts").textContent = `${network.width}×${network.height} · ${network.device}`;
}

async function start() {
  const engine = new ServerEngine();
  await engine.connect(showError);
  const network = await engine.describe();
  showNetwork(network);
  const store = new Store(decode(location.hash));
  const canvas = element("picture");
  canvas.width = network.width;
  canvas.height = network.height;
  canvas.parentElement.style.setProperty("--ratio", network.width / network.height);
  canvas.classList.toggle("pixelated", network.height <= 64);
  const renderer = new Renderer(engine, canvas, { onSpeed: showSpeed, onError: showError });
  const page = { engine, network, store, renderer, canvas, showError };
  const sections = [
    seedControls(store, network),
    truncationControls(store, network),
    classControls(store, network),
    noiseControls(store, network),
    lodControls(store, network),
    mixControls(store, network),
    (page.directions = directionControls(page)),
    (page.drag = dragControls(page)),
    timelineControls(page),
  ].filter((each) => each !== null);
  element("panel").replaceChildren(...sections.map((each) => each.element));
  walkOn(canvas, store, { stepsPerWidth: 4, isActive: () => !page.drag?.isDrawing() });
  page.gallery = gallery(page);
  if (page.gallery) element("strip").append(page.gallery.element);
  acceptFiles(page);
  element("toolbar").replaceChildren(...toolbar(page));
  bindKeys(page);
  let drawn = "";
  const draw = (state, moving) => {
    const picture = pictureOf(state);
    const text = JSON.stringify([picture, moving.isMoving]);
    if (text !== drawn) renderer.request(picture, moving);
    drawn = text;
  };
  store.subscribe(draw);
  for (const each of sections) each.update(store.state);
  draw(store.state, { isMoving: false });
  addEventListener("hashchange", () => store.change(decode(location.hash)));
  window.explorer = page; // for tests, and to play with in the console
}

start().catch(showError);
