// Small things of the page: elements, and lines that tell what happened.

const FADE = 6000;

export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

export function button(text, work, className = "") {
  const found = make("button", { type: "button", textContent: text, className });
  found.addEventListener("click", async () => {
    found.disabled = true;
    try {
      await work();
    } finally {
      found.disabled = false;
    }
  });
  return found;
}

const lines = new Map();

// One line for each thing under way: progress replaces what it said before.
export function tell(key, text, kind = "") {
  let line = lines.get(key);
  if (!line) {
    line = make("li", {});
    line.addEventListener("click", () => drop(key));
    lines.set(key, line);
    document.getElementById("told").append(line);
  }
  line.className = kind;
  line.textContent = text;
  clearTimeout(line.timer);
  if (kind === "done") line.timer = setTimeout(() => drop(key), FADE);
}

export function drop(key) {
  lines.get(key)?.remove();
  lines.delete(key);
}

export function size(bytes) {
  if (!bytes) return "";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const step = Math.min(Math.floor(Math.log2(bytes) / 10), units.length - 1);
  const value = bytes / 2 ** (10 * step);
  return `${value < 10 && step ? value.toFixed(1) : Math.round(value)} ${units[step]}`;
}
