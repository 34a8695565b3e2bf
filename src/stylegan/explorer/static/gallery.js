// Favourites: thumbnails that bring their state back, and groups between which directions lead.

import { button, download, make, row, section } from "./widgets.js";
import { DEFAULT, pictureOf, withDefaults } from "./state.js";

const GROUPS = ["", "A", "B"];

export function gallery(page) {
  const { engine, store, showError } = page;
  if (!engine.abilities.has("gallery")) return null;
  const list = make("div", { className: "thumbnails", role: "list" });
  const hint = make("p", { className: "hint" });
  const groups = new Map(); // of favourites, by identifier: "A" or "B"
  const act = (work) => async () => {
    try {
      await work();
    } catch (error) {
      showError(error);
    }
  };

  const refresh = act(async () => {
    const { favourites } = await engine.call("list_favourites", {});
    list.replaceChildren(...favourites.map(favouriteCard));
    if (favourites.length === 0) hint.textContent = "Keep pictures here (K), or drop a PNG of this page.";
    showGroups();
  });

  const keep = act(async () => {
    await engine.call("favourite", { state: pictureOf(store.state) });
    hint.textContent = "";
    await refresh();
  });

  function favouriteCard({ id, state }) {
    const shown = make("img", { src: engine.thumbnail(id), alt: `favourite, seed ${state.base?.seed ?? 0}` });
    const open = make("button", { type: "button", title: "show", onclick: () => show(state) }, shown);
    const group = button("·", () => {
      const next = GROUPS[(GROUPS.indexOf(groups.get(id) ?? "") + 1) % GROUPS.length];
      groups.set(id, next);
      showGroups();
    }, { title: "group of a direction" });
    group.dataset.favourite = id;
    const remove = button("✕", act(async () => {
      groups.delete(id);
      await engine.call("remove_favourite", { favourite: id });
      await refresh();
      hint.replaceChildren("Removed. ", button("Put it back", act(async () => {
        await engine.call("favourite", { state });
        hint.textContent = "";
        await refresh();
      })));
    }), { title: "remove" });
    return make("div", { className: "thumbnail", role: "listitem" }, open, row(group, remove));
  }

  function show(state) {
    const { timeline } = store.state;
    store.change({ ...withDefaults(state, DEFAULT), timeline });
  }

  const between = button("Direction A→B", act(async () => {
    const of = (name) => [...groups].filter(([, group]) => group === name).map(([id]) => id);
    const parameters = { first: of("A"), second: of("B"), name: "A-to-B" };
    const { directions } = await engine.call("direction_between", parameters);
    await page.directions.show(directions);
  }), { title: "make a direction from the pictures of group A to those of group B" });

  function showGroups() {
    for (const each of list.querySelectorAll("[data-favourite]")) {
      each.textContent = groups.get(each.dataset.favourite) || "·";
    }
    const values = [...groups.values()];
    between.disabled = !values.includes("A") || !values.includes("B");
  }

  const latents = button("Save latents", () =>
    download(engine.address("latents.npz", pictureOf(store.state)), "latents.npz"),
  { title: "save the latents as .npz, for stylegan generate" });
  const element = section(
    "Gallery",
    { isOpen: true },
    list,
    hint,
    row(button("Keep", keep, { title: "Keep this picture (K)", className: "primary" }), between, latents, make("span", { id: "open-file" })),
  );
  refresh();
  return { element, keep, refresh };
}
