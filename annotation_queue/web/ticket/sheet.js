// The sheet: up to twelve calm masklets at once. Each one is accepted at a glance, or opened to be judged alone.
//
// The tickets are claimed as always, so gold comes among them. What is not calm waits aside and comes after the sheet.

/** @import { HeldTicket } from "../shared/held.js" */
import * as api from "../shared/api.js";
import { finish, takeBack, toWatch } from "./answers.js";
import { isCalm } from "./calm.js";
import { $, element } from "../shared/dom.js";
import * as keys from "../shared/keys.js";
import { fail } from "./login.js";
import { message, shownView, view } from "./messages.js";
import { presence } from "../shared/presence.js";
import { desk, player } from "./screen.js";
import { session } from "../shared/session.js";
import { fetchNext, insteadOfNext, setAside, stopAsking, takeNew, takeNext } from "./supply.js";
import { Tile } from "../canvas/tile.js";
import { many } from "../shared/words.js";

const MOST = 12; // tiles
const MOST_ASIDE = 12; // tickets that are not calm: with more of them, no further ticket is claimed for the sheet
const SPEED = 2; // times the speed of the video

const places = Array.from({ length: MOST }, () => element("div", { className: "place empty" }));
$("tiles").replaceChildren(...places);
/** @type {(Tile | null)[]} */
let tiles = Array.from({ length: MOST }, () => null); // by place
let isOn = false; // the person wants the sheet, also after a ticket that they opened from it
let isFilling = false;
let isDry = false; // the queue had no ticket the last time
let isPaused = false; // by the person, or because nobody is there
let isPlaying = false; // the next frame of the screen is asked for
let beat = 0; // positions played
let beatAt = 0; // ms, when the last one came
let worked = 0; // ms on the clock of presence.js, when the last answer was given
let focus = 0; // the place that keys act on

/** Show the sheet instead of one ticket. */
export async function openSheet() {
  await session.ahead?.promise; // otherwise it would go back to the queue, which then seems to be empty
  if (shownView() === "sheet" || !session.me || !session.may.verify) return;
  isOn = true;
  isDry = false;
  stopAsking();
  setAside();
  session.leave();
  desk.show(null);
  player.play(false);
  worked = presence.clock();
  say("");
  showAbout();
  view("sheet");
  moveTo(tiles[focus] ? focus : nextPlace());
  fill();
}

/**
 * Leave the sheet. Its masklets come one at a time now.
 * @param {HeldTicket} [opened]  is shown first
 */
function leave(opened) {
  const others = held().filter((each) => each !== opened);
  for (const tile of tiles) tile?.close();
  tiles = tiles.map(() => null);
  for (const place of places) place.className = "place empty";
  session.setSheet([]);
  session.setAside([...others, ...session.aside]);
  if (!opened) return takeNext();
  session.show(opened);
  fetchNext();
}

/** Show one ticket at a time from now on. */
function closeSheet() {
  isOn = false;
  leave();
}

const held = () => tiles.flatMap((tile) => (tile ? [tile.held] : []));

/** Put calm masklets in the free places: those that this person holds already, then new ones. */
async function fill() {
  if (isFilling) return;
  isFilling = true;
  try {
    while (isOn && shownView() === "sheet" && tiles.includes(null)) {
      const calm = session.aside.find((each) => !each.lost && isCalm(each));
      if (calm) {
        session.setAside(session.aside.filter((each) => each !== calm));
        add(calm);
        continue;
      }
      if (isDry || session.aside.length >= MOST_ASIDE) break;
      const next = await takeNew({ ...session.wanted(), kinds: ["verify"] });
      if (next === null) isDry = true;
      else session.setAside([...session.aside, next]);
      next?.frames.rest();
      session.keepClaims();
    }
  } catch (error) {
    isDry = true;
    if (api.statusOf(error) !== 403) fail(error);
  } finally {
    isFilling = false;
  }
  if (!isOn || shownView() !== "sheet") return;
  if (held().length === 0) nothingCalm();
}

session.on("stats", () => {
  isDry = false; // tickets may have come
  fill();
});

/** @param {HeldTicket} next  a calm masklet, put in the first free place */
function add(next) {
  const place = tiles.indexOf(null);
  const tile = new Tile(next, player.colours, { onaccept: () => accept(tile), onopen: () => leave(next) });
  tiles[place] = tile;
  session.setSheet(held());
  session.keepClaims();
  tile.element.setAttribute("aria-label", `Masklet ${place + 1}`);
  tile.element.onfocus = () => (focus = place);
  places[place].replaceChildren(tile.element);
  places[place].className = "place";
  showAbout();
  if (held().length === 1) moveTo(place);
  tile.load();
}

/** How many there are, and what the keys do. */
function showAbout() {
  const what = `${keys.hint("accept")} accepts the chosen one, Enter opens it.`;
  $("sheet-about").textContent = held().length ? `${many(held().length, "masklet")}. ${what}` : "Fetching.";
}

function nothingCalm() {
  isOn = false;
  const left = session.aside.length;
  message({
    glyph: "✓",
    title: "No calm masklets now",
    text: left ? `${many(left, "masklet")} of yours ask for a closer look.` : "The queue has none for you.",
    actions: [{ text: "One at a time", run: takeNext, key: "Enter" }],
  });
}

/** @param {string} text  what has happened, for the line above the tiles, which screen readers read */
function say(text) {
  $("sheet-said").textContent = text;
}

/** Choose the masklet at a place, if there is one. @param {number} place */
function moveTo(place) {
  const chosen = tiles[place];
  if (!chosen) return;
  focus = place;
  for (const tile of tiles) if (tile) tile.element.tabIndex = tile === chosen ? 0 : -1;
  chosen.element.focus();
}

/** The next place with a masklet after the chosen one; -1 if there is none. */
function nextPlace() {
  const after = tiles.findIndex((tile, place) => tile !== null && place > focus);
  return after >= 0 ? after : tiles.findIndex((tile) => tile !== null);
}

/** @param {Tile} tile */
function accept(tile) {
  const place = tiles.indexOf(tile);
  if (place < 0 || tile.held.lost || tile.held.finished) return;
  const missing = toWatch(tile.held, "accept");
  if (missing) return say(`Masklet ${place + 1}: ${missing}`);
  const now = presence.clock();
  tile.held.work(now - worked); // the time since the last answer: over the sheet, the times add up
  worked = now;
  finish(tile.held, { verdict: "accept" }, tile.shown);
  remove(tile, `Masklet ${place + 1} is accepted.`);
}

/** @param {Tile} tile  leaves the sheet. Returns its place. */
function takeOff(tile) {
  const place = tiles.indexOf(tile);
  tiles[place] = null;
  tile.close();
  places[place].className = "place empty";
  session.setSheet(held());
  session.keepClaims();
  showAbout();
  return place;
}

/**
 * Take a tile off, and fill its place again.
 * @param {Tile} tile
 * @param {string} why
 */
function remove(tile, why) {
  const place = takeOff(tile);
  if (place === focus) moveTo(nextPlace());
  say(why);
  isDry = false;
  fill();
}

/** @param {number} now  ms */
function play(now) {
  isPlaying = shownView() === "sheet";
  if (!isPlaying) return;
  const every = 1000 / (SPEED * player.rate);
  if (!isPaused && now - beatAt >= every) {
    beat++;
    beatAt = now;
    for (const tile of tiles) tile?.draw(beat);
  }
  requestAnimationFrame(play);
}

/** Keys while the sheet is shown. @param {KeyboardEvent} event */
export function onSheetKey(event) {
  if (event.target instanceof HTMLButtonElement && (event.key === "Enter" || event.key === " ")) return; // it is pressed
  const columns = getComputedStyle($("tiles")).gridTemplateColumns.split(" ").length;
  /** @type {Record<string, number>} */
  const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
  const tile = tiles[focus];
  const id = keys.find(event, "verify")?.id ?? "";
  if (event.key === "Escape") closeSheet();
  else if (moves[event.key]) moveTo(focus + moves[event.key]);
  else if (event.repeat) return;
  else if (id === "accept" && tile) accept(tile);
  else if (id === "play") isPaused = !isPaused;
  else if (id === "sheet") closeSheet();
  else if (tile && (event.key === "Enter" || ["refine", "refineWhy", "reject", "unsure"].includes(id))) leave(tile.held);
  else if (id === "unsubmit") takeBack(closeSheet);
  else return;
  event.preventDefault();
}

session.on("lost", ({ held: lost, why }) => {
  const tile = tiles.find((each) => each?.held === lost);
  if (tile) return remove(tile, `Masklet ${tiles.indexOf(tile) + 1} went back to the queue. ${why}`);
  if (!session.aside.includes(lost)) return;
  session.setAside(session.aside.filter((each) => each !== lost)); // it makes room for another one
  isDry = false; // the queue has at least the one that was lost, unless another person has it
  if (shownView() === "sheet") fill();
});
// a link has opened a ticket of the sheet
session.on("ticket", (shown) => {
  const tile = tiles.find((each) => each?.held === shown);
  if (tile) takeOff(tile);
});
session.on("refused", ({ item, error }) => {
  if (item.what === "finish") say(`One answer was refused: ${error.message}`);
});
presence.on("leave", () => {
  isPaused = true;
  say("Nobody has touched this page for a while: its tickets go back to the queue. Tickets whose time is over are replaced.");
});
presence.on("return", () => (isPaused = false));
session.on("loginEnded", () => (isPaused = true));
session.on("view", (name) => {
  $("sheet-open").hidden = name !== "work" || !session.me || session.side !== "verify";
  if (name !== "sheet") return;
  isPaused = false;
  if (!isPlaying) requestAnimationFrame(play);
  isPlaying = true;
});
// after a ticket that was opened from the sheet, the sheet comes again
insteadOfNext(() => {
  if (isOn) openSheet();
  return isOn;
});
$("sheet-open").addEventListener("click", openSheet);
$("sheet-close").addEventListener("click", closeSheet);
