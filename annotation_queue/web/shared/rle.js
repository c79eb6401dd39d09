// COCO compressed run lengths. Runs alternate background, object, …, down the columns of the mask.

/**
 * The run lengths of a compressed mask such as "04o0".
 *
 * A number is written as base 32 digits with a continuation bit. From the fourth number on it is the difference to
 * the number two before.
 * @param {string} counts
 */
export function runs(counts) {
  /** @type {number[]} */
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

/** One mask, row-major: `bits[y * width + x]` is 1 inside. `box` is [x0, y0, x1, y1], ends excluded, or null. */
export class Mask {
  /**
   * @param {string} counts
   * @param {number} height
   * @param {number} width
   */
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

/**
 * The runs inside a mask, cut at the ends of columns.
 * @typedef {object} Spans
 * @property {Int32Array} first  column x has the spans first[x] … first[x + 1] - 1
 * @property {number[]} from  span i covers the rows from[i] … to[i] - 1
 * @property {number[]} to
 */

/**
 * @param {number[]} lengths
 * @param {number} height
 * @param {number} width
 * @returns {Spans}
 */
export function spans(lengths, height, width) {
  const first = new Int32Array(width + 1);
  /** @type {number[]} */
  const from = [];
  /** @type {number[]} */
  const to = [];
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

/**
 * The inverse of `runs`: run lengths → "04o0".
 * @param {number[]} lengths
 */
export function counts(lengths) {
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

/**
 * The run lengths of row-major bits.
 * @param {Uint8Array} bits
 * @param {number} height
 * @param {number} width
 */
export function measured(bits, height, width) {
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

/** @type {(bits: Uint8Array, height: number, width: number) => string} */
export const encode = (bits, height, width) => counts(measured(bits, height, width));

/** @type {(height: number, width: number) => string} */
export const empty = (height, width) => counts([height * width]);

/**
 * Pixels inside a compressed mask.
 * @param {string} text
 */
export function area(text) {
  let sum = 0;
  const lengths = runs(text);
  for (let i = 1; i < lengths.length; i += 2) sum += lengths[i];
  return sum;
}

/**
 * Intersection over union of two compressed masks of one size; 1 if both are empty. Compares runs, decodes no mask.
 * @param {string} a
 * @param {string} b
 */
export function iou(a, b) {
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
