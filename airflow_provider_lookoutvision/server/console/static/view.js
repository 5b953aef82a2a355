// What of an image a canvas shows: fitted, zoomed, moved; by wheel, by two fingers, or by a cursor that leaves it.

const LEAST = 0.05;
const MOST = 40;

export class View {
  /** @param {HTMLCanvasElement} canvas it fills the element around it */
  constructor(canvas, image) {
    this.canvas = canvas;
    this.image = image;
    this.scale = 1;
    this.offset = { x: 0, y: 0 };
    this.fingers = new Map();
  }

  fit() {
    const { clientWidth: width, clientHeight: height } = this.canvas.parentElement;
    Object.assign(this.canvas, { width, height });
    const { naturalWidth, naturalHeight } = this.image;
    this.scale = Math.min(width / naturalWidth, height / naturalHeight);
    this.offset = { x: (width - naturalWidth * this.scale) / 2, y: (height - naturalHeight * this.scale) / 2 };
  }

  /** @param at the place on the canvas that stays where it is */
  zoom(factor, at = { x: this.canvas.width / 2, y: this.canvas.height / 2 }) {
    const wanted = Math.max(LEAST, Math.min(MOST, this.scale * factor));
    this.offset = { x: at.x - ((at.x - this.offset.x) * wanted) / this.scale, y: at.y - ((at.y - this.offset.y) * wanted) / this.scale };
    this.scale = wanted;
  }

  move(x, y) {
    this.offset = { x: this.offset.x + x, y: this.offset.y + y };
  }

  /** Move no further than it takes to see a place of the image. */
  follow({ x, y }) {
    const at = { x: x * this.scale + this.offset.x, y: y * this.scale + this.offset.y };
    const margin = Math.min(40, this.canvas.width / 4, this.canvas.height / 4);
    const missing = (value, size) => Math.max(0, margin - value) - Math.max(0, value - (size - margin));
    this.move(missing(at.x, this.canvas.width), missing(at.y, this.canvas.height));
  }

  /** Where a pointer is on the canvas. */
  on(event) {
    const box = this.canvas.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  }

  /** The pixel of the image that a pointer is at. */
  place(event) {
    const { x, y } = this.on(event);
    return { x: (x - this.offset.x) / this.scale, y: (y - this.offset.y) / this.scale };
  }

  /** Two fingers zoom and move; whether there are two. */
  pinch(event) {
    if (event.pointerType !== "touch" || (event.type === "pointermove" && !this.fingers.has(event.pointerId))) return false;
    const before = this.#spread();
    if (event.type === "pointerup" || event.type === "pointercancel") this.fingers.delete(event.pointerId);
    else this.fingers.set(event.pointerId, this.on(event));
    const now = this.#spread();
    if (before && now && event.type === "pointermove") {
      this.zoom(now.distance / before.distance, before.middle);
      this.move(now.middle.x - before.middle.x, now.middle.y - before.middle.y);
    }
    return Boolean(before || now);
  }

  #spread() {
    if (this.fingers.size < 2) return null;
    const [one, other] = this.fingers.values();
    return {
      middle: { x: (one.x + other.x) / 2, y: (one.y + other.y) / 2 },
      distance: Math.max(1, Math.hypot(one.x - other.x, one.y - other.y)),
    };
  }
}
