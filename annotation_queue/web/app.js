// The page: what is on screen, what the keys do, and which tickets this tab holds.

import * as api from "./api.js";
import { Timeline } from "./masklet.js";
import { Outbox } from "./outbox.js";
import { Frames, MODES, Player } from "./player.js";
import { Strip } from "./timeline.js";

const $ = (id) => document.getElementById(id);

const VERDICTS = [
  { verdict: "accept", key: "A", title: "Accept", hint: "right in every frame" },
  { verdict: "refine", key: "E", title: "Refine", hint: "a clear object, a wrong masklet" },
  { verdict: "reject", key: "X", title: "Reject", hint: "not a well-defined object" },
  { verdict: "unsure", key: "U", title: "Unsure", hint: "a lead decides" },
];

const REASONS = {
  not_an_object: "Not an object",
  wrong_boundary: "Wrong boundary",
  identity_switch: "Jumps to another object",
  drift: "Drifts off the object",
  missed_reappearance: "Misses its return",
  duplicate: "Same object as another",
  untrackable: "Cannot be tracked",
  objectionable: "Objectionable video",
  other: "Something else",
};

const KEYS = [
  ["A", "accept: right in every frame"],
  ["E", "refine: a clear object, a wrong masklet"],
  ["X then 1–9", "reject, with its reason"],
  ["U", "unsure: a lead decides"],
  ["Space", "play or pause"],
  ["← →", "one annotated frame"],
  ["Shift ← →", "ten annotated frames"],
  ["Home End", "first or last frame"],
  ["[ ]", "previous or next suspect frame"],
  ["H", "hide the overlay while held"],
  ["O", "overlay: fill, outline, cut-out"],
  ["S", "speed: 1×, 2×, 4×"],
  ["?", "this list"],
];

const NUMBERS = new Intl.NumberFormat("en");

// --- state ---------------------------------------------------------------------------------------------------------

let me = null;
let current = null; // the work on screen
let next = null; // promise of the work after it: work, or null if the queue has none
let nextClaim = null; // the claim that it was asked for with
let nextWork = null; // …and the work, once it is here
let resumed = []; // work that a reload took up again, not yet shown
let held = null; // verify work put aside while a track ticket is open
let choosing = false; // a reason for the rejection
let lastStats = null;
let paces = []; // s a decision, the last twenty
let pollTimer = null;

const player = new Player($("screen"));
const strip = new Strip($("timeline"), colour);
const outbox = new Outbox({ onchange: showSaveState, onrefused: refused, onlogin: askToLogIn });

player.onframe = showFrame;
player.onbuffer = (waiting) => document.body.classList.toggle("buffering", waiting);
strip.onseek = (position) => {
  player.play(false);
  player.seek(position);
};

function colour(name) {
  // A custom property as a colour that canvas understands, in the theme that is on.
  const probe = $("theme");
  const key = `${name} ${document.documentElement.dataset.theme ?? ""} ${matchMedia("(prefers-color-scheme: dark)").matches}`;
  if (!colour.known.has(key)) {
    const element = document.createElement("i");
    element.style.color = `var(${name})`;
    probe.append(element);
    colour.known.set(key, getComputedStyle(element).color);
    element.remove();
  }
  return colour.known.get(key);
}
colour.known = new Map();

// --- getting work ----------------------------------------------------------------------------------------------------

const kindsOf = () => {
  const roles = new Set(me.roles);
  return { verify: roles.has("verifier") || roles.has("lead"), track: roles.has("annotator") || roles.has("lead") };
};

const holds = () => JSON.parse(sessionStorage.getItem("masklets.holds") ?? "[]");

function keepHolds() {
  // The claims of this tab: a reload sends them again, and the same claim gives the same ticket.
  const shown = [current, held].filter((work) => work && !work.finished).map((work) => work.claim);
  sessionStorage.setItem("masklets.holds", JSON.stringify(nextClaim ? [...shown, nextClaim] : shown));
}

async function persist(ask) {
  // Repeat while the queue is out of reach, and say so meanwhile.
  for (let wait = 500; ; wait = Math.min(wait * 2, 8000)) {
    try {
      const answer = await ask();
      setReachable(true);
      return answer;
    } catch (error) {
      if (!(error instanceof api.Unreachable)) throw error;
      setReachable(false);
      await new Promise((done) => setTimeout(done, wait));
    }
  }
}

const newClaim = (body) => ({ claim_id: api.newId(), ...body });

async function send(claim) {
  const ticket = await persist(() => api.claim(claim));
  return ticket && prepare(ticket, claim);
}

async function prepare(ticket, claim) {
  // Everything that showing a ticket needs; its first frames are on their way when this returns.
  const [info, masklet] = await Promise.all([
    persist(() => api.video(ticket.video_id)),
    ticket.masklet_id ? persist(() => api.masklet(ticket.ticket_id)) : null,
  ]);
  const timeline = new Timeline(masklet, info, me.stride);
  const frames = new Frames(ticket.video_id, timeline.frames);
  frames.limit = Math.min(4, timeline.length); // until it is on screen
  frames.ontrouble = frameTrouble;
  frames.want(0);
  return { ticket, claim, info, masklet, timeline, frames, renewedAt: performance.now(), finished: false };
}

function frameTrouble(error) {
  // null: a frame has come
  if (error === null || error instanceof api.Unreachable) return setReachable(error === null);
  if (error.status === 401) return askToLogIn();
  notice(`A frame cannot be shown: ${error.message}`);
}

function fetchNext() {
  const work = resumed.shift() ?? null;
  nextClaim = work?.claim ?? newClaim({ kinds: ["verify"] });
  keepHolds();
  next = (work ? Promise.resolve(work) : send(nextClaim)).catch((error) => {
    fail(error);
    return null;
  });
  next.then((found) => (nextWork = found));
}

async function takeNext() {
  // Put the next ticket on screen; it is there already unless the queue was slow.
  clearTimeout(pollTimer);
  current = null;
  if (!kindsOf().verify) return nothingLeft();
  if (next === null) fetchNext();
  const waiting = next;
  const slow = setTimeout(() => message({ glyph: "…", title: "One moment", text: "Fetching the next ticket." }), 400);
  let work = await waiting;
  if (waiting !== next) return clearTimeout(slow);
  if (work === null || work.lost) work = await send(newClaim({ kinds: ["verify"] })).catch(fail); // what came since
  clearTimeout(slow);
  if (waiting !== next || work === undefined) return;
  next = nextWork = nextClaim = null;
  if (work === null) return nothingLeft();
  showWork(work);
  fetchNext();
}

async function nothingLeft() {
  keepHolds();
  player.show(null);
  strip.show(null);
  await refreshStats();
  sayNothingLeft();
  pollTimer = setTimeout(() => {
    if (document.body.dataset.view !== "message" || current !== null) return;
    if (!kindsOf().verify) return nothingLeft();
    next = null;
    takeNext();
  }, 4000);
}

function sayNothingLeft() {
  const { verify, track } = kindsOf();
  message({
    glyph: "✓",
    title: verify ? "Nothing left to verify" : "Tickets for annotators",
    text: verify
      ? "Every masklet that you may judge has its verdict or is in somebody's hands. New ones appear by themselves."
      : "Correcting masklets needs the model in the loop, which is not part of this version of the page.",
    counts: waitingCounts(),
    actions: track && counts().track ? [{ text: "See what waits for an annotator", run: openTracks }] : [],
  });
  message.nothingLeft = true;
}

function waitingCounts() {
  const n = counts();
  const lines = [
    [n.leased, "being verified"],
    [n.lead, "waiting for a lead"],
    [n.track, "waiting for an annotator"],
  ];
  return lines.filter(([count]) => count > 0).map(([count, text]) => `${NUMBERS.format(count)} ${text}`);
}

// --- showing work ----------------------------------------------------------------------------------------------------

function view(name) {
  document.body.dataset.view = name;
}

function showWork(work) {
  current = work;
  choosing = false;
  keepHolds();
  view("work");
  work.startedAt = performance.now();
  work.frames.limit = work.timeline.length;
  const { ticket, masklet, timeline } = work;
  $("batch").textContent = ticket.batch_id;
  const track = ticket.kind === "track";
  $("eyebrow").textContent =
    (track ? "Track" : "Verify") + (ticket.attempt > 1 ? ` · attempt ${ticket.attempt}` : "") +
    (ticket.needs_lead ? " · a verifier was unsure" : "");
  $("question").textContent = track ? "Can this object be tracked?" : "Is this mask right in every frame?";
  $("checkpoint").textContent = masklet ? `${masklet.checkpoint} · round ${masklet.round}` : "Nobody yet";
  $("origin").textContent = masklet
    ? masklet.annotated_by ? `corrected by ${masklet.annotated_by}` : "automatic, not corrected"
    : "to be made by hand";
  const lowest = timeline.lowest();
  const facts = [["Video", ticket.video_id], ["Phase", ticket.phase]];
  if (masklet) {
    facts.push(["Present", `${timeline.presentCount} of ${timeline.length} frames`]);
    if (lowest) facts.push(["Score", `${timeline.mean().toFixed(2)} mean, ${lowest[0].toFixed(2)} lowest`]);
    if (masklet.click_count) facts.push(["Clicks", `${masklet.click_count} on ${masklet.edited_frame_count} frames`]);
  }
  $("facts").replaceChildren(
    ...facts.flatMap(([term, value]) => [element("dt", {}, term), element("dd", { title: value }, value)]),
  );
  $("suspects").textContent =
    timeline.suspects.length === 1 ? "1 suspect" : `${timeline.suspects.length || "no"} suspects`;
  $("previous-suspect").disabled = $("next-suspect").disabled = timeline.suspects.length === 0;
  showVerdicts();
  strip.show(work);
  player.show(work);
  player.portrait($("portrait"));
  player.play(false);
  player.play(true);
  showPlaying();
  showLease();
}

function showVerdicts() {
  document.body.classList.toggle("choosing", choosing);
  const track = current.ticket.kind === "track";
  if (choosing) {
    const buttons = me.reasons.map((reason, i) =>
      element(
        "button",
        { type: "button", className: "reason", onclick: () => decide("reject", [reason]) },
        element("kbd", {}, String(i + 1)),
        element("span", {}, REASONS[reason] ?? reason),
      ),
    );
    $("verdicts").replaceChildren(
      element("p", { className: "label" }, "Why is it rejected?"),
      element("div", { className: "reasons" }, ...buttons),
      element(
        "button", { type: "button", className: "quiet back", onclick: () => choose(false) }, element("kbd", {}, "Esc"),
        " back",
      ),
    );
    return;
  }
  const offered = VERDICTS.filter(({ verdict }) =>
    track ? verdict === "reject" : !(verdict === "unsure" && current.ticket.needs_lead));
  const buttons = offered.map(({ verdict, key, title, hint }) =>
    element(
      "button",
      { type: "button", className: `verdict ${verdict}`, onclick: () => answer(verdict) },
      element("kbd", {}, key),
      element("span", {}, element("b", {}, title), element("small", {}, track ? "cannot be tracked" : hint)),
    ),
  );
  if (track) {
    buttons.push(
      element(
        "button", { type: "button", className: "quiet back", onclick: putBack }, element("kbd", {}, "Esc"), " put it back",
      ),
    );
  }
  $("verdicts").replaceChildren(...buttons);
}

function showFrame(position) {
  const { timeline, info } = current ?? player.work;
  const frameIdx = timeline.frames[position];
  strip.move(position);
  $("frame").textContent = String(frameIdx);
  $("of").textContent = ` / ${timeline.frames[timeline.length - 1]}`;
  $("clock").textContent = `${(frameIdx / info.fps).toFixed(2)} s`;
  const present = timeline.present[position];
  $("score").textContent = timeline.scores ? (present ? `score ${timeline.scores[position].toFixed(2)}` : "absent") : "";
  const badges = [];
  if (timeline.scores && !present) badges.push(["", "Absent in this frame"]);
  const suspect = timeline.suspect(position);
  if (suspect && (present || suspect.why !== "object leaves")) badges.push(["doubt", `Suspect: ${suspect.why}`]);
  if (player.hidden) badges.push(["", "Overlay hidden"]);
  $("badges").replaceChildren(...badges.map(([name, text]) => element("span", { className: `badge ${name}` }, text)));
}

function showPlaying() {
  $("play").classList.toggle("playing", player.playing);
  $("speed").textContent = `${player.speed}×`;
  for (const button of $("modes").children) button.setAttribute("aria-checked", String(button.value === player.mode));
}

function message({ glyph, title, text, counts: lines = [], actions = [] }) {
  $("message-glyph").textContent = glyph;
  $("message-title").textContent = title;
  $("message-text").textContent = text;
  $("message-counts").replaceChildren(...lines.map((line) => element("span", {}, line)));
  $("message-actions").replaceChildren(
    ...actions.map(({ text: label, run, key }) =>
      element(
        "button", { type: "button", className: "primary", onclick: run }, label,
        ...(key ? [" ", element("kbd", {}, key)] : []),
      ),
    ),
  );
  message.enter = actions[0]?.run ?? null;
  message.nothingLeft = false;
  view("message");
}

function notice(text) {
  $("notice").textContent = text;
  $("notice").hidden = false;
  clearTimeout(notice.timer);
  notice.timer = setTimeout(() => ($("notice").hidden = true), 9000);
}

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// --- deciding --------------------------------------------------------------------------------------------------------

function answer(verdict) {
  if (!current || current.lost) return;
  if (current.ticket.kind === "track" && verdict !== "reject") return;
  if (verdict === "unsure" && current.ticket.needs_lead) return notice("A verifier was unsure already: you decide.");
  if (verdict === "reject") return choose(true);
  decide(verdict, []);
}

function choose(on) {
  choosing = on;
  showVerdicts();
}

function decide(verdict, reasons) {
  const work = current;
  const seconds = (performance.now() - work.startedAt) / 1000;
  work.finished = true;
  outbox.add({
    person: me.name,
    ticketId: work.ticket.ticket_id,
    token: work.ticket.lease_token,
    outcome: {
      operation_id: api.newId(),
      created_at: new Date().toISOString(),
      verdict,
      reasons,
      frame_idx: work.timeline.frames[Math.max(0, player.shown)],
      seconds: Math.round(seconds * 100) / 100,
    },
  });
  if (work.ticket.kind === "verify") {
    paces = [...paces.slice(-19), seconds];
    const mean = paces.reduce((a, b) => a + b, 0) / paces.length;
    $("pace").textContent = `${mean.toFixed(1)} s a masklet`;
  }
  keepHolds();
  flash(verdict);
  work.frames.close();
  leave();
}

function leave() {
  // What comes after the work on screen: what was put aside, or the next ticket.
  if (held) {
    const back = held;
    held = null;
    current = null;
    if (back.lost) return takeNext();
    const position = back.position ?? 0;
    showWork(back);
    player.seek(position);
  } else takeNext();
}

function flash(verdict) {
  const sign = $("flash");
  sign.textContent = VERDICTS.find((v) => v.verdict === verdict).title;
  sign.className = "flash";
  void sign.offsetWidth; // begin the animation again
  sign.className = `flash on ${verdict}`;
}

function refused(item, error) {
  if (error.kind === "LeaseLost") {
    notice("One answer came after its lease had run out: it is kept beside the ticket, and somebody else decides.");
  } else notice(`One answer was refused: ${error.message}`);
}

// --- track tickets ---------------------------------------------------------------------------------------------------

async function openTracks() {
  const waiting = await persist(() => api.tickets({ kind: "track", state: "open", limit: 100 })).catch(fail);
  if (!waiting) return;
  const may = kindsOf().track;
  $("tracks-list").replaceChildren(
    ...waiting.map((ticket) =>
      element(
        "div", { className: "row" },
        element("span", { className: "grow" }, element("b", {}, ticket.video_id), element("small", {}, ticket.masklet_id
          ? `masklet ${ticket.masklet_id} · phase ${ticket.phase}` : `from nothing · phase ${ticket.phase}`)),
        ...(may ? [element("button", { type: "button", className: "quiet bordered",
          onclick: () => openTrack(ticket.ticket_id) }, "Look")] : []),
      ),
    ),
    ...(waiting.length ? [] : [element("p", { className: "soft" }, "None at the moment.")]),
  );
  if (!$("tracks").open) $("tracks").showModal();
}

async function openTrack(ticketId) {
  const work = await send(newClaim({ kinds: ["track"], ticket_id: ticketId })).catch(fail);
  if (work === undefined) return;
  if (work === null) return openTracks(); // somebody else took it
  $("tracks").close();
  clearTimeout(pollTimer);
  document.activeElement?.blur();
  if (current) {
    held = current;
    held.position = player.position;
  }
  showWork(work);
}

function putBack() {
  const { ticket, frames } = current;
  current.finished = true;
  api.release(ticket.ticket_id, ticket.lease_token).catch(() => {}); // it runs out by itself otherwise
  frames.close();
  leave();
}

// --- leases ----------------------------------------------------------------------------------------------------------

async function renew(work) {
  if (!work || work.lost || work.finished) return;
  try {
    await api.heartbeat(work.ticket.ticket_id, work.ticket.lease_token);
    work.renewedAt = performance.now();
    setReachable(true);
  } catch (error) {
    if (error instanceof api.Unreachable) return setReachable(false);
    if (error.status === 401) return askToLogIn();
    work.lost = true;
    work.frames.close();
    if (work === current) leaseLost();
  }
}

async function renewAll() {
  if (!me) return;
  await Promise.all([renew(current), renew(held), renew(nextWork)]);
  for (const { ticketId, token } of outbox.pending()) api.heartbeat(ticketId, token).catch(() => {});
}

function beat() {
  clearTimeout(beat.timer);
  beat.timer = setTimeout(() => renewAll().finally(beat), 1000 * me.heartbeat_s);
}

function leaseLost() {
  player.play(false);
  showPlaying();
  const work = current;
  current = null;
  keepHolds();
  message({
    glyph: "⏳",
    title: "This ticket went back to the queue",
    text: `Its lease of ${me.lease_s} s ran out while this page was out of reach. Nothing that you sent is lost; ` +
      "somebody else may hold the ticket now.",
    actions: [{ text: "Take the next one", run: leave, key: "Enter" }],
  });
  work.frames.close();
}

function showLease() {
  if (!current || !me) return ($("lease").hidden = true);
  const left = Math.max(0, me.lease_s - (performance.now() - current.renewedAt) / 1000);
  $("lease").hidden = false;
  $("lease").textContent = `lease ${Math.ceil(left)} s`;
  $("lease").classList.toggle("low", left < me.lease_s / 3);
}

// --- saving, numbers ---------------------------------------------------------------------------------------------------

function setReachable(reachable) {
  if (setReachable.now === reachable) return;
  setReachable.now = reachable;
  showSaveState();
  if (reachable) outbox.flush();
}
setReachable.now = true;

function showSaveState() {
  const waiting = outbox.pending().length;
  const offline = outbox.offline || !setReachable.now;
  const state = offline ? "offline" : waiting ? "saving" : "saved";
  const answers = waiting === 1 ? "1 answer kept here" : `${waiting} answers kept here`;
  const text = { offline: waiting ? `No connection · ${answers}` : "No connection", saving: "Saving", saved: "Saved" };
  $("save").dataset.state = state;
  $("save").lastElementChild.textContent = text[state];
  if (state === "saved" && showSaveState.before === "saving") refreshStats();
  showSaveState.before = state;
}

function counts() {
  const sum = (test) => (lastStats?.counts ?? []).filter(test).reduce((n, row) => n + row.tickets, 0);
  return {
    open: sum((c) => c.kind === "verify" && c.state === "open" && !c.needs_lead),
    leased: sum((c) => c.kind === "verify" && c.state === "leased"),
    lead: sum((c) => c.kind === "verify" && c.state === "open" && c.needs_lead),
    track: sum((c) => c.kind === "track" && c.state === "open"),
  };
}

async function refreshStats() {
  try {
    lastStats = await api.stats();
  } catch {
    return;
  }
  const n = counts();
  const left = n.open + n.leased + (me.roles.includes("lead") ? n.lead : 0);
  $("left").textContent = `${NUMBERS.format(left)} to verify`;
  $("open-tracks").textContent = n.track ? `${NUMBERS.format(n.track)} to track` : "";
  $("open-tracks").hidden = n.track === 0;
  if (message.nothingLeft && document.body.dataset.view === "message") sayNothingLeft();
}

// --- logging in --------------------------------------------------------------------------------------------------------

function fail(error) {
  if (error instanceof api.Refused && error.status === 401) return askToLogIn();
  if (error instanceof api.Refused && error.status === 403) notice(error.message);
  else notice(`Something went wrong: ${error.message}`);
}

function askToLogIn() {
  if (document.body.dataset.view === "login") return;
  const again = me !== null;
  player.play(false);
  $("login-text").textContent = again
    ? "Your login has ended. Log in again: nothing is lost."
    : "Log in to verify masklets.";
  view("login");
  $(again ? "login-password" : "login-name").focus();
}

async function begin(who) {
  const same = me?.name === who.name;
  me = who;
  player.rate = me.fps / me.stride;
  $("who").textContent = me.name;
  outbox.mine(me.name);
  refreshStats();
  beat();
  if (same && current) return view("work");
  current = held = next = nextWork = null;
  resumed = [];
  for (const claim of holds()) {
    const work = await send(claim).catch(() => null); // its lease may be over
    if (work?.ticket.kind === "verify") resumed.push(work);
    else if (work) api.release(work.ticket.ticket_id, work.ticket.lease_token).catch(() => {});
  }
  takeNext();
}

$("login-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  $("login-error").textContent = "";
  try {
    const who = await api.logIn($("login-name").value.trim(), $("login-password").value);
    $("login-password").value = "";
    document.activeElement?.blur();
    await begin(who);
  } catch (error) {
    $("login-error").textContent = error instanceof api.Unreachable ? "The queue does not answer." : error.message;
  }
});

$("log-out").addEventListener("click", async () => {
  for (const work of [current, held, nextWork]) {
    if (work && !work.finished) await api.release(work.ticket.ticket_id, work.ticket.lease_token).catch(() => {});
  }
  sessionStorage.removeItem("masklets.holds");
  await api.logOut().catch(() => {});
  location.reload();
});

// --- keys and buttons ----------------------------------------------------------------------------------------------------

function step(by) {
  player.play(false);
  player.seek(player.position + by);
  showPlaying();
}

function toSuspect(direction) {
  const found = current.timeline.suspects.filter(({ position }) => (position - player.position) * direction > 0);
  if (found.length === 0) return;
  step((direction > 0 ? found[0] : found[found.length - 1]).position - player.position);
}

function togglePlay() {
  player.play();
  showPlaying();
}

function nextSpeed() {
  player.speed = { 1: 2, 2: 4, 4: 1 }[player.speed];
  showPlaying();
}

function setMode(mode) {
  player.setMode(mode);
  localStorage.setItem("masklets.mode", mode);
  showPlaying();
}

const ACTIONS = {
  " ": togglePlay,
  ArrowLeft: (event) => step(event.shiftKey ? -10 : -1),
  ArrowRight: (event) => step(event.shiftKey ? 10 : 1),
  Home: () => step(-player.position),
  End: () => step(current.timeline.length),
  "[": () => toSuspect(-1),
  "]": () => toSuspect(1),
  a: () => answer("accept"),
  e: () => answer("refine"),
  x: () => answer("reject"),
  u: () => answer("unsure"),
  h: () => player.setHidden(true),
  o: () => setMode(MODES[(MODES.indexOf(player.mode) + 1) % MODES.length]),
  s: nextSpeed,
};

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches?.("input")) return;
  if (event.key === "?") return $("help").open ? $("help").close() : $("help").showModal();
  if (document.querySelector("dialog[open]")) return;
  const name = document.body.dataset.view;
  if (name === "message" && event.key === "Enter" && message.enter && event.target.tagName !== "BUTTON") {
    event.preventDefault();
    return message.enter();
  }
  if (name !== "work" || !current) return;
  if (event.repeat && !event.key.startsWith("Arrow")) return event.preventDefault();
  if (choosing && /^[1-9]$/.test(event.key)) {
    const reason = me.reasons[Number(event.key) - 1];
    if (reason) decide("reject", [reason]);
    return event.preventDefault();
  }
  if (event.key === "Escape") {
    if (choosing) choose(false);
    else if (current.ticket.kind === "track") putBack();
    return;
  }
  const action = ACTIONS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!action) return;
  event.preventDefault();
  action(event);
});

addEventListener("keyup", (event) => {
  if (event.key.toLowerCase() === "h") player.setHidden(false);
});
addEventListener("blur", () => player.setHidden(false));

$("play").addEventListener("click", togglePlay);
$("screen").addEventListener("click", togglePlay);
$("speed").addEventListener("click", nextSpeed);
$("previous-suspect").addEventListener("click", () => toSuspect(-1));
$("next-suspect").addEventListener("click", () => toSuspect(1));
$("open-help").addEventListener("click", () => $("help").showModal());
$("open-tracks").addEventListener("click", openTracks);
for (const mode of MODES) {
  const label = mode[0].toUpperCase() + mode.slice(1);
  $("modes").append(
    element("button", { type: "button", value: mode, role: "radio", onclick: () => setMode(mode) }, label),
  );
}
document.querySelector("main").addEventListener("click", (event) => event.target.closest("button")?.blur());

$("theme").addEventListener("click", () => {
  const dark = getComputedStyle(document.documentElement).colorScheme === "dark" ||
    (!document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
  setTheme(dark ? "light" : "dark");
});

function setTheme(theme) {
  if (theme) {
    document.documentElement.dataset.theme = theme;
    localStorage.setItem("masklets.theme", theme);
  }
  strip.draw();
}

$("keys").append(
  ...KEYS.flatMap(([keys, text]) => [
    element("span", {}, ...keys.split(" ").map((key) => (key === "then" ? " then " : element("kbd", {}, key)))),
    element("span", {}, text),
  ]),
);

// --- start -------------------------------------------------------------------------------------------------------------

setTheme(localStorage.getItem("masklets.theme"));
player.mode = MODES.includes(localStorage.getItem("masklets.mode")) ? localStorage.getItem("masklets.mode") : "fill";
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => strip.draw());
showPlaying();
showSaveState();
setInterval(showLease, 1000);
setInterval(() => document.visibilityState === "visible" && me && refreshStats(), 15000);

async function start() {
  try {
    await begin(await persist(api.me));
  } catch (error) {
    if (error instanceof api.Refused && error.status === 401) askToLogIn();
    else fail(error);
  }
}
start();
