// One machine: its console, and the tools beside it.

import RFB from "./novnc/core/rfb.js";
import { act, powerButtons } from "./page.js";
import { cdPanel, keysPanel, snapshotPanel } from "./tools.js";
import { button, make } from "./tell.js";

const RETRY = 1000;

export class Machine {
  constructor(name, machine) {
    this.name = name;
    this.screen = document.getElementById("screen");
    this.panel = document.getElementById("panel");
    this.state = null;
    this.closed = false;
    this.update(machine);
  }

  // The server tells each second what is so; only a change does something.
  update(machine) {
    const state = machine?.state ?? "unknown";
    if (state === this.state) return;
    this.state = state;
    this.running = Boolean(machine?.running);
    this.drawTools(machine ?? { name: this.name, running: false, state });
    if (!this.running) this.disconnect();
    this.connect();
  }

  drawTools(machine) {
    const tools = [button("◂ All machines", () => { location.hash = ""; }), ...powerButtons(machine)];
    if (this.running) {
      tools.push(
        button("Ctrl-Alt-Del", () => act("send-key", this.name, { keys: ["ctrl-alt-delete"] }, "Ctrl-Alt-Del")),
        button("Keys", () => this.show(keysPanel(this.name))),
        button("Full screen", () => this.screen.requestFullscreen?.()),
        button("Pause", () => act("pause", this.name)),
        button("Reset", () => confirm(`Reset ${this.name}? Unsaved work in it is lost.`) && act("reset", this.name)),
        button("Kill", () => confirm(`Cut the power of ${this.name}? Unsaved work in it is lost.`) && act("kill", this.name), "danger"),
      );
    }
    tools.push(
      button("CD", () => this.show(cdPanel(this.name))),
      button("Snapshots", () => this.show(snapshotPanel(this.name))),
      make("span", { className: "state", textContent: machine.state }),
    );
    document.getElementById("tools").replaceChildren(...tools);
  }

  // A second press puts a panel away.
  async show(panel) {
    const content = await panel;
    if (this.closed) return;
    const same = !this.panel.hidden && this.panel.dataset.kind === content.dataset.kind;
    this.panel.hidden = same;
    this.panel.dataset.kind = content.dataset.kind;
    this.panel.replaceChildren(content);
  }

  connect() {
    if (this.rfb || this.closed || !this.running) return;
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const place = make("div", { className: "vnc" });
    this.screen.replaceChildren(place);
    const rfb = new RFB(place, `${scheme}://${location.host}/screen/${encodeURIComponent(this.name)}`, { wsProtocols: ["binary"] });
    rfb.scaleViewport = true;
    rfb.background = "transparent";
    rfb.addEventListener("connect", () => {
      this.screen.dataset.connected = "yes";
      rfb.focus();
    });
    rfb.addEventListener("disconnect", () => {
      if (this.rfb === rfb) this.lost();
    });
    this.rfb = rfb;
  }

  // It ended, or was never there: tried again for as long as the machine runs.
  lost() {
    this.rfb = null;
    delete this.screen.dataset.connected;
    this.say(this.running ? "The console is not connected; trying again ..." : `${this.name} is ${this.state}.`);
    if (this.running && !this.closed) setTimeout(() => this.connect(), RETRY);
  }

  disconnect() {
    const rfb = this.rfb;
    this.rfb = null;
    delete this.screen.dataset.connected;
    rfb?.disconnect();
    this.say(`${this.name} is ${this.state}.`);
  }

  say(text) {
    this.screen.replaceChildren(make("p", { textContent: text }));
  }

  close() {
    this.closed = true;
    this.disconnect();
    this.panel.hidden = true;
    this.panel.replaceChildren();
  }
}
