// The page on which people look through a release. The address says what is shown: filters, or a video.
//
// release_video.js shows a video with its masklets, release_masks.js fetches their masks.

/** @import { ReleaseMasklet } from "../shared/release_types.js" */
import * as api from "../shared/api.js";
import { $, element, messageOf } from "../shared/dom.js";
import { begin } from "../shared/lead_page.js";
import { close, pressed, showVideo } from "./release_video.js";
import { keptTheme, switchTheme } from "../shared/theme.js";
import { many, NUMBERS } from "../shared/words.js";

const ENOUGH = 24; // cards with which a page is not called short
const SMALL = "(width < 960px), (height < 600px)"; // as in small.css: the filters would fill the window
const MOST_LOOKS = 5; // pages that are fetched for one press, while they are short

/** @type {[name: string, title: string, choices: string[] | null, hint: string][]} */
const FIELDS = [
  ["text", "Search", null, "a part of the id of a masklet or a video"],
  ["label", "Label", null, "the class of the object"],
  ["size", "Size", ["small", "medium", "large"], "mean area: below 32², below 96², larger"],
  ["kind", "Kind", ["manual", "auto"], ""],
  ["phase", "Phase", ["auto", "1", "2", "3"], "in which people worked on it"],
  ["split", "Split", ["train", "val", "test"], ""],
  ["person", "Person", null, "who annotated or verified it"],
  ["checkpoint", "Checkpoint", null, "that made the masks"],
  ["score_from", "Score from", null, "0 to 1: the model's own estimate, mean over the frames"],
  ["score_to", "to", null, "0 to 1"],
  ["disagreement_from", "Disagreement from", null, "0 to 1: share of the verdicts that differ from the most frequent one"],
];
const OFFERED = ["label", "person", "checkpoint"]; // fields whose values are offered, as the cards show them

let release = "";
let query = new URLSearchParams();
/** @type {string | null} */
let next = null;
let [looked, shown] = [0, 0];
let turn = 0; // of the questions: an answer to an older one is dropped
let listed = ""; // the address of the list on screen
/** @type {HTMLElement | null} */
let opener = null; // what a person gets back to when the video is closed

// --- the filters -----------------------------------------------------------------------------------------------------

/** @param {{name: string, masklets: number}[]} releases */
function makeFilters(releases) {
  const options = releases.map(({ name, masklets }) =>
    element("option", { value: name }, `${name} · ${many(masklets, "masklet")}`));
  const form = $("filters", HTMLFormElement);
  form.replaceChildren(
    element("label", { className: "field" }, element("span", {}, "Release"), element("select", { name: "release" }, ...options)),
    ...FIELDS.map(([name, title, choices, hint]) =>
      element("label", { className: "field", title: hint }, element("span", {}, title), inputOf(name, choices))),
    ...OFFERED.map((name) => element("datalist", { id: `of-${name}` })),
    element("button", { type: "button", className: "quiet bordered", onclick: () => go(new URLSearchParams({ release })) }, "Clear"),
  );
  const changed = () => go(new URLSearchParams([...new FormData(form)].map(([name, value]) => [name, String(value).trim()])
    .filter(([, value]) => value)));
  form.addEventListener("change", changed);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    changed();
  });
}

/**
 * @param {string} name
 * @param {string[] | null} choices
 */
function inputOf(name, choices) {
  if (choices) {
    return element("select", { name }, element("option", { value: "" }, "any"),
      ...choices.map((choice) => element("option", { value: choice }, choice)));
  }
  const number = name.endsWith("_from") || name.endsWith("_to");
  const input = element("input", number ? { name, type: "number", min: "0", max: "1", step: "0.01" } : { name, type: "search" });
  if (OFFERED.includes(name)) input.setAttribute("list", `of-${name}`);
  return input;
}

/** @param {URLSearchParams} asked */
const go = (asked) => (location.hash = asked.toString());

function showQuery() {
  for (const field of $("filters", HTMLFormElement).elements) {
    if (!(field instanceof HTMLInputElement || field instanceof HTMLSelectElement)) continue;
    const value = query.get(field.name) ?? "";
    if (field instanceof HTMLSelectElement && ![...field.options].some((option) => option.value === value)) {
      field.append(element("option", { value }, value)); // an older release in somebody's link
    }
    field.value = value;
  }
}

/** Offer what a masklet has, to be chosen in the filters. @param {ReleaseMasklet} masklet */
function offer(masklet) {
  const values = { label: [masklet.label], person: [masklet.annotated_by, masklet.verified_by], checkpoint: [masklet.checkpoint] };
  for (const [name, some] of Object.entries(values)) {
    const list = $(`of-${name}`, HTMLDataListElement);
    for (const value of some) {
      if (value && ![...list.options].some((option) => option.value === value)) list.append(element("option", { value }));
    }
  }
}

// --- the cards -------------------------------------------------------------------------------------------------------

async function showCards() {
  [next, looked, shown] = [null, 0, 0];
  $("cards").replaceChildren();
  await fetchMore();
}

/** Fetch further pages until there is something to see. */
async function fetchMore() {
  const mine = ++turn;
  const before = shown;
  $("more").hidden = true;
  $("found").textContent = "Looking …";
  try {
    for (let n = 0; n < MOST_LOOKS && (n === 0 || next !== null) && shown - before < ENOUGH; n++) {
      const asked = new URLSearchParams(query);
      asked.delete("release");
      if (next !== null) asked.set("after", next);
      const page = await api.releasePage(release, asked);
      if (mine !== turn) return;
      next = page.next;
      looked += page.looked;
      shown += page.masklets.length;
      $("cards").append(...page.masklets.map(itemOf));
      page.masklets.forEach(offer);
    }
    $("found").textContent = saidOf();
  } catch (error) {
    if (mine === turn) $("found").textContent = messageOf(error);
  }
  $("more").hidden = next === null;
  $("more").textContent = shown ? "Show more" : "Look further";
}

function saidOf() {
  if (shown === 0 && next === null) return "No masklet passes these filters.";
  const so = looked > shown ? ` among ${NUMBERS.format(looked)} looked at` : "";
  return `${NUMBERS.format(shown)} ${next === null ? "found" : "shown"}${so}`;
}

/** @param {ReleaseMasklet} masklet */
function itemOf(masklet) {
  const { masklet_id: id, video_id: video, label, kind, size } = masklet;
  const title = `${label ?? "masklet"} ${id}`;
  const image = element("img", { src: api.releaseThumbnail(release, video, id), alt: title, loading: "lazy", width: 320, height: 180 });
  image.addEventListener("error", () => image.replaceWith(element("span", { className: "missing" }, "no picture")));
  const people = [masklet.annotated_by, masklet.verified_by].filter(Boolean).join(" · ");
  const differs = masklet.disagreement
    ? [element("span", { className: "differs" }, `${Math.round(100 * masklet.disagreement)} % disagree`)] : [];
  return element("li", { className: "card-of" },
    element("a", { href: `#${new URLSearchParams({ release, video, masklet: id })}`, title }, image),
    element("p", { className: "card-line" }, element("b", {}, label ?? "no label"),
      element("span", { className: "tone" }, `${kind}, ${size || "never visible"}`)),
    element("p", { className: "card-line soft" },
      element("span", {}, masklet.checkpoint), element("span", {}, masklet.score === null ? "" : `score ${masklet.score.toFixed(2)}`)),
    element("p", { className: "card-line soft" },
      element("span", {}, people || id.slice(0, 8)), ...differs, element("span", {}, `${masklet.shown} of ${many(masklet.frames, "frame")}`)));
}

// --- where we are ----------------------------------------------------------------------------------------------------

/** The address of the list that the person came from, or else of the release. */
const toList = () => listed || new URLSearchParams({ release }).toString();

/** The card that leads to an address. @param {string} hash @returns {HTMLElement | null} */
const cardOf = (hash) => [...$("cards").querySelectorAll("a")].find((link) => link.hash === hash) ?? null;

/** @param {string} newest */
async function route(newest) {
  const here = location.hash;
  const asked = new URLSearchParams(location.hash.slice(1));
  if (!asked.has("release")) asked.set("release", newest);
  release = asked.get("release") ?? newest;
  const video = asked.get("video");
  const wasOpen = !$("one-video").hidden;
  if (video !== null && !wasOpen) opener = cardOf(location.hash);
  $("error").textContent = "";
  $("list").hidden = video !== null;
  $("one-video").hidden = video === null;
  if (video === null) close();
  try {
    if (video !== null) {
      document.querySelector("a.to-list")?.setAttribute("href", `#${toList()}`);
      await showVideo(release, video, asked.get("masklet"));
      return;
    }
    query = asked;
    showQuery();
    const isAsLeft = listed === asked.toString() && $("cards").childElementCount > 0; // back from a video
    if (wasOpen) (isAsLeft && opener ? opener : $("list-title")).focus();
    if (isAsLeft) return;
    listed = asked.toString();
    await showCards();
  } catch (error) {
    if (here !== location.hash) return; // the person is elsewhere by now
    [$("list").hidden, $("one-video").hidden] = [false, true];
    $("error").textContent = messageOf(error);
  }
}

/** The releases; null for a person who is sent to the log-in, or told that the page is not for them. */
async function known() {
  try {
    return await api.releases();
  } catch (error) {
    if (![401, 403].includes(api.statusOf(error) ?? 0)) throw error;
    showPages();
    if (await begin() !== null) throw error; // a lead who does not see all projects: the error says so
    return null;
  }
}

/** Show the links to the pages of the queue. */
function showPages() {
  for (const part of document.querySelectorAll(".of-queue")) part.removeAttribute("hidden");
}

async function start() {
  const found = await known();
  if (found === null) return;
  if (found.alone) {
    keptTheme();
    $("theme").addEventListener("click", switchTheme);
  } else {
    showPages();
    if (await begin() === null) return;
  }
  if (found.releases.length === 0) {
    $("found").textContent = "There is no release yet.";
    return;
  }
  makeFilters(found.releases);
  if (matchMedia(SMALL).matches) $("fold").removeAttribute("open");
  $("more").addEventListener("click", () => void fetchMore());
  addEventListener("hashchange", () => void route(found.releases[0].name));
  addEventListener("keydown", (event) => {
    const typing = event.target instanceof HTMLInputElement && event.target.type !== "range";
    if (typing || event.target instanceof HTMLSelectElement || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === " " && event.target instanceof HTMLButtonElement) return; // the button is pressed by it
    if (event.key === "Escape" && $("list").hidden) location.hash = toList();
    else if (!pressed(event)) return;
    event.preventDefault();
  });
  await route(found.releases[0].name);
}
start().catch((error) => ($("error").textContent = messageOf(error)));
