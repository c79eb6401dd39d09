// COCO compressed run lengths. Runs alternate background, object, …, down the columns of the mask.

export function runs(counts) {
  // "04o0" → run lengths: base 32 digits with a continuation bit; from the fourth on, a difference to two before.
  const lengths = [];
  for (let at = 0; at < counts.length; ) {
    let value = 0;
    let shift = 0;
    let more = true;
    while (more) {
      const digit = counts.charCodeAt(at++) - 48;
      value += (digit & 31) * 2 ** shift;
      more = (digit & 32) !== 0;
      shift += 5;
      if (!more && digit & 16) value -= 2 ** shift;
    }
    lengths.push(lengths.length > 2 ? value + lengths[lengths.length - 2] : value);
  }
  return lengths;
}

export class Mask {
  // One mask, row-major: `bits[y * width + x]` is 1 inside; `box` is [x0, y0, x1, y1], ends excluded, or null.
  constructor(counts, height, width) {
    this.height = height;
    this.width = width;
    this.bits = new Uint8Array(height * width);
    let [x0, y0, x1, y1] = [width, height, 0, 0];
    let at = 0;
    let inside = false;
    let area = 0;
    for (const length of runs(counts)) {
      if (inside && length > 0) {
        area += length;
        let x = Math.floor(at / height);
        let y = at - x * height;
        for (let n = 0; n < length; n++) {
          this.bits[y * width + x] = 1;
          if (y < y0) y0 = y;
          if (y >= y1) y1 = y + 1;
          if (++y === height) {
            y = 0;
            x++;
          }
        }
        x0 = Math.min(x0, Math.floor(at / height));
        x1 = Math.max(x1, Math.floor((at + length - 1) / height) + 1);
      }
      at += length;
      inside = !inside;
    }
    this.area = area;
    this.box = area ? [x0, y0, x1, y1] : null;
  }

  isEdge(x, y, thickness) {
    // Whether the object ends within `thickness` pixels along an axis. The frame's border is not an end.
    const { bits, width, height } = this;
    for (let d = 1; d <= thickness; d++) {
      if (x >= d && !bits[y * width + x - d]) return true;
      if (x + d < width && !bits[y * width + x + d]) return true;
      if (y >= d && !bits[(y - d) * width + x]) return true;
      if (y + d < height && !bits[(y + d) * width + x]) return true;
    }
    return false;
  }
}
