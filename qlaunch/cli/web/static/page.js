// The page: a card for each machine, and one machine with its console.

import { Live } from "./live.js";
import { Machine } from "./machine.js";
import { button, make, size, tell } from "./tell.js";

const SHOT_EVERY = 3000;
const cards = new Map();
let machines = [];
let open = null;

const live = new Live({
  onMachines(found, error) {
    machines = found;
    if (error) tell("live", error.message, "failed");
    draw();
  },
  onLink(up) {
    const link = document.getElementById("link");
    link.textContent = up ? "" : "not connected";
    link.className = up ? "" : "failed";
  },
  onProgress(asked, step) {
    tell(`${asked.name} ${asked.verb}`, `${asked.name}: ${step.text || step.step || "..."}`);
  },
});

// Ask for something and tell how it went; null when it went wrong.
export async function act(verb, name, args = {}, label = verb) {
  const key = `${name} ${verb}`;
  tell(key, `${name}: ${label} ...`);
  try {
    const result = await live.ask(verb, name, args);
    tell(key, `${name}: ${label}: done`, "done");
    return result ?? {};
  } catch (error) {
    tell(key, `${name}: ${error.message}${error.hint ? ` (${error.hint})` : ""}`, "failed");
    return null;
  }
}

export const ask = (verb, name, args) => live.ask(verb, name, args);

export function powerButtons(machine) {
  const { name, state, running } = machine;
  if (!running) return [button("Start", () => act("up", name, {}, "start"), "main")];
  const found = [];
  if (state === "paused") found.push(button("Resume", () => act("resume", name), "main"));
  found.push(button("Shut down", () => act("down", name, {}, "shut down")));
  return found;
}

function draw() {
  const list = document.getElementById("machines");
  const names = new Set(machines.map((each) => each.name));
  for (const [name, card] of cards) {
    if (!names.has(name)) {
      card.remove();
      cards.delete(name);
    }
  }
  for (const machine of machines) {
    let card = cards.get(machine.name);
    if (!card) {
      card = document.getElementById("card").content.cloneNode(true).firstElementChild;
      cards.set(machine.name, card);
    }
    fill(card, machine);
    list.append(card);
  }
  if (!machines.length && !list.children.length) {
    list.replaceChildren(make("p", { className: "empty", textContent: "No machines yet: `qlaunch new NAME` writes a profile." }));
  } else {
    list.querySelector(".empty")?.remove();
  }
  if (open) open.update(machines.find((each) => each.name === open.name));
}

function fill(card, machine) {
  const href = `#${encodeURIComponent(machine.name)}`;
  card.dataset.name = machine.name;
  card.classList.toggle("running", machine.running);
  for (const link of card.querySelectorAll("a")) link.href = href;
  card.querySelector(".name").textContent = machine.title || machine.name;
  card.querySelector(".state").textContent = machine.state;
  const facts = machine.running
    ? [size(machine.memory), `${Math.round(machine.cpu ?? 0)} % CPU`, ...(machine.network ?? [])]
    : [];
  card.querySelector(".facts").textContent = facts.filter(Boolean).join(" · ");
  // Anew only when something else is to be pressed: a click must not miss a button that is redrawn.
  if (card.dataset.state !== machine.state) {
    card.dataset.state = machine.state;
    card.querySelector(".power").replaceChildren(...powerButtons(machine));
    if (!machine.running) card.querySelector("img").removeAttribute("src");
    shoot(card);
  }
}

function shoot(card) {
  if (!card.classList.contains("running") || open || document.hidden) return;
  const fresh = new Image();
  fresh.onload = () => { card.querySelector("img").src = fresh.src; };
  fresh.src = `shot/${encodeURIComponent(card.dataset.name)}.png?${Date.now()}`;
}

function follow() {
  const name = decodeURIComponent(location.hash.slice(1));
  open?.close();
  open = null;
  document.getElementById("machines").hidden = Boolean(name);
  document.getElementById("machine").hidden = !name;
  document.getElementById("where").textContent = name;
  document.title = name ? `${name} - qlaunch` : "qlaunch";
  if (name) open = new Machine(name, machines.find((each) => each.name === name));
  else cards.forEach(shoot);
}

addEventListener("hashchange", follow);
setInterval(() => cards.forEach(shoot), SHOT_EVERY);
follow();
