// Files that are dropped on the page or opened: PNG files with latents, latents, directions.

import { DEFAULT, withDefaults } from "./state.js";
import { button, make } from "./widgets.js";

export function acceptFiles(page) {
  const { engine, store, showError } = page;
  if (!engine.abilities.has("files")) return;

  async function accept(file) {
    try {
      const received = await engine.send(file);
      if (received.kind === "latents") {
        const { timeline } = store.state;
        store.change({ ...withDefaults(received.state, DEFAULT), timeline });
      } else {
        await page.directions.show(received.directions);
      }
      showError(null);
    } catch (error) {
      showError(error);
    }
  }

  const input = make("input", { type: "file", hidden: true, id: "file", "aria-label": "file to open" });
  input.onchange = () => {
    if (input.files.length) accept(input.files[0]);
    input.value = "";
  };
  const open = button("Open a file", () => input.click(), {
    title: "Open a PNG with latents, .npz latents or directions",
  });
  document.getElementById("open-file")?.replaceWith(open, input);

  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    const [file] = event.dataTransfer.files;
    if (file) accept(file);
  });
}
