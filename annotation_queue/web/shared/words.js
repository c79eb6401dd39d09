// The page's names for kinds of work, verdicts and reasons, and how it writes numbers.

/** @import { Kind, Reason, Verdict } from "./types.js" */

/** @type {{verdict: Verdict, title: string, hint: string}[]} */
export const VERDICTS = [
  { verdict: "accept", title: "Accept", hint: "right in every frame" },
  { verdict: "refine", title: "Refine", hint: "a clear object, to be corrected" },
  { verdict: "reject", title: "Reject", hint: "not a well-defined object" },
  { verdict: "unsure", title: "Unsure", hint: "a lead decides" },
];

/** @type {Record<Reason, string>} */
export const REASONS = {
  not_an_object: "Not an object",
  wrong_boundary: "Wrong boundary",
  identity_switch: "Jumps to another object",
  drift: "Drifts off the object",
  missed_reappearance: "Misses its return",
  duplicate: "Same object as another",
  untrackable: "Cannot be tracked",
  objectionable: "Objectionable video",
  other: "Something else",
};

export const INSTANCE = "instance"; // the attribute with the number of an object among those of its class in the video

/** The reasons that a verdict may have.
 * @type {{[verdict in Verdict]?: Reason[]}} */
export const WHY = {
  refine: ["wrong_boundary", "identity_switch", "drift", "missed_reappearance", "other"],
  reject: ["not_an_object", "duplicate", "untrackable", "objectionable", "other"],
};

/** @type {Record<Kind, {name: string, question: string}>} */
export const ASKS = {
  verify: { name: "Verify", question: "Is this mask right in every frame?" },
  track: { name: "Correct", question: "Make this masklet right in every frame." },
  select: { name: "Select", question: "Mask a challenging object that nobody has masked yet." },
};

export const NUMBERS = new Intl.NumberFormat("en");

/**
 * A label with the number of the object among those of its class: "car 2".
 * @param {string} name
 * @param {Record<string, unknown>} attributes
 */
export const labelText = (name, attributes) => [name, attributes[INSTANCE]].filter((part) => part !== undefined).join(" ");

/**
 * "1 frame", "2 frames".
 * @param {number} n
 * @param {string} word
 * @param {string} [several]  the plural, where it is not the word and an s
 */
export const many = (n, word, several = `${word}s`) => `${n} ${n === 1 ? word : several}`;
