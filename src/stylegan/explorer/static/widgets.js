// Controls that the sections are made of. Each has a label that screen readers read.

let number = 0;

/** Make an element: its properties, then its children (elements or texts). */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key in element) element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** A section of the panel that can be folded. */
export function section(title, { isOpen = false } = {}, ...children) {
  return make(
    "details",
    { className: "section", open: isOpen },
    make("summary", {}, title),
    make("div", { className: "section-body" }, ...children),
  );
}

export function button(text, onClick, { title = "", className = "" } = {}) {
  const label = title ? { title, "aria-label": title } : {};
  return make("button", { type: "button", onclick: onClick, className, ...label }, text);
}

export function row(...children) {
  return make("div", { className: "row" }, ...children);
}

/**
 * A slider with its number, which can be typed. A double click on the label resets it.
 * `onChange(value, {isMoving})` is called while it moves and at the end.
 */
export function slider(label, { min, max, step, initial, onChange }) {
  const id = `control-${++number}`;
  const range = make("input", { type: "range", id, min, max, step, value: initial });
  const field = make("input", { type: "number", min, max, step, value: initial });
  field.setAttribute("aria-label", `${label}, number`);
  range.dataset.control = label; // the name under which a MIDI knob is remembered
  const caption = make("label", { htmlFor: id, title: "double click: reset" }, label);
  const give = (value, isMoving) => {
    if (!Number.isFinite(value)) return;
    set(Math.min(max, Math.max(min, value)));
    onChange(Number(range.value), { isMoving });
  };
  range.oninput = () => give(Number(range.value), true);
  range.onchange = () => give(Number(range.value), false);
  field.onchange = () => give(Number(field.value), false);
  caption.ondblclick = () => give(initial, false);
  const set = (value) => {
    range.value = value;
    field.value = Number(range.value);
  };
  const element = make("div", { className: "slider" }, caption, field, range);
  return { element, set };
}

/** A choice of a few: buttons of which one is pressed. */
export function choice(label, options, onChange) {
  const buttons = options.map(([value, text, title = ""]) => {
    const each = button(text, () => onChange(value), { title });
    each.dataset.value = value;
    return each;
  });
  const group = make("div", { className: "choice", role: "group", "aria-label": label }, ...buttons);
  const set = (value) => {
    for (const each of buttons) each.setAttribute("aria-pressed", each.dataset.value === `${value}`);
  };
  return { element: make("div", { className: "field" }, make("span", {}, label), group), set };
}

/** A list to choose from. */
export function select(label, options, onChange) {
  const id = `control-${++number}`;
  const element = make("select", { id, onchange: () => onChange(element.value) });
  const fill = (entries) =>
    element.replaceChildren(...entries.map(([value, text]) => make("option", { value }, text)));
  fill(options);
  const caption = make("label", { htmlFor: id }, label);
  return {
    element: make("div", { className: "field" }, caption, element),
    set: (value) => (element.value = value),
    fill,
  };
}

export function checkbox(label, onChange) {
  const box = make("input", { type: "checkbox", onchange: () => onChange(box.checked) });
  return {
    element: make("label", { className: "checkbox" }, box, label),
    set: (value) => (box.checked = value),
  };
}

/** Save a URL as a file. */
export function download(address, name) {
  make("a", { href: address, download: name }).click();
}
