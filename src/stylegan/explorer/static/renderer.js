// Draws the pictures of states on the canvas: one request at a time, always the newest state.

const SETTLED_MS = 150; // after which a still picture follows the moving ones
const NUM_MEASURED = 30;

export class Renderer {
  #engine;
  #canvas;
  #wanted = null;
  #isBusy = false;
  #settling = 0;
  #latencies = [];
  #times = [];

  /**
   * @param engine as in engine.js
   * @param canvas
   * @param onSpeed gets {latencyMs, framesPerSecond, isPreview} after each picture
   * @param onError gets an Error, or null after a picture
   */
  constructor(engine, canvas, { onSpeed, onError }) {
    this.#engine = engine;
    this.#canvas = canvas;
    this.onSpeed = onSpeed;
    this.onError = onError;
    this.numDrawn = 0;
  }

  /** Draw a state soon. States that come before it was computed replace it. */
  request(state, { isMoving }) {
    this.#canvas.setAttribute("aria-busy", true); // until it has the final picture
    clearTimeout(this.#settling);
    this.#wanted = { state, isMoving, since: performance.now() };
    this.#work();
  }

  /** Draw a frame that was computed elsewhere, such as one of a video. */
  show(frame) {
    this.#draw(frame, null);
  }

  async #work() {
    if (this.#isBusy) return;
    this.#isBusy = true;
    while (this.#wanted) {
      const { state, isMoving, since } = this.#wanted;
      this.#wanted = null;
      try {
        const frame = await this.#engine.render(state, { isMoving });
        if (frame) this.#draw(frame, since);
        this.onError(null);
        if (!this.#wanted) {
          if (isMoving) this.#settle(state);
          else this.#canvas.setAttribute("aria-busy", false);
        }
      } catch (error) {
        this.onError(error);
      }
    }
    this.#isBusy = false;
  }

  #settle(state) {
    this.#settling = setTimeout(() => this.request(state, { isMoving: false }), SETTLED_MS);
  }

  #draw({ bitmap, isPreview }, since) {
    const canvas = this.#canvas;
    if (!isPreview && canvas.width !== bitmap.width) {
      canvas.width = bitmap.width;
      canvas.height = bitmap.height;
    }
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = isPreview;
    context.clearRect(0, 0, canvas.width, canvas.height); // pictures may be transparent
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    bitmap.close();
    this.numDrawn += 1;
    const now = performance.now();
    if (since !== null) this.#latencies = [...this.#latencies, now - since].slice(-NUM_MEASURED);
    this.#times = [...this.#times.filter((time) => now - time < 1000), now];
    this.onSpeed({
      latencyMs: median(this.#latencies),
      framesPerSecond: this.#times.length,
      isPreview,
    });
  }
}

function median(values) {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
}
