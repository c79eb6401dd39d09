// The list of tickets as pictures: cards in a grid, page by page, and which of them are selected.

/** @import { Card } from "../shared/types.js" */
import * as api from "../shared/api.js";
import { $, element, messageOf } from "../shared/dom.js";
import { videos } from "../shared/names.js";
import { ASKS, labelText, many, NUMBERS, REASONS, VERDICTS } from "../shared/words.js";

const ENOUGH = 24; // cards with which a page is not called short
const MOST_LOOKS = 5; // pages that are fetched for one press, while they are short

/** @type {Map<string, Card>} */
const shown = new Map();
/** @type {Set<string>} */
const selected = new Set();
let query = new URLSearchParams();
/** @type {string | null} */
let next = null;
let looked = 0;
/** @type {string | null} */
let lastPicked = null;
let turn = 0; // of the questions: an answer to an older one is dropped

/** The selection has changed. @type {(ids: string[]) => void} */
let onselect = () => {};

/** @param {(ids: string[]) => void} listener  is called with the selected tickets */
export const whenSelected = (listener) => (onselect = listener);

/** @param {URLSearchParams} filters  shows the tickets that pass them, from the first page on */
export async function showCards(filters) {
  query = filters;
  next = null;
  looked = 0;
  shown.clear();
  select([...selected], false);
  $("cards").replaceChildren();
  await fetchMore();
}

/** Fetch further pages until there is something to see. */
async function fetchMore() {
  const mine = ++turn;
  const before = shown.size;
  $("more").hidden = true;
  $("found").textContent = "Looking …";
  try {
    for (let n = 0; n < MOST_LOOKS && (n === 0 || next !== null) && shown.size - before < ENOUGH; n++) {
      const asked = new URLSearchParams(query);
      if (next !== null) asked.set("after", next);
      const page = await api.cards(asked);
      if (mine !== turn) return;
      next = page.next;
      looked += page.looked;
      for (const card of page.cards) {
        shown.set(card.ticket.ticket_id, card);
        $("cards").append(itemOf(card));
      }
    }
    $("found").textContent = saidOf();
  } catch (error) {
    if (mine === turn) $("found").textContent = messageOf(error);
  }
  $("more").hidden = next === null;
  $("more").textContent = shown.size ? "Show more" : "Look further";
}

function saidOf() {
  if (shown.size === 0 && next === null) return "No ticket passes these filters.";
  const so = looked > shown.size ? ` among ${NUMBERS.format(looked)} looked at` : "";
  return `${NUMBERS.format(shown.size)} ${next === null ? "found" : "shown"}${so}`;
}

/** Show these tickets again, since something was done to them. @param {string[]} ids */
export async function refreshCards(ids) {
  await Promise.all(ids.filter((id) => shown.has(id)).map(async (id) => {
    const page = await api.cards(new URLSearchParams({ text: id, limit: "1" }));
    const card = page.cards.find(({ ticket }) => ticket.ticket_id === id);
    if (!card || !shown.has(id)) return;
    shown.set(id, card);
    document.getElementById(`card-${id}`)?.replaceWith(itemOf(card));
  }));
}

// --- a card ----------------------------------------------------------------------------------------------------------

/** @param {Card} card */
function itemOf(card) {
  const { ticket } = card;
  const id = ticket.ticket_id;
  const title = `${ASKS[ticket.kind].name} ticket ${id}`;
  const box = element("input", { type: "checkbox", checked: selected.has(id), ariaLabel: `Select ${title}` });
  box.addEventListener("click", (event) => pick(id, box.checked, event.shiftKey));
  const image = element("img", { src: api.thumbnail(id), alt: title, loading: "lazy", width: 320, height: 180 });
  image.addEventListener("error", () => image.replaceWith(element("span", { className: "missing" }, "no picture")));
  const video = element("span", {});
  videos.write(video, ticket.video_id);
  const [tone, text] = standing(card);
  return element("li", { className: "card-of", id: `card-${id}` },
    element("a", { href: `#ticket=${encodeURIComponent(id)}`, title }, image),
    element("label", { className: "pick" }, box),
    element("p", { className: "card-line" },
      element("b", {}, ASKS[ticket.kind].name), element("span", { className: `tone ${tone}` }, text)),
    element("p", { className: "card-line soft" },
      element("span", {}, whoOf(card)), element("span", {}, scoreOf(card))),
    element("p", { className: "card-line soft" },
      video, element("span", {}, extraOf(card))));
}

/**
 * How a ticket stands, with the name of the colour for it.
 * @param {Card} card
 * @returns {[tone: string, text: string]}
 */
export function standing({ ticket, settled }) {
  if (ticket.state === "open") return ["", ticket.needs_lead ? "open, for a lead" : "open"];
  if (ticket.state === "leased") return ["refine", "held"];
  const { verdict } = ticket;
  const said = VERDICTS.find((each) => each.verdict === verdict)?.title.toLowerCase() ?? "made";
  return [verdict ?? "made", settled ? `${said}, settled` : said];
}

/** The label of a ticket's object; "" without one. @param {Card} card */
export const labelOf = ({ ticket: { label, attributes } }) => (label ? labelText(label, JSON.parse(attributes ?? "{}")) : "");

/** @param {Card} card */
function whoOf({ ticket, assigned_to: to }) {
  if (ticket.state === "leased") return ticket.leased_by ?? "–";
  if (ticket.state === "done") return ticket.finished_by ?? "–";
  return to ? `for ${to}` : "anybody";
}

/** @param {Card} card */
const scoreOf = ({ score, agreement }) =>
  [score === null ? "" : `score ${score.toFixed(2)}`, agreement === null ? "" : `agree ${Math.round(100 * agreement)} %`]
    .filter(Boolean).join(" · ") || "no score";

/** What else is worth a word: the label, and why it was decided so or what is special about it. @param {Card} card */
const extraOf = (card) => [labelOf(card), specialOf(card)].filter(Boolean).join(" · ");

/** Gold, reopened, priority, reasons. @param {Card} card */
function specialOf({ ticket, gold, reopened_by: reopened }) {
  if (gold) return "gold";
  if (ticket.reasons.length) return REASONS[ticket.reasons[0]] + (ticket.reasons.length > 1 ? " …" : "");
  if (reopened) return `reopened by ${reopened}`;
  return ticket.priority ? `priority ${ticket.priority}` : "";
}

// --- the selection ---------------------------------------------------------------------------------------------------

/**
 * @param {string} id
 * @param {boolean} on
 * @param {boolean} stretch  also all between this one and the last that was picked
 */
function pick(id, on, stretch) {
  const order = [...shown.keys()];
  const from = lastPicked === null ? -1 : order.indexOf(lastPicked);
  const [a, b] = [from, order.indexOf(id)].sort((x, y) => x - y);
  select(stretch && from >= 0 ? order.slice(a, b + 1) : [id], on);
  lastPicked = id;
}

/**
 * @param {string[]} ids
 * @param {boolean} on
 */
function select(ids, on) {
  for (const id of ids) {
    on ? selected.add(id) : selected.delete(id);
    const box = document.getElementById(`card-${id}`)?.querySelector("input");
    if (box) box.checked = on;
  }
  onselect([...selected]);
}

export const selectShown = () => select([...shown.keys()], true);
export const selectNone = () => select([...selected], false);
export const saySelected = (/** @type {string[]} */ ids) => `${many(ids.length, "ticket")} selected`;

$("more").addEventListener("click", () => void fetchMore());
