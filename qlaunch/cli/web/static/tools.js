// The panels of a machine: keys and text, CDs and floppies, snapshots.

import { act, ask } from "./page.js";
import { button, make, size } from "./tell.js";

const KEYS = [
  ["Esc", "esc"], ["Tab", "tab"], ["Enter", "ret"], ["F1", "f1"], ["F2", "f2"], ["F8", "f8"], ["F10", "f10"],
  ["F12", "f12"], ["Alt-Tab", "alt-tab"], ["Alt-F4", "alt-f4"], ["Windows", "meta_l"], ["Ctrl-Alt-F2", "ctrl-alt-f2"],
];

function panel(kind, title, ...children) {
  const found = make("div", { className: "panel" }, make("h2", { textContent: title }), ...children);
  found.dataset.kind = kind;
  return found;
}

export function keysPanel(name) {
  const text = make("input", { placeholder: "text to type into the guest" });
  const form = make("form", {}, text, make("button", { textContent: "Type" }));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (text.value) act("type", name, { text: text.value }, "type");
  });
  const keys = KEYS.map(([label, key]) => button(label, () => act("send-key", name, { keys: [key] }, label)));
  return panel("keys", "Keys", make("div", { className: "row" }, ...keys), form);
}

export async function cdPanel(name) {
  const found = panel("cd", "CDs and floppies");
  const fill = async () => {
    const rows = [];
    try {
      const { drives } = await ask("media", name);
      if (!drives.length) rows.push(make("p", { textContent: "This machine has no drive for a medium." }));
      rows.push(...drives.map((drive) => driveRow(name, drive, fill)));
    } catch (error) {
      rows.push(make("p", { className: "failed", textContent: error.message }));
    }
    found.replaceChildren(found.firstElementChild, ...rows);
  };
  await fill();
  return found;
}

function driveRow(name, drive, refill) {
  const file = make("input", { placeholder: "/path/of/an/image.iso on the computer that runs it", value: drive.file ?? "" });
  const force = make("input", { type: "checkbox" });
  const change = async (args) => {
    await act("media", name, { drive: drive.drive, force: force.checked, ...args }, args.eject ? "eject" : "insert");
    await refill();
  };
  const form = make("form", {}, make("b", { textContent: drive.drive }), file, make("button", { textContent: "Insert" }),
    button("Eject", () => change({ eject: true })),
    make("label", {}, force, " even if the guest holds it shut"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    change({ file: file.value });
  });
  return form;
}

export async function snapshotPanel(name) {
  const found = panel("snapshots", "Snapshots");
  const label = make("input", { placeholder: "name (optional)" });
  const disks = make("input", { type: "checkbox" });
  const form = make("form", {}, label, make("button", { textContent: "Take a snapshot" }), make("label", {}, disks, " disks only"));
  const fill = async () => {
    const rows = [];
    try {
      const { snapshots, problems } = await ask("snapshots", name);
      rows.push(...problems.map((text) => make("p", { className: "failed", textContent: text })));
      rows.push(...draw(name, snapshots, fill));
    } catch (error) {
      rows.push(make("p", { className: "failed", textContent: error.message }));
    }
    found.replaceChildren(found.firstElementChild, form, ...rows);
  };
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const args = { disks_only: disks.checked, ...(label.value ? { snapshot: label.value } : {}) };
    if (await act("snapshot-create", name, args, "snapshot")) label.value = "";
    await fill();
  });
  await fill();
  return found;
}

// The tree, a line each, children under their parents.
function draw(name, snapshots, refill) {
  const rows = [];
  const visit = (parent, depth) => {
    for (const each of snapshots.filter((one) => (one.parent ?? null) === parent)) {
      rows.push(snapshotRow(name, each, depth, refill));
      if (each.name !== null || each.label) visit(each.id, depth + 1);
    }
  };
  visit(null, 0);
  return rows.length ? rows : [make("p", { textContent: "There are none yet." })];
}

function snapshotRow(name, each, depth, refill) {
  const row = make("div", { className: "snapshot" });
  row.style.paddingLeft = `${depth * 1.2}em`;
  if (!each.label) {
    row.append(make("i", { textContent: "you are here" }));
    return row;
  }
  const what = each.kind === "memory" || each.memory_size ? "with memory" : "disks";
  const when = new Date(each.created * 1000).toLocaleString();
  row.append(
    make("b", { textContent: each.label }),
    make("span", { textContent: `${when} · ${what} · ${size(each.size + each.memory_size)} ${each.text ?? ""}` }),
    button("Revert", async () => {
      if (await act("revert", name, { snapshot: each.label }, `revert to ${each.label}`)) await refill();
    }),
    button("Delete", async () => {
      if (!confirm(`Delete the snapshot ${each.label}?`)) return;
      if (await act("snapshot-delete", name, { snapshot: each.label }, `delete ${each.label}`)) await refill();
    }, "danger"),
  );
  return row;
}
