// The label of a ticket's object: its class and its attributes, as the ticket's ontology allows. Both follow from the
// masklet that the ticket came with and from the operations of the kind "label". Knows nothing of the document.
// The server decides the same in annotation_queue/labels.py.

/** @import { Attribute, Label, Masklet, ObjectClass, Ontology, Operation, Rules, Ticket, Value, Verdict } from "./types.js" */
/** @import { Draft } from "./draft.js" */
import { standing } from "./draft.js";
import { INSTANCE } from "./words.js";

/** @type {Attribute} */
const NUMBER = { name: INSTANCE, kind: "number", values: [], required: false };

export class Labelling {
  /** @type {Operation[]} */ #own = []; // of a verify ticket: its labels, and what undoes them
  /** @type {Set<string>} */ #refused = new Set();
  #ticket;
  #rules;
  #before;
  #draft;

  /**
   * @param {Ticket} ticket
   * @param {Rules} rules
   * @param {Ontology} ontology
   * @param {Masklet | null} before  as the ticket came
   * @param {Draft | null} draft  has the operations, except on verify tickets
   */
  constructor(ticket, rules, ontology, before, draft) {
    this.ontology = ontology;
    this.#ticket = ticket;
    this.#rules = rules;
    this.#before = before;
    this.#draft = draft;
  }

  /** @param {Operation} operation  a label, or the undo or redo of one */
  add(operation) {
    if (this.#draft) return this.#draft.add(operation);
    if (!this.#own.some(({ operation_id }) => operation_id === operation.operation_id)) this.#own.push(operation);
  }

  /** @param {string} operationId  which the queue has not accepted */
  refuse(operationId) {
    this.#refused.add(operationId);
  }

  /** The labels that were chosen, and those that a redo would bring back. */
  get operations() {
    const found = this.#draft ?? standing(this.#own.filter(({ operation_id }) => !this.#refused.has(operation_id)));
    const labels = (/** @type {Operation[]} */ all) => all.filter(({ kind }) => kind === "label");
    return { done: labels(found.done), undone: labels(found.undone) };
  }

  /** What is said of the object now. @returns {Label} */
  get label() {
    const last = this.operations.done.at(-1)?.payload;
    if (last) return { name: last.label ?? null, attributes: last.attributes ?? {} };
    return { name: this.#before?.label ?? null, attributes: JSON.parse(this.#before?.attributes ?? "{}") };
  }

  /** The class of the object, or undefined if nothing is said, or a class that the ontology does not have. */
  get chosen() {
    return this.ontology.classes.find(({ name }) => name === this.label.name);
  }

  /** @param {ObjectClass} of  @returns {Attribute[]}  those that an object of this class may have */
  attributesOf(of) {
    return [...(of.instances === "numbered" ? [NUMBER] : []), ...of.attributes, ...this.ontology.attributes];
  }

  /** The attributes of a class that are said of the object already, for another class. @param {ObjectClass} of */
  carried(of) {
    const known = this.attributesOf(of).filter((attribute) => attribute !== NUMBER && fits(attribute, this.label.attributes[attribute.name]));
    return Object.fromEntries(known.map(({ name }) => [name, this.label.attributes[name]]));
  }

  /** Whether the ticket needs a label before this answer. @param {Verdict | null} verdict  null: a masklet */
  asks(verdict) {
    const at = this.#rules.label_at ?? "never";
    const { kind, masklet_id } = this.#ticket;
    if (at === "verify") return kind === "verify" && verdict === "accept";
    const picks = kind === "select" || (masklet_id === null && this.#rules.begun_by !== undefined);
    return at === "select" && picks && verdict === null;
  }

  /** What a complete label lacks: "a label", "the attribute pose"; or null. */
  get missing() {
    const { chosen } = this;
    if (!chosen) return "a label";
    const needed = this.attributesOf(chosen).find(({ name, required }) => required && !(name in this.label.attributes));
    return needed ? `the attribute ${needed.name}` : null;
  }
}

/** @type {(attribute: Attribute, value: Value | undefined) => boolean} */
function fits({ kind, values }, value) {
  if (kind === "choice") return typeof value === "string" && values.includes(value);
  return typeof value === { boolean: "boolean", number: "number", text: "string" }[kind];
}
