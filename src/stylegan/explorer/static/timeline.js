// Keyframes: a list of pictures, played back and exported as a video.

import { DEFAULT, pictureOf, withDefaults } from "./state.js";
import { button, checkbox, download, make, row, section, select, slider } from "./widgets.js";

const FPS = 25;

export function timelineControls(page) {
  const { engine, network, renderer, store, showError } = page;
  if (!engine.abilities.has("video")) return null;
  const list = make("div", { className: "thumbnails", role: "list" });
  const hint = make("p", { className: "hint" });
  const change = (patch, moving) =>
    store.change({ timeline: { ...store.state.timeline, ...patch } }, moving);
  const thumbnails = new Map(); // URLs by the text of a state
  let playing = 0; // number of the playback; 0 while there is none
  let isExporting = false;

  const add = button("Add key", () => change({ keys: [...keys(), pictureOf(store.state)] }), {
    title: "Add this picture to the timeline",
  });
  const play = button("Play", () => (playing ? stop() : start()));
  const seconds = slider("Seconds per key", {
    min: 0.1, max: 10, step: 0.1, initial: DEFAULT.timeline.seconds,
    onChange: (value, moving) => change({ seconds: value }, moving),
  });
  const easing = select(
    "Easing",
    [["none", "none"], ["in-out", "in and out"], ["in", "in"], ["out", "out"]],
    (value) => change({ easing: value }),
  );
  const loop = checkbox("Loop", (value) => change({ loop: value }));
  const formats = [["gif", "GIF"], ["zip", "frames (zip)"]];
  if (network.has_video) formats.unshift(["mp4", "MP4"], ["webm", "WebM"]);
  const format = make("select", { "aria-label": "format" });
  format.append(...formats.map(([value, text]) => make("option", { value }, text)));
  const exportVideo = button("Export", () => (isExporting ? engine.stop() : write()));

  const keys = () => store.state.timeline.keys;
  const timeline = () => ({ ...store.state.timeline, fps: FPS });

  async function thumbnailOf(state) {
    const text = JSON.stringify(state);
    if (!thumbnails.has(text)) {
      const { image } = await engine.call("thumbnail", { state });
      thumbnails.set(text, URL.createObjectURL(image));
    }
    return thumbnails.get(text);
  }

  function keyCard(state, index) {
    const shown = make("img", { alt: `key ${index + 1}` });
    thumbnailOf(state).then((address) => (shown.src = address), showError);
    const others = () => keys().filter((_, at) => at !== index);
    const move = (by) => () => change({ keys: others().toSpliced(index + by, 0, state) });
    const open = make("button", {
      type: "button", title: `show key ${index + 1}`,
      onclick: () => store.change({ ...withDefaults(state, DEFAULT), timeline: store.state.timeline }),
    }, shown);
    return make("div", { className: "thumbnail", role: "listitem" }, open, row(
      index > 0 ? button("‹", move(-1), { title: `move key ${index + 1} back` }) : null,
      button("✕", () => change({ keys: others() }), { title: `remove key ${index + 1}` }),
    ));
  }

  let listed = "";
  function update(state) {
    const text = JSON.stringify(state.timeline.keys);
    if (text !== listed) list.replaceChildren(...state.timeline.keys.map(keyCard));
    listed = text;
    seconds.set(state.timeline.seconds);
    easing.set(state.timeline.easing);
    loop.set(state.timeline.loop);
    play.disabled = exportVideo.disabled = state.timeline.keys.length === 0;
    hint.textContent = state.timeline.keys.length ? "" : "Add at least two keys.";
  }

  async function start() {
    const mine = ++playing;
    play.textContent = "Stop";
    const begin = performance.now();
    const { keys: all, seconds: pace, loop: isLoop } = store.state.timeline;
    const perKey = Math.max(1, Math.round(pace * FPS));
    const total = isLoop ? all.length * perKey : (all.length - 1) * perKey + 1;
    let shown = -1;
    try {
      while (playing === mine) {
        const at = Math.floor(((performance.now() - begin) / 1000) * FPS);
        if (!isLoop && at >= total) break;
        if (at !== shown) {
          shown = at;
          const frame = await engine.frame(timeline(), at % total);
          if (playing === mine) renderer.show(frame);
        }
        await new Promise(requestAnimationFrame);
      }
    } catch (error) {
      showError(error);
    }
    if (playing === mine) stop();
  }

  function stop() {
    playing = 0;
    play.textContent = "Play";
    renderer.request(pictureOf(store.state), { isMoving: false });
  }

  async function write() {
    isExporting = true;
    exportVideo.textContent = "Stop";
    try {
      const { file } = await engine.run("video", { timeline: timeline(), format: format.value },
        ({ step, num_steps: total }) => {
          if (total) hint.textContent = `Frame ${step} of ${total}`;
        });
      hint.textContent = file ? "" : "Stopped.";
      if (file) download(engine.exported(file), file);
    } catch (error) {
      showError(error);
    }
    isExporting = false;
    exportVideo.textContent = "Export";
  }

  store.subscribe((state) => {
    update(state);
    if (playing) stop();
  });
  const element = section(
    "Keyframes",
    {},
    list,
    hint,
    row(add, play),
    seconds.element,
    row(easing.element, loop.element),
    row(format, exportVideo),
  );
  return { element, update };
}
