// The colours of masks.

/** @import { Colour } from "../shared/types.js" */

// The colours of the ticket's own masks. The first is violet; a person takes another one where the object is violet.
/** @type {{fill: Colour, line: Colour}[]} */
export const OWN = [
  { fill: [165, 123, 255], line: [214, 196, 255] },
  { fill: [255, 226, 40], line: [255, 244, 160] },
  { fill: [0, 214, 255], line: [180, 242, 255] },
  { fill: [255, 96, 56], line: [255, 196, 176] },
];
/** @type {Colour} */
export const BEFORE = [255, 190, 70];

// The colours of other objects. The first six are those of Okabe and Ito; the others were chosen one after the other,
// each as far as possible from all before it and from violet, for every kind of colour vision.
/** @type {Colour[]} */
const OTHERS = [
  [230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [0, 114, 178], [213, 94, 0],
  [204, 255, 204], [102, 17, 255], [153, 187, 102], [153, 68, 51], [119, 85, 119], [0, 255, 255],
];

/** The colour of the n-th other object; objects with the same colour differ by their number. @type {(n: number) => Colour} */
export const colourOf = (n) => OTHERS[n % OTHERS.length];
