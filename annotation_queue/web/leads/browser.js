// The page on which leads look through all tickets. The address says what is shown: filters, a ticket, or kept work.
//
// filters.js, cards.js and acts.js make the list; story.js shows one ticket, with replay.js, picture.js and lanes.js
// below it; kept_list.js shows kept work.

/** @import { Me } from "../shared/types.js" */
import { controlsFor } from "./acts.js";
import * as api from "../shared/api.js";
import { refreshCards, saySelected, selectNone, selectShown, showCards, whenSelected } from "./cards.js";
import { $, element, messageOf } from "../shared/dom.js";
import { makeFilters } from "./filters.js";
import { refreshKeptList, showKeptList } from "./kept_list.js";
import { begin } from "../shared/lead_page.js";
import { close, pressed, showStory } from "./story.js";

const SMALL = "(width < 960px), (height < 600px)"; // as in small.css: the filters would fill the window
const HOLD = ["annotator", "verifier", "lead"]; // roles of people who can hold tickets

/** @type {string[]} */
let selected = [];
let listed = ""; // the filters of the list on screen

/**
 * @param {"list" | "ticket" | "kept"} view
 */
function show(view) {
  for (const id of ["list", "ticket", "kept"]) $(id).hidden = id !== view;
  if (view !== "ticket") close();
  if (view !== "kept") $("kept-works").replaceChildren(); // the pictures take memory
}

/**
 * @param {Me} me
 * @param {string[]} people
 * @param {(query: URLSearchParams) => void} showQuery
 */
async function route(me, people, showQuery) {
  const here = location.hash;
  const asked = new URLSearchParams(here.slice(1));
  const id = asked.get("ticket");
  $("error").textContent = "";
  try {
    if (id !== null) {
      show("ticket");
      await showStory(id, me, people, refreshCards);
    } else if (asked.has("kept")) {
      show("kept");
      await showKeptList();
    } else {
      show("list");
      showQuery(asked);
      if (listed === asked.toString() && $("cards").childElementCount) return; // back from a ticket: as it was left
      listed = asked.toString();
      for (const back of document.querySelectorAll("a.to-list")) back.setAttribute("href", `#${listed}`);
      await showCards(asked);
    }
  } catch (error) {
    if (here !== location.hash) return; // the person is elsewhere by now
    show("list");
    $("error").textContent = messageOf(error);
  }
}

/** @param {string[]} people */
function makeBulk(people) {
  const count = element("b", {});
  const clear = element("button", { type: "button", className: "quiet", onclick: selectNone }, "Select none");
  const all = element("button", { type: "button", className: "quiet", onclick: selectShown }, "Select all shown");
  const doing = { tickets: () => selected, people, frame: () => null, ondone: refreshCards };
  $("bulk").replaceChildren(count, all, clear, ...controlsFor(doing));
  whenSelected((ids) => {
    selected = ids;
    count.textContent = saySelected(ids);
    $("bulk").hidden = ids.length === 0;
    $("bulk").querySelector(".results")?.replaceChildren(); // they were about another selection
  });
}

/** @param {KeyboardEvent} event */
function onkey(event) {
  const { target } = event;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = target instanceof HTMLInputElement && target.type !== "checkbox";
  if (typing || target instanceof HTMLSelectElement) return;
  if (event.key === "Escape" && $("list").hidden) location.hash = listed;
  else if (event.key === "Escape") selectNone();
  else if (!pressed(event.key)) return;
  event.preventDefault();
}

async function start() {
  const me = await begin();
  if (me === null) return;
  const everybody = await api.people();
  const people = everybody.filter((p) => !p.disabled && p.roles.some((role) => HOLD.includes(role))).map(({ name }) => name);
  makeBulk(people);
  if (matchMedia(SMALL).matches) $("fold").removeAttribute("open");
  const showQuery = await makeFilters($("filters", HTMLFormElement), (query) => (location.hash = query.toString()));
  addEventListener("hashchange", () => void route(me, people, showQuery));
  addEventListener("keydown", onkey);
  await Promise.all([route(me, people, showQuery), refreshKeptList()]);
}
start().catch((error) => ($("error").textContent = messageOf(error)));
