// The filters of the list of tickets: a form, and the same as a query. The address of the page holds them.

import * as api from "../shared/api.js";
import { element } from "../shared/dom.js";
import { nameOfBatch } from "../shared/names.js";
import { ASKS, REASONS, VERDICTS } from "../shared/words.js";

/** @typedef {[value: string, text: string]} Choice */
/** @typedef {"people" | "projects" | "batches" | "checkpoints" | "labels"} Offered  names that the queue knows */

/**
 * A field of the form. `choices`: a list to choose from, or a word for what it offers; none: a text or a number.
 * @typedef {object} Field
 * @property {string} name  of the query
 * @property {string} title
 * @property {Choice[] | Offered} [choices]
 * @property {boolean} [share]  two numbers from 0 to 1, NAME_from and NAME_to
 * @property {string} [hint]
 */

/** @type {Choice[]} */
const STATES = [["open", "Open"], ["leased", "Held"], ["done", "Done"]];
/** @type {Choice[]} */
const ORDERS = [["newest", "Newest first"], ["score", "Lowest score first"], ["agreement", "Lowest agreement first"]];

/** @type {Field[]} */
const FIELDS = [
  { name: "text", title: "Search", hint: "id of a ticket or a video" },
  { name: "state", title: "State", choices: STATES },
  { name: "kind", title: "Kind", choices: Object.entries(ASKS).map(([kind, { name }]) => [kind, name]) },
  { name: "verdict", title: "Verdict", choices: VERDICTS.map(({ verdict, title }) => [verdict, title]) },
  { name: "reason", title: "Reason", choices: Object.entries(REASONS) },
  { name: "person", title: "Person", choices: "people", hint: "who holds, decided or is to get it" },
  { name: "project", title: "Project", choices: "projects" },
  { name: "batch_id", title: "Batch", choices: "batches" },
  { name: "label", title: "Label", choices: "labels" },
  { name: "checkpoint", title: "Checkpoint", choices: "checkpoints" },
  { name: "score", title: "Score, 0 to 1", share: true, hint: "the mean of the model's own scores" },
  { name: "agreement", title: "Agreement, 0 to 1", share: true, hint: "of several answers to the same ticket" },
  { name: "order", title: "Order", choices: ORDERS },
];

/**
 * Fill a form with the fields. Returns a function that shows a query in it.
 * @param {HTMLFormElement} form
 * @param {(query: URLSearchParams) => void} onchange
 */
export async function makeFilters(form, onchange) {
  const offered = await offers();
  /** @type {(HTMLInputElement | HTMLSelectElement)[]} */
  const inputs = [];
  const fields = FIELDS.filter(({ choices }) => choices !== "projects" || offered.projects.length > 0);
  form.replaceChildren(...fields.map((field) => {
    const made = field.share ? [shareOf(field, "from"), shareOf(field, "to")] : [inputOf(field, offered)];
    inputs.push(...made);
    const title = element("span", {}, field.title);
    return field.share
      ? element("div", { className: "field" }, title, element("span", { className: "share-of" }, made[0], "to", made[1]))
      : element("label", { className: "field" }, title, made[0]);
  }));
  form.append(element("button", { type: "button", className: "quiet bordered", onclick: clear }, "Clear"));
  let shown = "";
  const changed = () => {
    const query = queryOf(inputs);
    shown = query.toString();
    onchange(query);
  };
  form.addEventListener("change", changed);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    changed();
  });
  function clear() {
    for (const input of inputs) input.value = "";
    changed();
  }
  return (/** @type {URLSearchParams} */ query) => {
    if (query.toString() === shown) return; // it comes from the form, in which somebody may be writing again
    shown = query.toString();
    for (const input of inputs) showIn(input, query.get(input.name) ?? "");
  };
}

/** The names that some fields offer. @returns {Promise<Record<Offered, Choice[]>>} */
async function offers() {
  const [me, people, batches, figures] = await Promise.all([api.me(), api.people(), api.batches(), api.figures()]);
  return {
    people: people.map(({ name }) => [name, name]),
    projects: me.projects.map((name) => [name, name]),
    batches: batches.map((batch) => [batch.batch_id, nameOfBatch(batch)]),
    labels: figures.labels.map(({ name }) => [name, name]),
    checkpoints: figures.checkpoints.flatMap(({ name }) => (name ? [[name, name]] : [])),
  };
}

/** @type {(field: Field, end: "from" | "to") => HTMLInputElement} */
const shareOf = ({ name, title, hint }, end) => element("input", {
  name: `${name}_${end}`, type: "number", min: "0", max: "1", step: "any", title: hint ?? title, ariaLabel: `${title}: ${end}`,
});

/**
 * @param {Field} field
 * @param {Record<Offered, Choice[]>} offered
 */
function inputOf({ name, title, choices, hint }, offered) {
  if (choices === undefined) return element("input", { name, type: "search", maxLength: 128, title: hint, placeholder: hint });
  const all = typeof choices === "string" ? offered[choices] : choices;
  const options = all.map(([value, text]) => element("option", { value }, text));
  const any = name === "order" ? [] : [element("option", { value: "" }, "any")];
  return element("select", { name, title: hint ?? title }, ...any, ...options);
}

/**
 * Show a value in a field, also one that it does not offer: an old checkpoint in somebody's link.
 * @param {HTMLInputElement | HTMLSelectElement} input
 * @param {string} value
 */
function showIn(input, value) {
  if (input instanceof HTMLSelectElement) {
    const wanted = value || (input.name === "order" ? "newest" : "");
    const known = [...input.options].some((option) => option.value === wanted);
    if (!known) input.append(element("option", { value: wanted }, wanted));
    input.value = wanted;
  } else input.value = value;
}

/** @param {(HTMLInputElement | HTMLSelectElement)[]} inputs */
function queryOf(inputs) {
  const given = inputs.filter(({ value, name }) => value.trim() && !(name === "order" && value === "newest"));
  return new URLSearchParams(given.map(({ name, value }) => [name, value.trim()]));
}
