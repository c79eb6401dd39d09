// How the lead's page writes figures: tables whose numbers stand under each other, bars with a legend, units.

/** @import { Share } from "./types.js" */
import { element } from "./dom.js";

/** @typedef {number | null | undefined} Maybe  a number that may not be known yet */
/** @typedef {string | number | HTMLElement} Cell */

/**
 * @typedef {object} Column
 * @property {string} head
 * @property {string} [unit]  of its numbers, under the head
 * @property {"text" | "number" | "bars" | "words"} [is]  "words": a text that may wrap; "text" without it
 */

/** @type {(share: Maybe) => string} */
export const percent = (share) => (share === null || share === undefined ? "–" : String(Math.round(100 * share)));
/** @type {(share: Share | null) => number | null} */
export const ratio = (share) => (share?.of ? share.right / share.of : null);
/** @type {(value: Maybe, digits?: number) => string} */
export const number = (value, digits = 1) => (value === null || value === undefined ? "–" : value.toFixed(digits));

/** @param {number | null} seconds */
export function time(seconds) {
  if (seconds === null) return "–";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

/**
 * A table. Rows that begin with the same text are one group: it is written once.
 * @param {Column[]} columns
 * @param {Cell[][]} rows
 * @param {string} nothing  what is said if there are no rows
 * @param {Cell[]} [sum]  the last line, of all rows together
 */
export function table(columns, rows, nothing, sum) {
  if (rows.length === 0) return element("p", { className: "none" }, nothing);
  const head = element("tr", {}, ...columns.map(({ head: text, unit, is }) =>
    element("th", { scope: "col", className: is ?? "text" }, text, ...(unit ? [element("small", {}, unit)] : []))));
  const body = element("tbody", {}, ...rows.map((row) => rowOf(columns, row)));
  group(body);
  const foot = sum && rows.length > 1 ? [element("tfoot", {}, rowOf(columns, sum))] : []; // one row is its own sum
  return element("div", { className: "scrolls" },
    element("table", {}, element("thead", {}, head), body, ...foot));
}

/**
 * @param {Column[]} columns
 * @param {Cell[]} row
 */
const rowOf = (columns, row) => element("tr", {}, ...row.map((content, n) =>
  element("td", { className: `${columns[n].is ?? "text"}${n ? "" : " first"}` }, content instanceof HTMLElement ? content : String(content))));

/** Write the first cell of rows once where it is the same. @param {HTMLTableSectionElement} body */
function group(body) {
  /** @type {HTMLTableCellElement | null} */
  let first = null;
  for (const row of [...body.rows]) {
    const [cell] = row.cells;
    if (first && cell.textContent !== "–" && first.textContent === cell.textContent) {
      first.rowSpan++;
      cell.remove();
    } else first = cell;
  }
}

/**
 * A bar of parts. Its numbers are its title, and its text for screen readers.
 * @param {Record<string, number>} counts
 * @param {string[]} names  of the parts, in order
 */
export function shares(counts, names) {
  const sum = names.reduce((n, name) => n + (counts[name] ?? 0), 0);
  const text = names.filter((name) => counts[name]).map((name) => `${counts[name]} ${name}`).join(", ") || "none";
  const bar = element("div", { className: "share", title: text, role: "img", ariaLabel: text });
  for (const name of names) {
    const part = element("i", { className: name });
    part.style.width = `${sum ? (100 * (counts[name] ?? 0)) / sum : 0}%`;
    bar.append(part);
  }
  return bar;
}

/**
 * A share with its confidence interval, on a scale from 0 to 100 %.
 * @param {Share} share
 */
export function range({ right, of, low, high }) {
  const text = `${percent(low)} to ${percent(high)} %`;
  const bar = element("div", { className: "range", title: text, role: "img", ariaLabel: text });
  const span = element("i");
  span.style.left = `${100 * low}%`;
  span.style.right = `${100 - 100 * high}%`;
  const at = element("b");
  at.style.left = `${(100 * right) / of}%`;
  bar.append(span, at);
  return bar;
}

/**
 * What the colours of the bars mean.
 * @param {[className: string, text: string][]} keys
 */
export const legend = (keys) => element("p", { className: "legend" }, ...keys.map(([name, text]) =>
  element("span", {}, element("i", { className: `key ${name}` }), text)));
