// The page for leads and admins: figures and people. Everything is asked for again every few seconds; nothing is kept.

/** @import { Account, Figures, KeptOperation, Me, Share, Ticket, WorkFigures } from "./types.js" */
import * as api from "./api.js";
import { $, element, messageOf } from "./dom.js";
import { batches, named, short, videos } from "./names.js";
import { many } from "./words.js";

const EVERY_MS = 3000; // so that nothing on the page is older than 5 s
const ROLES = ["annotator", "verifier", "lead", "admin", "pipeline"];
/** @type {Record<"people" | "makers" | "phases" | "checkpoints" | "labels", string>} */
const BY = { people: "Person", makers: "Maker judged", phases: "Phase", checkpoints: "Checkpoint", labels: "Label" };
const PAYLOAD = 500; // characters of an operation's content that are its title

/** @typedef {number | null | undefined} Maybe  a number that may not be known yet */

let by = /** @type {keyof typeof BY} */ ("people");
/** @type {Figures | null} */
let figures = null;
/** @type {Account[]} */
let everybody = [];
/** @type {Map<string, string>} */
const shown = new Map();

// --- how things are written ------------------------------------------------------------------------------------------

/** @type {(share: Maybe) => string} */
const percent = (share) => (share === null || share === undefined ? "–" : `${Math.round(100 * share)} %`);
/** @type {(share: Share | null) => number | null} */
const ratio = (share) => (share?.of ? share.right / share.of : null);
/** @type {(value: Maybe, digits?: number) => string} */
const number = (value, digits = 1) => (value === null || value === undefined ? "–" : value.toFixed(digits));

/** @param {number | null} seconds */
function time(seconds) {
  if (seconds === null) return "–";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

/**
 * @param {string[]} heads
 * @param {(string | number | HTMLElement)[][]} rows
 * @param {string} nothing  what is said if there are no rows
 */
function table(heads, rows, nothing) {
  if (rows.length === 0) return element("p", { className: "none" }, nothing);
  const cell = (/** @type {string | number | HTMLElement} */ content) =>
    element("td", {}, content instanceof HTMLElement ? content : String(content));
  const head = element("tr", {}, ...heads.map((text) => element("th", { scope: "col" }, text)));
  const body = rows.map((row) => element("tr", {}, ...row.map(cell)));
  return element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
}

/**
 * A bar of parts. Its numbers are its title, and its text for screen readers.
 * @param {Record<string, number>} counts
 * @param {string[]} names  of the parts, in order
 */
function shares(counts, names) {
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
 * A share with its confidence interval.
 * @param {Share} share
 */
function range({ right, of, low, high }) {
  const bar = element("div", { className: "range", title: `${percent(low)} to ${percent(high)}` });
  const span = element("i");
  span.style.left = `${100 * low}%`;
  span.style.right = `${100 - 100 * high}%`;
  const at = element("b");
  at.style.left = `${(100 * right) / of}%`;
  bar.append(span, at);
  return bar;
}

/**
 * @param {string} text
 * @param {string} title
 * @param {() => Promise<unknown>} run
 */
function action(text, title, run) {
  const properties = { className: "quiet bordered", title, onclick: () => void attempt(run) };
  return element("button", { type: "button", ...properties }, text);
}

// --- figures ---------------------------------------------------------------------------------------------------------

/** @param {Figures} all */
function showFigures(all) {
  $("batches").replaceChildren(
    table(
      ["Batch", "Kind", "Progress", "Open", "Leased", "Done", "An hour", "Ends in"],
      all.batches.map((b) => [
        named(batches, b.batch_id, "batch"), b.kind, shares({ done: b.done, leased: b.leased, open: b.open }, ["done", "leased", "open"]),
        b.open, b.leased, b.done, number(b.per_hour, 0), b.open + b.leased ? time(b.expected_s) : "done",
      ]),
      "No batch is open.",
    ),
  );
  for (const button of $("by").querySelectorAll("button")) {
    button.setAttribute("aria-checked", String(button.value === by));
  }
  const rows = [...all[by], ...(by === "people" ? [{ ...all.total, name: "everybody" }] : [])];
  $("figures").replaceChildren(
    table(
      [BY[by], "Answers", "Verdicts", "s a ticket", "s a frame", "Clicks a clicked frame", "Frames edited",
        by === "people" ? "Accepts of new masklets" : "Accepted by the first verifier", "Agreement", "IoU with others"],
      rows.filter((row) => row.answers > 0).map(figuresRow),
      by === "labels" ? "Nobody has given a label yet." : "Nobody has finished a ticket yet.",
    ),
  );
  $("judging").replaceChildren(
    table(
      ["Person", "Last verdicts", "s a verdict (median)", "Frames watched", "Accepts", "95 % interval", "Others agree",
        "Right on gold", "Look at"],
      all.judging.map((row) => [
        row.person, row.verdicts, number(row.median_s), percent(row.watched), percent(ratio(row.accepts)),
        range(row.accepts), percent(row.agreement), row.gold ? `${row.gold.right} of ${row.gold.of}` : "–",
        element("span", { className: row.flags.length ? "words flagged" : "" }, row.flags.join("; ") || "–"),
      ]),
      "Nobody has given a verdict yet.",
    ),
  );
  $("gold").replaceChildren(
    table(
      ["Person", "Kind", "Right", "Of", "Accuracy", "95 % interval"],
      all.gold.map(({ person, kind, accuracy }) => [
        person, kind, accuracy.right, accuracy.of, percent(ratio(accuracy)), range(accuracy),
      ]),
      "Nobody has answered a gold ticket yet.",
    ),
  );
}

/** @param {WorkFigures} row */
const figuresRow = (row) => [
  row.name || "the model", row.answers, shares(row.verdicts, ["accept", "refine", "reject", "unsure", "made"]),
  number(row.seconds_per_ticket), number(row.seconds_per_frame, 2), number(row.clicks_per_clicked_frame),
  percent(row.edited_frames_share), percent(ratio(row.first_pass)), percent(row.agreement), number(row.masklet_iou, 2),
];

// --- tickets and people ----------------------------------------------------------------------------------------------

/**
 * Whether this is new since the last call. What has not changed is not drawn again, so that a selected text or a button
 * that is about to be pressed stays where it is.
 * @param {string} what
 * @param {unknown} value
 */
function isNew(what, value) {
  const text = JSON.stringify(value);
  if (shown.get(what) === text) return false;
  shown.set(what, text);
  return true;
}

/** A ticket with a picture of its object, to be looked at on the page of the tickets. @param {string} ticketId */
function linkTo(ticketId) {
  const picture = element("img", {
    src: api.portrait(ticketId), alt: "", className: "portrait", width: 48, height: 48, loading: "lazy",
  });
  const link = { href: `/#ticket=${encodeURIComponent(ticketId)}`, target: "_blank", title: ticketId };
  return element("a", link, picture, short(ticketId));
}

async function showLeased() {
  const leased = await api.leased();
  if (!isNew("leased", leased.map((ticket) => [ticket.ticket_id, ticket.lease_token]))) return;
  const takeBack = (/** @type {Ticket} */ ticket) =>
    action("Take back", "The ticket goes to the next person. What was done in it is kept.", async () => {
      await api.endLease(ticket);
      await showLeased();
    });
  $("leased").replaceChildren(
    table(
      ["Ticket", "Video", "Batch", "Kind", "Person", "Action"],
      leased.map((t) => [
        linkTo(t.ticket_id), named(videos, t.video_id, "video"), named(batches, t.batch_id, "batch"), t.kind,
        t.leased_by ?? "–", takeBack(t),
      ]),
      "Nobody holds a ticket.",
    ),
  );
}

async function showStuck() {
  const stuck = await api.stuck();
  if (!isNew("stuck", stuck)) return;
  $("stuck").replaceChildren(
    table(
      ["Batch", "Stage", "Since", "Error"],
      stuck.map((s) => [
        s.batch_id ? named(batches, s.batch_id, "batch") : "–", s.stage, new Date(1000 * s.since).toLocaleString(),
        element("span", { className: "words" }, s.error),
      ]),
      "No stage fails.",
    ),
  );
}

async function showCampaign() {
  const phases = await api.campaign();
  if (!isNew("campaign", phases)) return;
  $("campaign-section").hidden = phases.length === 0;
  const of = (/** @type {number} */ done, /** @type {number | null} */ planned) =>
    planned ? `${done} of ${planned}` : "–";
  $("campaign").replaceChildren(
    table(
      ["Phase", "State", "Masklets", "Retrainings"],
      phases.map((p) => [
        p.phase, p.state, of(p.masklets, p.planned_masklets), of(p.retrainings, p.planned_retrainings),
      ]),
      "No campaign is planned.",
    ),
  );
}

/**
 * The content of an operation in words.
 * @param {KeptOperation} operation
 */
function saidIn({ kind, payload }) {
  const { verdict, reasons, text, points_xy, box_xyxy, direction, first, last, masklet } = JSON.parse(payload);
  if (kind === "verdict") return [verdict, ...(reasons ?? [])].join(", ").replaceAll("_", " ") + (text ? `: “${text}”` : "");
  if (kind === "submit") return masklet ? `a masklet of ${many(masklet.frame_idx.length, "frame")}` : "a masklet";
  if (kind === "stroke") return "a drawn mask";
  if (kind === "absent") return `frames ${first} to ${last}`;
  if (kind === "prompt") return [many(points_xy?.length ?? 0, "point"), ...(box_xyxy ? ["a box"] : [])].join(", ");
  return direction ?? "–";
}

async function showBranches() {
  const kept = await api.branches();
  if (!isNew("branches", kept)) return;
  const content = (/** @type {KeptOperation} */ operation) =>
    element("span", { className: "words", title: operation.payload.slice(0, PAYLOAD) }, saidIn(operation));
  $("branches").replaceChildren(
    table(
      ["Ticket", "Person", "What", "Frame", "When", "Content"],
      kept.map((o) => [
        linkTo(o.ticket_id), o.person, o.kind, o.frame_idx ?? "–", new Date(o.created_at).toLocaleString(), content(o),
      ]),
      "Nothing.",
    ),
  );
}

/** @param {Me} me */
async function showPeople(me) {
  everybody = await api.people();
  $("people").replaceChildren(
    table(
      ["Name", "Roles", "Skills", "Tokens", "Actions"],
      everybody.map((person) => [
        element("span", { className: person.disabled ? "disabled" : "" },
          person.name + (person.disabled ? " (disabled)" : person.name === me.name ? " (you)" : "")),
        person.roles.join(", "), person.skills.join(", ") || "–", person.tokens.length,
        person.name === me.name ? newToken(person.name) : actionsFor(person, me),
      ]),
      "Nobody.",
    ),
  );
}

/** @param {string} name */
function newToken(name) {
  return action("New token", "For a program that works in this name", async () => {
    const { token } = await api.issueToken(name, ["annotate"]);
    prompt(`The token of ${name}. It is shown this once.`, token);
  });
}

/**
 * @param {Account} person
 * @param {Me} me
 */
function actionsFor({ name, roles, disabled }, me) {
  const actions = element("span", { className: "stepper" });
  actions.style.justifyContent = "flex-end";
  // the queue rejects a token of another person, and other changes of its own account
  if (me.roles.includes("admin") && roles.join() === "pipeline") actions.append(newToken(name));
  actions.append(action("End logins", "Revokes every token and browser login", () => api.revokeTokens(name)));
  if (name !== "pipeline") {
    const detail = disabled ? "" : "What they did stays";
    actions.append(action(disabled ? "Enable" : "Disable", detail, () => api.disable(name, !disabled)));
  }
  return actions;
}

/** @type {Me | null} */
let me = null;

/** @param {() => Promise<unknown>} run  whose result or error is then shown */
async function attempt(run) {
  try {
    await run();
    $("error").textContent = "";
    if (me) await showPeople(me);
  } catch (error) {
    $("error").textContent = messageOf(error);
  }
}

// --- the page --------------------------------------------------------------------------------------------------------

const form = $("add", HTMLFormElement);

/** What the form says. Without skills, those of an existing person stay as they are. */
function filledIn() {
  const sent = new FormData(form);
  const text = (/** @type {string} */ name) => String(sent.get(name) ?? "");
  const skills = text("skills").split(/[\s,]+/).filter(Boolean);
  return { name: text("name").trim(), roles: sent.getAll("role").map(String), ...(skills.length ? { skills } : {}) };
}

/**
 * Add a person, or change one. An error is shown beside the form.
 * @param {boolean} isNew
 */
async function setPerson(isNew) {
  $("change").hidden = true;
  $("add-error").textContent = "";
  try {
    await api.setPerson({ ...filledIn(), new: isNew });
    form.reset();
    if (me) await showPeople(me);
  } catch (error) {
    $("add-error").textContent = messageOf(error);
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const { name, roles, skills } = filledIn();
  const before = everybody.find((person) => person.name === name);
  if (!before) return void setPerson(true);
  const kept = skills ? `the skills ${skills.join(", ")}` : "the same skills";
  $("add-error").textContent = "";
  $("change-text").textContent = `${name} is there already, with the roles ${before.roles.join(", ")}. `
    + `Change them to ${roles.join(", ") || "no role"}, with ${kept}?`;
  $("change").hidden = false;
});
form.addEventListener("input", () => ($("change").hidden = true));
$("change-yes").addEventListener("click", () => void setPerson(false));
$("change-no").addEventListener("click", () => ($("change").hidden = true));

for (const role of ROLES) {
  const box = element("input", { type: "checkbox", name: "role", value: role });
  $("roles").append(element("label", {}, box, role));
}
for (const name of /** @type {(keyof typeof BY)[]} */ (Object.keys(BY))) {
  const show = () => {
    by = name;
    if (figures) showFigures(figures);
  };
  $("by").append(element("button", { type: "button", value: name, role: "radio", onclick: show }, BY[name]));
}

async function refresh() {
  try {
    [figures] = await Promise.all([api.figures(), showLeased(), showBranches(), showStuck(), showCampaign()]);
    $("age").textContent = `counted ${new Date(1000 * figures.at).toLocaleTimeString()}`;
    showFigures(figures);
  } catch (error) {
    if (api.statusOf(error) === 401) location.href = "/";
    $("age").textContent = error instanceof api.Refused ? error.message : "The queue does not answer";
  }
}

async function start() {
  const theme = localStorage.getItem("masklets.theme");
  if (theme) document.documentElement.dataset.theme = theme;
  try {
    me = await api.me();
  } catch {
    location.href = "/";
    return;
  }
  if (!me.roles.includes("lead") && !me.roles.includes("admin")) {
    $("error").textContent = "This page is for leads and admins.";
    return;
  }
  await Promise.all([refresh(), attempt(async () => {})]);
  setInterval(() => document.visibilityState === "visible" && refresh(), EVERY_MS);
}
start();
