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
}

export function spans(lengths, height, width) {
  // The runs inside, cut at the ends of columns: column x has the spans first[x] … first[x + 1] - 1, each of the rows
  // from[i] … to[i] - 1.
  const first = new Int32Array(width + 1);
  const [from, to] = [[], []];
  let [at, column] = [0, 0];
  for (let i = 0; i < lengths.length; at += lengths[i++]) {
    if (!(i & 1)) continue;
    for (let y = at % height, x = (at - y) / height, left = lengths[i]; left > 0; x++, y = 0) {
      while (column < x) first[++column] = from.length;
      const end = Math.min(height, y + left);
      from.push(y);
      to.push(end);
      left -= end - y;
    }
  }
  while (column < width) first[++column] = from.length;
  return { first, from, to };
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

export function measured(bits, height, width) {
  // Row-major bits → run lengths.
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
  return lengths;
}

export const encode = (bits, height, width) => counts(measured(bits, height, width));

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
