// A mask that is painted: one class index for each pixel, changed by strokes that can be taken back.
// Nothing is smoothed: every pixel has the colour of one class, or white, as the service reads masks.

import { rgbOf } from "./masks.js";

const MOST_STEPS = 60;

export class Painting {
  constructor(width, height) {
    this.width = width;
    this.height = height;
    this.indices = new Uint8Array(width * height);
    this.done = [];
    this.undone = [];
  }

  /** Begin a step: what is painted until the next one is taken back together. */
  begin() {
    this.before = this.indices.slice();
    this.touched = false;
  }

  end() {
    if (!this.touched) return false;
    this.done.push(this.before);
    if (this.done.length > MOST_STEPS) this.done.shift();
    this.undone = [];
    this.touched = false;
    return true;
  }

  /** Take back what was painted since the step began. */
  cancel() {
    if (this.touched) this.indices = this.before;
    this.touched = false;
  }

  undo() {
    if (!this.done.length) return false;
    this.undone.push(this.indices);
    this.indices = this.done.pop();
    return true;
  }

  redo() {
    if (!this.undone.length) return false;
    this.done.push(this.indices);
    this.indices = this.undone.pop();
    return true;
  }

  set(x, y, index) {
    const at = y * this.width + x;
    if (this.indices[at] === index) return;
    this.indices[at] = index;
    this.touched = true;
  }

  /** A disc of `size` pixels across. */
  dab(centerX, centerY, size, index) {
    const radius = Math.max(0.5, size / 2);
    for (let y = Math.max(0, Math.ceil(centerY - radius)); y <= Math.min(this.height - 1, centerY + radius); y++) {
      for (let x = Math.max(0, Math.ceil(centerX - radius)); x <= Math.min(this.width - 1, centerX + radius); x++) {
        if ((x - centerX) ** 2 + (y - centerY) ** 2 <= radius * radius) this.set(x, y, index);
      }
    }
  }

  /** Discs along a line. */
  stroke(fromX, fromY, toX, toY, size, index) {
    const steps = Math.max(1, Math.ceil(Math.hypot(toX - fromX, toY - fromY) / Math.max(1, size / 4)));
    for (let step = 0; step <= steps; step++) {
      const part = step / steps;
      this.dab(fromX + (toX - fromX) * part, fromY + (toY - fromY) * part, size, index);
    }
  }

  /** The inside of a polygon, by the even-odd rule at the middle of each pixel. */
  fill(points, index) {
    for (let y = 0; y < this.height; y++) {
      const crossings = [];
      points.forEach(([ax, ay], number) => {
        const [bx, by] = points[(number + 1) % points.length];
        const middle = y + 0.5;
        if (ay > middle !== by > middle) crossings.push(ax + ((middle - ay) / (by - ay)) * (bx - ax));
      });
      crossings.sort((one, other) => one - other);
      for (let pair = 0; pair + 1 < crossings.length; pair += 2) {
        const last = Math.min(this.width - 1, Math.ceil(crossings[pair + 1] - 0.5) - 1);
        for (let x = Math.max(0, Math.ceil(crossings[pair] - 0.5)); x <= last; x++) this.set(x, y, index);
      }
    }
  }

  clear() {
    this.indices.fill(0);
    this.touched = true;
  }

  get used() {
    return new Set(this.indices);
  }

  /** The pixels with the classes' colours on `background` (white for the file, nothing for the screen). */
  image(colors, background) {
    const data = new Uint32Array(this.width * this.height);
    // Little-endian RGBA, as on every machine that has a browser.
    const palette = [background, ...colors.map((color) => {
      const rgb = rgbOf(color);
      return (0xff000000 | ((rgb & 255) << 16) | (rgb & 0xff00) | (rgb >> 16)) >>> 0;
    })];
    for (let at = 0; at < data.length; at++) data[at] = palette[this.indices[at]] ?? background;
    return new ImageData(new Uint8ClampedArray(data.buffer), this.width, this.height);
  }

  async png(colors) {
    const canvas = new OffscreenCanvas(this.width, this.height);
    canvas.getContext("2d").putImageData(this.image(colors, 0xffffffff), 0, 0);
    return canvas.convertToBlob({ type: "image/png" });
  }
}
