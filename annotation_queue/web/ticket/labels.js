// The label of the object on screen: its classes with their keys and colours, its attributes, and the guidelines.

/** @import { Attribute, ObjectClass, Ontology, Operation, Payload, Value, Verdict } from "../shared/types.js" */
/** @import { HeldTicket } from "../shared/held.js" */
import * as api from "../shared/api.js";
import { $, element, replace } from "../shared/dom.js";
import * as keys from "../shared/keys.js";
import { markdown } from "./markdown.js";
import { notice } from "./messages.js";
import { showOthers } from "./objects.js";
import { player } from "./screen.js";
import { sendOperation } from "./sending.js";
import { session } from "../shared/session.js";
import { INSTANCE, labelText } from "../shared/words.js";

const MANY = 9; // with more classes, they can be searched

/** @type {{version: string, made: HTMLElement} | null} */
let guidelines = null; // of the last ontology
let wanted = ""; // what classes are searched for
let shown = ""; // what the box was drawn for

/** The labelling of the ticket on screen, or null where objects get no labels. */
const current = () => session.current?.labelling ?? null;

// --- what is chosen --------------------------------------------------------------------------------------------------

/**
 * @param {HeldTicket} held
 * @param {"label" | "undo" | "redo"} kind
 * @param {Payload} payload
 */
function act(held, kind, payload) {
  if (held.lost || held.finished) return;
  /** @type {Operation} */
  const operation = { operation_id: api.newId(), kind, frame_idx: null, payload, created_at: new Date().toISOString() };
  held.labelling?.add(operation);
  sendOperation(held, operation);
  held.habit = null;
  session.emit("draft");
}

/**
 * Say what the object is; saying the same class again takes it back.
 * @param {ObjectClass} chosen
 */
export function chooseClass(chosen) {
  const [held, labelling] = [session.current, current()];
  if (!held || !labelling) return;
  const again = labelling.label.name === chosen.name;
  const attributes = again ? {} : labelling.carried(chosen);
  act(held, "label", { label: again ? null : chosen.name, attributes });
}

/**
 * @param {string} name  of an attribute
 * @param {Value | null} value  null: nothing is said of it
 */
function setAttribute(name, value) {
  const [held, labelling] = [session.current, current()];
  if (!held || !labelling) return;
  const attributes = { ...labelling.label.attributes };
  if (value === null) delete attributes[name];
  else attributes[name] = value;
  act(held, "label", { label: labelling.label.name, attributes });
}

/** Take back the last label of a verify ticket; on other tickets, the desk undoes it among everything else. */
export function undoLabel() {
  const last = current()?.operations.done.at(-1);
  if (!session.current || !last) return notice("There is no label to undo.");
  act(session.current, "undo", { operation_id: last.operation_id });
}

/** Bring back the last label of a verify ticket that was undone. */
export function redoLabel() {
  const last = current()?.operations.undone.at(-1);
  if (!session.current || !last) return notice("There is no label to redo.");
  act(session.current, "redo", { operation_id: last.operation_id });
}

/**
 * Choose the class that has this key. False if none has it.
 * @param {KeyboardEvent} event
 */
export function chooseByKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return false;
  const digit = keys.digitOf(event);
  const pressed = Number.isNaN(digit) ? event.key : String(digit);
  const found = current()?.ontology.classes.find(({ key }) => key === pressed);
  if (found) chooseClass(found);
  return Boolean(found);
}

/**
 * Whether the ticket needs a label that is missing before this answer. If so, the person reads it.
 * @param {HeldTicket} held
 * @param {Verdict | null} verdict  null: a masklet
 */
export function lacksLabel({ labelling }, verdict) {
  const missing = labelling?.asks(verdict) ? labelling.missing : null;
  if (!labelling || !missing) return false;
  const first = labelling.ontology.classes.filter(({ key }) => key !== null).slice(0, 3);
  const how = missing === "a label" ? `: ${first.map(({ key, name }) => `${key} ${name}`).join(", ")} …` : ".";
  notice(`This ticket asks for ${missing} before you ${verdict ?? "submit"}${how}`, { until: () => labelling.missing === null });
  return true;
}

/** Put the cursor where a class is chosen by its name, or on the first class. */
export function searchLabel() {
  if (!current()) return notice("This ticket takes no label.");
  const box = $("labels");
  /** @type {HTMLElement | null} */ (box.querySelector("input[type=search]") ?? box.querySelector("button"))?.focus();
}

/** Fold the guidelines out, or in again. */
export function toggleGuidelines() {
  const details = $("labels").querySelector("details");
  if (!details) return notice("This ticket has no guidelines.");
  details.open = !details.open;
  if (details.open) details.scrollIntoView({ block: "nearest" });
}

// --- what is shown ---------------------------------------------------------------------------------------------------

export function showLabels() {
  const box = $("labels");
  const labelling = current();
  box.hidden = labelling === null;
  if (!labelling) return;
  const { ontology, chosen, label } = labelling;
  const { ticket } = session.current ?? {};
  const state = JSON.stringify([ticket?.ticket_id, ticket?.lease_token, label, wanted, keys.chosenKeys()]);
  if (state === shown) return; // what was scrolled or is being written stays
  shown = state;
  const asked = ["accept", null].some((answer) => labelling.asks(/** @type {Verdict | null} */ (answer)));
  const said = chosen ? labelText(chosen.name, label.attributes) : (label.name === null ? "none yet" : `${label.name}, which is not among the classes`);
  const needs = asked && labelling.missing ? ` · needs ${labelling.missing}` : "";
  const opened = box.querySelector("details")?.open ?? false;
  replace(
    box,
    element("p", { className: "label", role: "status", id: "label-said" }, `Label: ${said}${needs}`),
    ...(ontology.classes.length > MANY ? [search()] : []),
    classes(ontology),
    ...(chosen ? [element("div", { className: "attributes" }, ...labelling.attributesOf(chosen).map(field))] : []),
    ...foldedGuidelines(ontology, opened),
  );
}

/** The classes to choose from. @param {Ontology} ontology */
function classes({ classes }) {
  const found = classes.filter(({ name, key }) => !wanted || key === wanted || name.toLowerCase().includes(wanted.toLowerCase()));
  const chosen = current()?.chosen;
  const side = session.current?.side ?? "verify";
  return element(
    "div", { className: "classes", role: "group", ariaLabel: "Classes" },
    ...found.map((each) => {
      const swatch = element("i", { className: "swatch", ariaHidden: "true" });
      swatch.style.background = each.colour;
      const properties = {
        type: /** @type {const} */ ("button"), id: `class-${classes.indexOf(each)}`, className: "class",
        ariaPressed: String(each === chosen), onclick: () => chooseClass(each),
      };
      const works = each.key !== null && !keys.isTaken(each.key, side);
      return element("button", properties, swatch, element("span", {}, each.name), ...(works ? [element("kbd", {}, each.key ?? "")] : []));
    }),
  );
}

function search() {
  const input = element("input", {
    type: "search", id: "label-search", value: wanted, placeholder: "Find a class", ariaLabel: "Find a class", autocomplete: "off",
  });
  input.addEventListener("input", () => {
    wanted = input.value.trim();
    const { selectionStart } = input;
    showLabels();
    $("label-search", HTMLInputElement).setSelectionRange(selectionStart, selectionStart);
  });
  input.addEventListener("keydown", ({ key }) => {
    if (key !== "Enter" && key !== "Escape") return;
    if (key === "Enter") $("labels").querySelector(".class")?.dispatchEvent(new MouseEvent("click"));
    wanted = "";
    showLabels();
    if (document.activeElement instanceof HTMLElement) document.activeElement.blur(); // the keys are for the page again
  });
  return input;
}

/** An attribute of the object, to be said. @type {(attribute: Attribute, n: number) => HTMLElement} */
function field({ name, kind, values, required }, n) {
  const value = current()?.label.attributes[name];
  const id = `attribute-${n}`;
  const blur = (/** @type {Event} */ { target }) => target instanceof HTMLElement && target.blur();
  let input;
  if (kind === "boolean" || kind === "choice") {
    const choices = kind === "boolean" ? ["true", "false"] : [...values];
    const options = ["", ...choices].map((each) => element("option", { value: each, selected: String(value ?? "") === each },
      kind === "boolean" ? { true: "yes", false: "no" }[each] ?? "–" : each || "–"));
    const onchange = (/** @type {Event} */ event) => {
      const { value: now } = /** @type {HTMLSelectElement} */ (event.target);
      blur(event);
      setAttribute(name, now === "" ? null : kind === "boolean" ? now === "true" : now);
    };
    input = element("select", { id, onchange }, ...options);
  } else {
    const onchange = (/** @type {Event} */ event) => {
      const { value: now } = /** @type {HTMLInputElement} */ (event.target);
      blur(event);
      setAttribute(name, now.trim() === "" ? null : kind === "number" ? Number(now) : now.trim());
    };
    input = element("input", { id, type: kind, value: String(value ?? ""), maxLength: 200, step: "any", onchange });
    if (name === INSTANCE) Object.assign(input, { min: "1", step: "1", placeholder: "the next free one" });
  }
  return element("label", { htmlFor: id }, element("span", {}, required ? `${name} *` : name), input);
}

/** @type {(ontology: Ontology, open: boolean) => HTMLElement[]} */
function foldedGuidelines(ontology, open) {
  const { rules } = session.current ?? {};
  if (!rules?.ontology || !(ontology.guidelines || ontology.classes.some(({ guideline }) => guideline))) return [];
  const version = rules.ontology;
  if (guidelines?.version !== version) guidelines = { version, made: pageOf(ontology, version) };
  const summary = element("summary", {}, "Guidelines ", element("kbd", {}, keys.hint("guidelines")));
  return [element("details", { open }, summary, guidelines.made)];
}

/** The guidelines of all classes. @type {(ontology: Ontology, version: string) => HTMLElement} */
function pageOf({ guidelines, classes, pictures }, version) {
  const where = (/** @type {string} */ name) =>
    name in pictures ? `/api/ontologies/${version}/pictures/${name.split("/").map(encodeURIComponent).join("/")}` : null;
  const ofClass = (/** @type {ObjectClass} */ { name, guideline }) =>
    guideline ? [element("h2", {}, name), ...markdown(guideline, where)] : [];
  return element("div", { className: "guidelines", tabIndex: 0, role: "region", ariaLabel: "Guidelines" }, ...markdown(guidelines, where), ...classes.flatMap(ofClass));
}

// A label that only one object of a video may have: say which one has it.
session.on("refused", async ({ item, error }) => {
  const held = session.current;
  const [, said, id] = /^(.*): masklet (\S+)$/.exec(error.message) ?? [];
  if (!id || item.what !== "operation" || item.body.kind !== "label" || item.ticketId !== held?.ticket.ticket_id) return;
  player.showOthers = true;
  await showOthers();
  const n = held.others?.findIndex(({ masklet_id }) => masklet_id === id) ?? -1;
  if (n >= 0 && held === session.current) notice(`${said}: object ${n + 1} on the picture.`);
});
session.on("ticket", () => {
  wanted = "";
  showLabels();
});
session.on("draft", showLabels);
