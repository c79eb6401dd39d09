// What a person chose for the look of the page, kept in this browser.

const PREFIX = "masklets.";

/**
 * A number between two bounds, or the usual one if none was chosen.
 * @param {string} name
 * @param {{least: number, most: number, usual: number}} bounds
 */
export function keptNumber(name, { least, most, usual }) {
  const text = localStorage.getItem(PREFIX + name);
  const value = text === null ? NaN : Number(text);
  return value >= least && value <= most ? value : usual;
}

/** Whether something is on; off if it was not chosen. @param {string} name */
export const keptSwitch = (name) => localStorage.getItem(PREFIX + name) === "on";

/**
 * @param {string} name
 * @param {number | boolean} value
 */
export function keep(name, value) {
  localStorage.setItem(PREFIX + name, typeof value === "boolean" ? (value ? "on" : "off") : String(value));
}
