// Masks as pixels: from a PNG to one class index for each pixel, and the outlines of what isn't background.

export function loadImage(url) {
  return new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = () => reject(new Error("The image can't be shown"));
    image.src = url;
  });
}

/** An image that the service has answered in base64. */
export function imageOf(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  return loadImage(URL.createObjectURL(new Blob([bytes], { type: "image/png" })));
}

/** Lay a grey anomaly map over a canvas: nothing where it is dark, yellow and then red where it is bright. */
export function drawHeat(context, map, width, height) {
  const layer = new OffscreenCanvas(width, height);
  const pixels = layer.getContext("2d");
  pixels.drawImage(map, 0, 0, width, height);
  const heat = pixels.getImageData(0, 0, width, height);
  for (let at = 0; at < heat.data.length; at += 4) {
    const value = heat.data[at];
    heat.data.set([255, Math.max(0, 230 - value), 0, Math.min(190, value)], at);
  }
  pixels.putImageData(heat, 0, 0);
  context.drawImage(layer, 0, 0);
}

/** Lay a mask in its own colours over a canvas, without its background. */
export function drawMask(context, mask, width, height) {
  const layer = new OffscreenCanvas(width, height);
  const pixels = layer.getContext("2d");
  pixels.drawImage(mask, 0, 0, width, height);
  const data = pixels.getImageData(0, 0, width, height);
  for (let at = 0; at < data.data.length; at += 4) {
    const white = data.data[at] > 250 && data.data[at + 1] > 250 && data.data[at + 2] > 250;
    data.data[at + 3] = white ? 0 : 150;
  }
  pixels.putImageData(data, 0, 0);
  context.drawImage(layer, 0, 0);
}

export const rgbOf = (color) => parseInt(color.slice(1), 16);

/** The pixels of an image, scaled to `width` x `height` without mixing colours. */
export function pixelsOf(image, width, height) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingEnabled = false;
  context.drawImage(image, 0, 0, width, height);
  return context.getImageData(0, 0, width, height).data;
}

/** The class index of each pixel: 0 for background, 1 for the first colour. Other colours are background. */
export function indicesOf(image, colors, width, height) {
  const data = pixelsOf(image, width, height);
  const index = new Map(colors.map((color, number) => [rgbOf(color), number + 1]));
  const indices = new Uint8Array(width * height);
  for (let pixel = 0, at = 0; pixel < indices.length; pixel++, at += 4) {
    if (data[at + 3] < 128) continue;
    indices[pixel] = index.get((data[at] << 16) | (data[at + 1] << 8) | data[at + 2]) ?? 0;
  }
  return indices;
}

/** Everything that is neither white nor black nor transparent, as indices of 0 and 1. */
export function foregroundOf(image, width, height) {
  const data = pixelsOf(image, width, height);
  const indices = new Uint8Array(width * height);
  for (let pixel = 0, at = 0; pixel < indices.length; pixel++, at += 4) {
    const rgb = (data[at] << 16) | (data[at + 1] << 8) | data[at + 2];
    indices[pixel] = data[at + 3] >= 128 && rgb !== 0xffffff && rgb !== 0 ? 1 : 0;
  }
  return indices;
}

/** Draw the outlines of the classes over a canvas of the same size. */
export function drawOutlines(context, indices, width, height, color, thickness) {
  const layer = new ImageData(width, height);
  const rgb = rgbOf(color);
  const reach = Math.max(1, Math.round(thickness));
  const differs = (at, x, y) => x < 0 || y < 0 || x >= width || y >= height || indices[y * width + x] !== indices[at];
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      if (!indices[at]) continue;
      if (!(differs(at, x - reach, y) || differs(at, x + reach, y) || differs(at, x, y - reach) || differs(at, x, y + reach))) continue;
      layer.data.set([rgb >> 16, (rgb >> 8) & 255, rgb & 255, 255], at * 4);
    }
  }
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d").putImageData(layer, 0, 0);
  context.drawImage(canvas, 0, 0);
}
