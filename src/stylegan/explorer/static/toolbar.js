// The buttons above the picture.

import { pictureOf } from "./state.js";
import { changeSeed, randomSeed } from "./seed-controls.js";
import { button, download } from "./widgets.js";

export function toolbar({ engine, store, showError }) {
  const undo = button("Undo", () => store.undo(), { title: "Undo (Ctrl+Z)" });
  const redo = button("Redo", () => store.redo(), { title: "Redo (Ctrl+Shift+Z)" });
  const random = button("Random", () => changeSeed(store, randomSeed()), { title: "Random seed (R)" });
  const save = button("Save", () => savePicture(engine, store), { title: "Save as PNG with its latents (S)" });
  const copy = button("Link", () => copyLink(showError), { title: "Link: copy the address of this picture" });
  const full = button("Full", toggleFullScreen, { title: "Full screen (F)" });
  const update = () => {
    undo.disabled = !store.canUndo;
    redo.disabled = !store.canRedo;
  };
  store.subscribe(update);
  update();
  return [undo, redo, random, save, copy, full];
}

export function savePicture(engine, store) {
  const { base } = store.state;
  const name = base.saved ? `latents-${base.saved}.png` : `seed${`${base.seed}`.padStart(4, "0")}.png`;
  download(engine.address("picture.png", pictureOf(store.state)), name);
}

export function toggleFullScreen() {
  if (document.fullscreenElement) document.exitFullscreen();
  else document.getElementById("frame").requestFullscreen();
}

function copyLink(showError) {
  navigator.clipboard
    .writeText(location.href)
    .catch(() => showError(new Error("the browser does not allow copying; copy the address")));
}
