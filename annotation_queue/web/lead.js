// Figures and people, for leads and admins. Everything is asked anew every few seconds; nothing is kept here.

import * as api from "./api.js";
import { $, element } from "./dom.js";

const EVERY_MS = 3000; // what is shown is at most 5 s old
const ROLES = ["annotator", "verifier", "lead", "admin", "pipeline"];
const BY = [
  ["people", "Person"],
  ["makers", "Maker judged"],
  ["phases", "Phase"],
  ["checkpoints", "Checkpoint"],
];

let me = null;
let by = "people";
let figures = null;

const percent = (share) => (share === null || share === undefined ? "–" : `${Math.round(100 * share)} %`);
const ratio = (share) => (share?.of ? share.right / share.of : null);
const number = (value, digits = 1) => (value === null || value === undefined ? "–" : value.toFixed(digits));

function table(heads, rows, nothing) {
  if (rows.length === 0) return element("p", { className: "none" }, nothing);
  const head = element("tr", {}, ...heads.map((text) => element("th", { scope: "col" }, text)));
  const cells = (row) =>
    row.map((cell) => (cell instanceof HTMLElement ? element("td", {}, cell) : element("td", {}, String(cell))));
  return element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows.map((row) => element("tr", {}, ...cells(row)))));
}

function shares(counts, names) {
  // A bar of parts, with its numbers as its title and for screen readers.
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

function time(seconds) {
  if (seconds === null) return "–";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

function showFigures() {
  if (figures === null) return;
  $("batches").replaceChildren(
    table(
      ["Batch", "Kind", "Progress", "Open", "In hands", "Done", "An hour", "Ends in"],
      figures.batches.map((b) => [
        b.batch_id, b.kind, shares(b, ["done", "leased", "open"]), b.open, b.leased, b.done, number(b.per_hour, 0),
        b.open + b.leased ? time(b.expected_s) : "done",
      ]),
      "No batch is open.",
    ),
  );
  for (const button of $("by").children) button.setAttribute("aria-checked", String(button.value === by));
  const rows = [...figures[by], ...(by === "people" ? [{ ...figures.total, name: "everybody" }] : [])];
  $("figures").replaceChildren(
    table(
      [BY.find(([name]) => name === by)[1], "Answers", "Verdicts", "s a ticket", "s a frame", "Clicks a clicked frame",
        "Frames edited", "Right at first", "Agreement", "IoU with others"],
      rows.filter((w) => w.answers > 0).map((w) => [
        w.name || "the model", w.answers, shares(w.verdicts, ["accept", "refine", "reject", "unsure", "made"]),
        number(w.seconds_per_ticket), number(w.seconds_per_frame, 2), number(w.clicks_per_clicked_frame),
        percent(w.edited_frames_share), percent(ratio(w.first_pass)), percent(w.agreement), number(w.masklet_iou, 2),
      ]),
      "Nobody has finished a ticket yet.",
    ),
  );
  $("gold").replaceChildren(
    table(
      ["Person", "Kind", "Right", "Of", "Accuracy", ""],
      figures.gold.map((g) => [
        g.person, g.kind, g.accuracy.right, g.accuracy.of, percent(ratio(g.accuracy)), range(g.accuracy),
      ]),
      "No gold ticket was answered yet.",
    ),
  );
}

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

function changed(what, value) {
  // Whether this is something new to show: what somebody has selected, or is about to press, stays where it is.
  const text = JSON.stringify(value);
  if (changed[what] === text) return false;
  changed[what] = text;
  return true;
}

function action(text, title, run) {
  return element("button", { type: "button", className: "quiet bordered", title, onclick: () => attempt(run) }, text);
}

async function showHands() {
  const held = await api.inHands();
  if (!changed("hands", held.map((ticket) => [ticket.ticket_id, ticket.lease_token]))) return;
  $("hands").replaceChildren(
    table(
      ["Ticket", "Batch", "Kind", "Person", ""],
      held.map((ticket) => [
        ticket.ticket_id, ticket.batch_id, ticket.kind, ticket.leased_by,
        action("Take back", "The ticket goes to the next person; what was done stays with it", async () => {
          await api.endLease(ticket);
          await showHands();
        }),
      ]),
      "Nobody holds a ticket.",
    ),
  );
}

async function showBranches() {
  const kept = await api.branches();
  if (!changed("branches", kept)) return;
  $("branches").replaceChildren(
    table(
      ["Ticket", "Person", "What", "Frame", "When", "Content"],
      kept.map((o) => [
        o.ticket_id, o.person, o.kind, o.frame_idx ?? "–", new Date(o.created_at).toLocaleString(),
        element("code", { title: o.payload }, o.payload.length > 60 ? `${o.payload.slice(0, 60)}…` : o.payload),
      ]),
      "Nothing.",
    ),
  );
}

async function showPeople() {
  const everybody = await api.people();
  $("people").replaceChildren(
    table(
      ["Name", "Roles", "Skills", "Tokens", ""],
      everybody.map((person) => {
        const { name, disabled, tokens } = person;
        const actions = element("span", { className: "stepper" });
        actions.style.justifyContent = "flex-end";
        actions.append(
          action("New token", "For a program that works as this person", async () => {
            const { token } = await api.issueToken(name, ["annotate"]);
            prompt(`The token of ${name}. It is shown this once.`, token);
          }),
          action("End logins", "Revokes every token and browser login", () => api.revokeTokens(name)),
          action(disabled ? "Enable" : "Disable", disabled ? "" : "What they did stays", () => api.disable(name, !disabled)),
        );
        return [
          element("span", { className: disabled ? "disabled" : "" }, disabled ? `${name} (disabled)` : name),
          person.roles.join(", "), person.skills.join(", ") || "–", tokens.length, name === me.name ? "you" : actions,
        ];
      }),
      "Nobody.",
    ),
  );
}

async function attempt(run) {
  // Do something, and show what became of it.
  try {
    await run();
    $("error").textContent = "";
    await showPeople();
  } catch (error) {
    $("error").textContent = error.message;
  }
}

$("add").addEventListener("submit", (event) => {
  event.preventDefault();
  const form = new FormData(event.target);
  const skills = String(form.get("skills")).split(/[\s,]+/).filter(Boolean);
  attempt(async () => {
    const body = { name: form.get("name").trim(), roles: form.getAll("role"), skills };
    if (form.get("password")) body.password = form.get("password");
    await api.setPerson(body);
    event.target.reset();
  });
});

for (const role of ROLES) {
  const box = element("input", { type: "checkbox", name: "role", value: role });
  $("roles").append(element("label", {}, box, role));
}
for (const [name, text] of BY) {
  $("by").append(
    element("button", { type: "button", value: name, role: "radio", onclick: () => {
      by = name;
      showFigures();
    } }, text),
  );
}

async function refresh() {
  try {
    [figures] = await Promise.all([api.figures(), showHands(), showBranches()]);
    $("age").textContent = `counted ${new Date(1000 * figures.at).toLocaleTimeString()}`;
    showFigures();
  } catch (error) {
    if (error.status === 401) location.href = "/";
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
  await Promise.all([refresh(), attempt(() => {})]);
  setInterval(() => document.visibilityState === "visible" && refresh(), EVERY_MS);
}
start();
