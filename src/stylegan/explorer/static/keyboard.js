// Keys that work everywhere on the page, except while one types.

import { changeSeed, randomSeed } from "./seed-controls.js";
import { savePicture, toggleFullScreen } from "./toolbar.js";

export function bindKeys({ engine, gallery, store }) {
  const seed = () => store.state.base.seed;
  const actions = {
    r: () => changeSeed(store, randomSeed()),
    n: () => changeSeed(store, seed() + 1),
    p: () => changeSeed(store, seed() - 1),
    s: () => savePicture(engine, store),
    f: toggleFullScreen,
    k: () => gallery?.keep(),
  };
  addEventListener("keydown", (event) => {
    const isTyping = event.target.matches("input:not([type=range]):not([type=checkbox]), select, textarea");
    const key = event.key.toLowerCase();
    if ((event.ctrlKey || event.metaKey) && (key === "z" || key === "y")) {
      if (isTyping && event.target.type === "text") return;
      event.preventDefault();
      if (key === "y" || event.shiftKey) store.redo();
      else store.undo();
    } else if (!isTyping && !event.ctrlKey && !event.metaKey && !event.altKey && actions[key]) {
      event.preventDefault();
      actions[key]();
    }
  });
}
