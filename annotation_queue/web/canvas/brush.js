// Drawing on a mask: discs along a stroke, and polygons. Bits are row-major, 1 inside, and are changed in place.

/** @import { Point } from "../shared/types.js" */

/**
 * Set discs along a line.
 * @param {Uint8Array} bits
 * @param {{height: number, width: number}} size  px
 * @param {Point} from  px
 * @param {Point} to  px
 * @param {number} radius  px
 * @param {0 | 1} value
 */
export function stroke(bits, { height, width }, from, to, radius, value) {
  const steps = Math.max(1, Math.ceil(Math.hypot(to[0] - from[0], to[1] - from[1]) / (radius / 2)));
  for (let n = 0; n <= steps; n++) {
    const cx = from[0] + ((to[0] - from[0]) * n) / steps;
    const cy = from[1] + ((to[1] - from[1]) * n) / steps;
    for (let y = Math.max(0, Math.floor(cy - radius)); y < Math.min(height, cy + radius); y++) {
      const half = Math.sqrt(Math.max(0, radius ** 2 - (y + 0.5 - cy) ** 2));
      if (half === 0) continue;
      const [x0, x1] = [Math.max(0, Math.round(cx - half)), Math.min(width, Math.round(cx + half))];
      if (x1 > x0) bits.fill(value, y * width + x0, y * width + x1);
    }
  }
}

/**
 * Set the inside of a polygon.
 * @param {Uint8Array} bits
 * @param {{height: number, width: number}} size  px
 * @param {Point[]} corners  px
 * @param {0 | 1} value
 */
export function polygon(bits, { height, width }, corners, value) {
  const c = new OffscreenCanvas(width, height).getContext("2d");
  if (c === null) throw new Error("this browser draws no canvas");
  c.beginPath();
  for (const [x, y] of corners) c.lineTo(x, y);
  c.fill();
  const filled = c.getImageData(0, 0, width, height).data;
  for (let i = 0; i < bits.length; i++) if (filled[4 * i + 3] > 127) bits[i] = value;
}
