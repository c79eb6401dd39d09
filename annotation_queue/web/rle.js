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

  static of(bits, height, width) {
    // A mask from row-major bits, which it does not copy.
    const mask = new Mask(empty(height, width), height, width);
    let [x0, y0, x1, y1, area] = [width, height, 0, 0, 0];
    for (let y = 0, at = 0; y < height; y++) {
      for (let x = 0; x < width; x++, at++) {
        if (!bits[at]) continue;
        area++;
        if (x < x0) x0 = x;
        if (x >= x1) x1 = x + 1;
        if (y < y0) y0 = y;
        y1 = y + 1;
      }
    }
    return Object.assign(mask, { bits, area, box: area ? [x0, y0, x1, y1] : null });
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

export function counts(lengths) {
  // Run lengths → "04o0", the inverse of `runs`.
  let text = "";
  for (let i = 0; i < lengths.length; i++) {
    let value = i > 2 ? lengths[i] - lengths[i - 2] : lengths[i];
    for (let more = true; more; ) {
      const digit = value & 31;
      value >>= 5;
      more = digit & 16 ? value !== -1 : value !== 0;
      text += String.fromCharCode((more ? digit | 32 : digit) + 48);
    }
  }
  return text;
}

export function encode(bits, height, width) {
  // Row-major bits → compressed run lengths.
  const lengths = [];
  let run = 0;
  let inside = 0;
  for (let x = 0; x < width; x++) {
    for (let y = 0, at = x; y < height; y++, at += width) {
      if (bits[at] === inside) run++;
      else {
        lengths.push(run);
        run = 1;
        inside ^= 1;
      }
    }
  }
  lengths.push(run);
  return counts(lengths);
}

export const empty = (height, width) => counts([height * width]);

export function area(text) {
  let sum = 0;
  const lengths = runs(text);
  for (let i = 1; i < lengths.length; i += 2) sum += lengths[i];
  return sum;
}

export function iou(a, b) {
  // Intersection over union of two masks of one size; 1 where both are empty. Walks the runs: nothing is decoded.
  const [one, two] = [runs(a), runs(b)];
  let [i, j, left, right, both, either] = [0, 0, one[0], two[0], 0, 0];
  while (i < one.length && j < two.length) {
    const step = Math.min(left, right);
    if (i & 1 && j & 1) both += step;
    if (i & 1 || j & 1) either += step;
    if ((left -= step) === 0) left = one[++i];
    if ((right -= step) === 0) right = two[++j];
  }
  return either ? both / either : 1;
}
