// The line to the server: what the machines do, and what we ask for.

const RETRY = 1500;

export class Live {
  constructor({ onMachines, onLink, onProgress }) {
    this.onMachines = onMachines;
    this.onLink = onLink;
    this.onProgress = onProgress;
    this.waiting = new Map();
    this.number = 0;
    this.open();
  }

  open() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    this.socket = new WebSocket(`${scheme}://${location.host}/live`);
    this.socket.onopen = () => this.onLink(true);
    this.socket.onmessage = (message) => this.hear(JSON.parse(message.data));
    this.socket.onclose = () => {
      this.onLink(false);
      for (const { reject } of this.waiting.values()) {
        reject({ message: "the server hung up", hint: "is `qlaunch web` still running?" });
      }
      this.waiting.clear();
      setTimeout(() => this.open(), RETRY);
    };
  }

  hear(said) {
    if (said.machines) {
      this.onMachines(said.machines, said.error);
      return;
    }
    const asked = this.waiting.get(said.id);
    if (!asked) return;
    if (said.progress) {
      this.onProgress(asked, said.progress);
      return;
    }
    this.waiting.delete(said.id);
    if (said.error) asked.reject(said.error);
    else asked.resolve(said.result);
  }

  ask(verb, name, args = {}) {
    return new Promise((resolve, reject) => {
      if (this.socket.readyState !== WebSocket.OPEN) {
        reject({ message: "not connected", hint: "is `qlaunch web` still running?" });
        return;
      }
      const id = ++this.number;
      this.waiting.set(id, { verb, name, resolve, reject });
      this.socket.send(JSON.stringify({ id, verb, name, args }));
    });
  }
}
