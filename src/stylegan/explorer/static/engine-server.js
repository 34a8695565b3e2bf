// The engine that asks the Python server, through a WebSocket and through HTTP.

export class ServerEngine {
  abilities = new Set(["directions", "gallery", "files", "bake", "video", "drag"]);
  #socket = null;
  #waiting = new Map(); // by number of the message: {resolve, reject, onStep}
  #number = 0;

  /** Connect; the promise ends when messages can be sent. */
  connect(onLost) {
    const address = new URL("socket", location.href);
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    address.hash = "";
    return new Promise((resolve, reject) => {
      const socket = new WebSocket(address);
      socket.binaryType = "arraybuffer";
      socket.onopen = () => resolve();
      socket.onmessage = (event) => this.#receive(event.data);
      socket.onclose = (event) => {
        const error = new Error(event.reason || "the explorer has ended; start it again");
        for (const { reject: fail } of this.#waiting.values()) fail(error);
        this.#waiting.clear();
        reject(error);
        onLost(error);
      };
      this.#socket = socket;
    });
  }

  describe() {
    return this.call("describe", {});
  }

  async render(state, { isMoving }) {
    const reply = await this.call("render", { state, moving: isMoving });
    if (reply.superseded) return null;
    const bitmap = await createImageBitmap(reply.image, { colorSpaceConversion: "none" });
    return { bitmap, isPreview: reply.preview, seconds: reply.seconds, format: reply.format };
  }

  call(action, parameters) {
    return this.#ask(action, parameters, null);
  }

  run(action, parameters, onStep) {
    return this.#ask(action, parameters, onStep);
  }

  stop() {
    this.#socket.send(JSON.stringify({ id: 0, action: "stop" }));
  }

  async send(blob) {
    const response = await fetch("upload", { method: "POST", body: blob });
    const reply = await response.json().catch(() => ({ error: `the file was refused` }));
    if (reply.error) throw new Error(reply.error);
    return reply;
  }

  address(kind, state) {
    return `${kind}?state=${encodeURIComponent(JSON.stringify(state))}`;
  }

  thumbnail(id) {
    return `favourite/${id}.png`;
  }

  exported(file) {
    return `export/${file}`;
  }

  async frame(timeline, index) {
    const { image } = await this.call("frame", { timeline, index });
    const bitmap = await createImageBitmap(image, { colorSpaceConversion: "none" });
    return { bitmap, isPreview: true };
  }

  #ask(action, parameters, onStep) {
    if (this.#socket.readyState !== WebSocket.OPEN) {
      return Promise.reject(new Error("the explorer has ended; start it again"));
    }
    const id = ++this.#number;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject, onStep, last: {} });
      this.#socket.send(JSON.stringify({ id, action, parameters }));
    });
  }

  #receive(buffer) {
    const length = new DataView(buffer).getUint32(0, true);
    const reply = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
    if (buffer.byteLength > 4 + length) {
      const type = `image/${reply.format ?? "png"}`;
      reply.image = new Blob([buffer.slice(4 + length)], { type });
    }
    const waiting = this.#waiting.get(reply.id);
    if (!waiting) return;
    if (waiting.onStep && !reply.error && !reply.done) {
      waiting.last = reply;
      waiting.onStep(reply);
      return;
    }
    if (waiting.onStep && !reply.done) {
      waiting.error = reply.error; // the end follows
      return;
    }
    this.#waiting.delete(reply.id);
    const error = reply.error ?? waiting.error;
    if (error) waiting.reject(new Error(error));
    else waiting.resolve(waiting.onStep ? waiting.last : reply);
  }
}
