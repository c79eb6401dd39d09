// The page for leads and admins: figures and people. Everything is asked for again every few seconds; nothing is kept.

/** @import { Account, Figures, KeptOperation, Me, Ticket, WorkFigures } from "../shared/types.js" */
import * as api from "../shared/api.js";
import { $, element, messageOf, replace } from "../shared/dom.js";
import { begin } from "../shared/lead_page.js";
import { KINDS, saidIn } from "../shared/log_words.js";
import { batches, copyButton, named, short, videos } from "../shared/names.js";
import { legend, number, percent, range, ratio, shares, table, time } from "../shared/tables.js";

const EVERY_MS = 3000; // so that nothing on the page is older than 5 s
const ROLES = ["annotator", "verifier", "lead", "admin", "pipeline"];
/** @type {Record<"people" | "makers" | "phases" | "checkpoints" | "labels" | "projects", string>} */
const BY = {
  people: "Person", makers: "Maker judged", phases: "Phase", checkpoints: "Checkpoint", labels: "Label", projects: "Project",
};
const PAYLOAD = 500; // characters of an operation's content that are its title
const VERDICT_PARTS = ["accept", "refine", "reject", "unsure", "made"];

let by = /** @type {keyof typeof BY} */ ("people");
/** @type {Figures | null} */
let figures = null;
/** @type {Account[]} */
let everybody = [];
/** @type {Map<string, string>} */
const shown = new Map();

// --- how things are written ------------------------------------------------------------------------------------------

/**
 * A link to the list of tickets, or to one of them.
 * @param {Record<string, string>} query
 * @param {string} text
 */
const tickets = (query, text) =>
  element("a", { href: `/web/browser.html#${new URLSearchParams(query)}`, title: text }, text);

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
  draw("batches", all.batches, () => [
    table(
      [{ head: "Batch" }, { head: "Kind" }, { head: "Progress", is: "bars" }, { head: "Open", is: "number" },
        { head: "Held", is: "number" }, { head: "Done", is: "number" }, { head: "Pace", unit: "an hour", is: "number" },
        { head: "Ends in", is: "number" }],
      all.batches.map((b) => [
        batchOf(b.batch_id), b.kind,
        shares({ done: b.done, held: b.leased, open: b.open }, ["done", "held", "open"]),
        b.open, b.leased, b.done, number(b.per_hour, 0), b.open + b.leased ? time(b.expected_s) : "done",
      ]),
      "No batch is open.",
    ),
    ...(all.batches.length ? [legend([["done", "done"], ["held", "held by a person"], ["open", "open"]])] : []),
  ]);
  for (const button of $("by").querySelectorAll("button")) {
    button.setAttribute("aria-checked", String(button.value === by));
    button.hidden = button.value === "projects" && all.projects.length === 0;
  }
  const rows = all[by].filter((row) => row.answers > 0);
  draw("figures", [by, all[by], all.total], () => [
    table(
      [{ head: BY[by] }, { head: "Answers", is: "number" }, { head: "Verdicts", is: "bars" },
        { head: "Time", unit: "s a ticket", is: "number" }, { head: "Time", unit: "s a frame", is: "number" },
        { head: "Clicks", unit: "a clicked frame", is: "number" }, { head: "Frames edited", unit: "%", is: "number" },
        { head: by === "people" ? "Accepts of new masklets" : "First accepted", unit: "%", is: "number" },
        { head: "Agreement", unit: "%", is: "number" }, { head: "With others", unit: "IoU", is: "number" }],
      rows.map(figuresRow),
      by === "labels" ? "Nobody has given a label yet." : "Nobody has finished a ticket yet.",
      by === "people" ? figuresRow({ ...all.total, name: "everybody" }) : undefined,
    ),
    ...(rows.length ? [legend(VERDICT_PARTS.map((name) => [name, name === "made" ? "a masklet made" : name]))] : []),
  ]);
  draw("judging", all.judging, () => [
    table(
      [{ head: "Person" }, { head: "Last verdicts", is: "number" }, { head: "Time", unit: "s, median", is: "number" },
        { head: "Frames watched", unit: "%", is: "number" }, { head: "Accepts", unit: "%", is: "number" },
        { head: "95 % interval", unit: "0 to 100 %", is: "bars" }, { head: "Others agree", unit: "%", is: "number" },
        { head: "Right on gold", is: "number" }, { head: "Look at", is: "words" }],
      all.judging.map((row) => [
        tickets({ person: row.person }, row.person), row.verdicts, number(row.median_s), percent(row.watched),
        percent(ratio(row.accepts)), range(row.accepts), percent(row.agreement),
        row.gold ? `${row.gold.right} of ${row.gold.of}` : "–",
        element("span", { className: row.flags.length ? "words flagged" : "" }, row.flags.join("; ") || "–"),
      ]),
      "Nobody has given a verdict yet.",
    ),
    ...(all.judging.length ? [INTERVAL()] : []),
  ]);
  draw("gold", all.gold, () => [
    table(
      [{ head: "Person" }, { head: "Kind" }, { head: "Right", is: "number" }, { head: "Of", is: "number" },
        { head: "Accuracy", unit: "%", is: "number" }, { head: "95 % interval", unit: "0 to 100 %", is: "bars" }],
      all.gold.map(({ person, kind, accuracy }) => [
        person, kind, accuracy.right, accuracy.of, percent(ratio(accuracy)), range(accuracy),
      ]),
      "Nobody has answered a gold ticket yet.",
    ),
    ...(all.gold.length ? [INTERVAL()] : []),
  ]);
}

const INTERVAL = () => legend([["dot", "the share"], ["span", "where it lies with 95 % confidence"]]);

/** @param {WorkFigures} row */
const figuresRow = (row) => [
  row.name || "the model", row.answers, shares(row.verdicts, VERDICT_PARTS),
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
  const link = tickets({ ticket: ticketId }, short(ticketId));
  link.prepend(picture);
  link.title = ticketId;
  return link;
}

/** The name of a batch, which leads to its tickets. @param {string} batchId */
function batchOf(batchId) {
  const link = tickets({ batch_id: batchId }, short(batchId));
  batches.write(link, batchId);
  return element("span", { className: "named" }, link, copyButton(batchId, "Copy the id of this batch"));
}

/**
 * Draw a part of the page, if what it shows has changed. The focus stays in it.
 * @param {string} id
 * @param {unknown} value  that it shows
 * @param {() => HTMLElement[]} make
 */
function draw(id, value, make) {
  if (isNew(id, value)) replace($(id), ...make());
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
      [{ head: "Ticket" }, { head: "Video" }, { head: "Batch" }, { head: "Kind" }, { head: "Person" },
        { head: "Action", is: "number" }],
      leased.map((t) => [
        linkTo(t.ticket_id), named(videos, t.video_id, "video"), batchOf(t.batch_id), t.kind,
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
      [{ head: "Batch" }, { head: "Stage" }, { head: "Since" }, { head: "Error", is: "words" }],
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
  const named = phases.some(({ project }) => project) ? [{ head: "Project" }] : [];
  $("campaign").replaceChildren(
    table(
      [...named, { head: "Phase" }, { head: "State" }, { head: "Masklets", is: "number" }, { head: "Retrainings", is: "number" }],
      phases.map((p) => [
        ...named.map(() => p.project || "–"), p.phase, p.state, of(p.masklets, p.planned_masklets), of(p.retrainings, p.planned_retrainings),
      ]),
      "No campaign is planned.",
    ),
  );
}

async function showBranches() {
  const kept = await api.branches();
  if (!isNew("branches", kept)) return;
  const content = (/** @type {KeptOperation} */ operation) =>
    element("span", { className: "words", title: operation.payload.slice(0, PAYLOAD) }, saidIn(operation) || "–");
  $("branches").replaceChildren(
    table(
      [{ head: "Ticket" }, { head: "Person" }, { head: "What" }, { head: "Frame", is: "number" }, { head: "When" },
        { head: "Content", is: "words" }],
      kept.map((o) => [
        linkTo(o.ticket_id), o.person, KINDS[o.kind] ?? o.kind, o.frame_idx ?? "–",
        new Date(o.created_at).toLocaleString(), content(o),
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
      [{ head: "Name" }, { head: "Roles" }, { head: "Skills" }, { head: "Tokens", is: "number" },
        { head: "Actions", is: "number" }],
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
  me = await begin();
  if (me === null) return;
  await Promise.all([refresh(), attempt(async () => {})]);
  setInterval(() => document.visibilityState === "visible" && refresh(), EVERY_MS);
}
start();
