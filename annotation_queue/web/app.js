// The page: what is on screen, what the keys do, and which tickets this tab holds.

import * as api from "./api.js";
import { Desk, TOOLS } from "./desk.js";
import { $, element, replace } from "./dom.js";
import { Draft } from "./draft.js";
import { Help } from "./help.js";
import * as keys from "./keys.js";
import { lanes } from "./lanes.js";
import { Login } from "./login.js";
import { Timeline } from "./masklet.js";
import { Outbox } from "./outbox.js";
import { Frames, MODES, Player } from "./player.js";
import { forgetTime, keepTime, Presence, timeAt } from "./presence.js";
import { Strip } from "./timeline.js";
import { ASKS, REASONS, VERDICTS, WHY } from "./words.js";

const dark = matchMedia("(prefers-color-scheme: dark)");

const many = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;
const NUMBERS = new Intl.NumberFormat("en");

// --- state ---------------------------------------------------------------------------------------------------------

let me = null;
let current = null; // the work on screen
let next = null; // promise of the work after it: work, or null if the queue has none
let nextClaim = null; // the claim that it was asked for with
let nextWork = null; // …and the work, once it is here
let resumed = []; // work that a reload took up again, not yet shown
let turn = null; // the kinds of tickets that this person takes now, most wanted first
const underWay = new Set(); // claims of leases that were asked for otherwise
let choosing = null; // the verdict that a reason is chosen for
let lastStats = null;
let barred = { verify: 0, track: 0 }; // tickets that wait, but not for this person
let asked = null; // the kind that the button in the bar asked for
let paces = []; // s a decision, the last twenty
let pollTimer = null;

const player = new Player($("screen"));
const strip = new Strip($("timeline"), colour);
const outbox = new Outbox({
  onchange: showSaveState, onrefused: refused, onlogin: askToLogIn, onanswer: answered, ontrouble: notice,
});
const desk = new Desk({
  player, marks: $("marks"), stage: $("stage"), onact: sendOperation, onchange: showDraft, onnotice: notice,
});

const login = new Login({ onlogin: begin });
const presence = new Presence({ onleave: stepAway, onreturn: comeBack });
const help = new Help({
  kind: () => current && (current.ticket.kind === "verify" ? "verify" : "track"),
  onchange: showKeys,
});

player.onframe = showFrame;
player.onview = () => desk.paint();
player.onbuffer = (waiting) => document.body.classList.toggle("buffering", waiting);
strip.onseek = (position) => {
  player.play(false);
  player.seek(position);
};

function colour(name) {
  // A custom property as a colour that canvas understands, in the theme that is on.
  const probe = $("theme");
  const key = `${name} ${document.documentElement.dataset.theme ?? ""} ${dark.matches}`;
  if (!colour.known.has(key)) {
    const shown = element("i");
    shown.style.color = `var(${name})`;
    probe.append(shown);
    colour.known.set(key, getComputedStyle(shown).color);
    shown.remove();
  }
  return colour.known.get(key);
}
colour.known = new Map();

// --- getting work ----------------------------------------------------------------------------------------------------

const kindsOf = () => {
  const roles = new Set(me.roles);
  return { verify: roles.has("verifier") || roles.has("lead"), track: roles.has("annotator") || roles.has("lead") };
};

function wantedKinds() {
  // What this person takes: verifying first, unless they chose to correct; both where one of them runs out.
  const { verify, track } = kindsOf();
  const kinds = [...(verify ? ["verify"] : []), ...(track ? ["track", "select"] : [])];
  return turn === "track" ? [...kinds].sort((a, b) => (a === "verify") - (b === "verify")) : kinds;
}

// A session's holds are of whoever made the claims: somebody else at this tab has none.
const holds = () => JSON.parse(sessionStorage.getItem("masklets.holds") ?? "[]");

function keepHolds() {
  // The claims of this tab: a reload sends them again, and the same claim gives the same ticket.
  const claimOf = (work) => (work && !work.finished && !work.lost ? work.claim : null);
  const claims = [claimOf(current), nextClaim, ...resumed.map(claimOf), ...underWay].filter(Boolean);
  sessionStorage.setItem("masklets.holds", JSON.stringify(claims));
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

async function asking(claim, ask) {
  // As `persist`; a lease that comes of it is taken up again by a reload, also when the answer was lost.
  underWay.add(claim);
  keepHolds();
  try {
    return await persist(ask);
  } finally {
    underWay.delete(claim);
  }
}

const newClaim = (body) => ({ claim_id: api.newId(), ...body });

async function send(claim) {
  const ticket = await persist(() => api.claim(claim));
  return ticket && prepare(ticket, claim);
}

async function prepare(ticket, claim) {
  // Everything that showing a ticket needs; its first frames are on their way when this returns.
  const id = ticket.ticket_id;
  const corrects = ticket.kind !== "verify";
  const queued = outbox.of(id); // some may be sent, and gone from there, before the answers below are here
  const [info, masklet, before, versions] = await Promise.all([
    persist(() => api.video(ticket.video_id)),
    ticket.masklet_id ? persist(() => api.masklet(id)) : null,
    corrects ? persist(() => api.operationsOf(id)) : [],
    corrects && me.live ? persist(() => api.versions(id)) : [],
  ]);
  const work = { ticket, claim, info, masklet, before: masklet, renewedAt: performance.now(), finished: false };
  work.spent = timeAt(me.name, id); // ms, before it came on screen
  work.rules = JSON.parse(ticket.payload);
  work.live = me.live;
  const timeline = new Timeline(masklet, info, me.stride);
  work.frames = new Frames(ticket.video_id, timeline.frames);
  work.frames.limit = Math.min(4, timeline.length); // until it is on screen
  work.frames.ontrouble = frameTrouble;
  work.frames.want(0);
  if (!corrects) return { ...work, timeline };
  work.draft = new Draft(ticket, masklet, info, timeline.frames);
  work.cancel = (operationIds) => outbox.cancel(id, operationIds);
  for (const version of versions) work.draft.versions.set(version.operation_id, version);
  for (const operation of before) {
    const payload = JSON.parse(operation.payload);
    if (!["submit", "unsubmit", "verdict"].includes(operation.kind) || payload.masks) {
      work.draft.add({ ...operation, payload });
    }
  }
  for (const { what, body } of [...queued, ...outbox.of(id)]) {
    if (what !== "finish" && what !== "release") work.draft.add({ ...body, payload: JSON.parse(body.payload) });
  }
  redraw(work);
  if (me.live) api.warm(id, ticket.lease_token, firstPresent(work)).catch(() => {});
  for (const operation of work.draft.waiting()) {
    // the answer was lost with a tab or a server: the model is asked again
    if (!outbox.of(id).some((item) => item.body?.operation_id === operation.operation_id)) sendOperation(work, operation, true);
  }
  return work;
}

const firstPresent = (work) => work.timeline.frames[Math.max(0, work.timeline.present.indexOf(true))];

function redraw(work) {
  // What follows from the draft for the eye.
  work.masklet = work.draft.masklet();
  work.timeline = new Timeline(work.masklet, work.info, me.stride);
}

function frameTrouble(error) {
  // null: a frame has come
  if (error === null || error instanceof api.Unreachable) return setReachable(error === null);
  if (error.status === 401) return askToLogIn();
  notice(`A frame cannot be shown: ${error.message}`);
}

function fetchNext() {
  const work = resumed.shift() ?? null;
  nextClaim = work?.claim ?? newClaim({ kinds: wantedKinds() });
  keepHolds();
  next = (work ? Promise.resolve(work) : send(nextClaim)).catch((error) => {
    if (error.status !== 403 || current !== null) fail(error); // else `takeNext` asks once more, and says it
    return null;
  });
  const asked = next;
  asked.then((found) => {
    if (asked === next) nextWork = found;
    else if (found) letGo(found); // something else is shown instead
  });
}

// Begun by a person beside another object, and nothing is made of it yet; what follows from it keeps `begun_by`.
const isFurther = ({ rules, ticket }) => rules.begun_by && ticket.kind !== "verify" && !ticket.masklet_id;

function letGo(work) {
  // Back to the queue; a lease runs out by itself if this does not arrive.
  if (work.finished || work.lost) return;
  if (isFurther(work) && work.draft.done.length === 0) {
    // nothing tells the next one which object was meant
    sendOutcome(work, { verdict: "reject", reasons: ["other"] });
  } else {
    const { ticket_id: ticketId, lease_token: token } = work.ticket;
    outbox.add({ person: me.name, ticketId, token, what: "release", body: null }); // after what was done in it
  }
  work.finished = true;
  work.frames.close();
}

function setAside() {
  // What is on screen, and what was fetched after it, come again after the work that is shown instead.
  if (current) {
    keepTimes();
    current.spent = spent(current);
    current.frames.rest();
    resumed.unshift(current);
  }
  if (nextWork) resumed.push(nextWork);
  next = nextWork = nextClaim = null;
}

const spent = (work) => work.spent + presence.clock() - work.startedAt; // ms

function keepTimes() {
  if (current) keepTime(me.name, current.ticket.ticket_id, spent(current));
}

async function takeNext() {
  // Put the next ticket on screen; it is there already unless the queue was slow.
  clearTimeout(pollTimer);
  current = null;
  desk.show(null);
  if (wantedKinds().length === 0) return nothingLeft();
  if (next === null) fetchNext();
  const waiting = next;
  const slow = setTimeout(() => message({ glyph: "…", title: "One moment", text: "Fetching the next ticket." }), 400);
  let work = await waiting;
  if (waiting !== next) return clearTimeout(slow);
  let refusal = null;
  if (work === null || work.lost) {
    work = await send(newClaim({ kinds: wantedKinds() })).catch((error) => { // what came since
      refusal = error;
    });
  }
  clearTimeout(slow);
  if (waiting !== next) return;
  if (refusal) return noTicket(refusal);
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
  lookAgain();
}

function lookAgain() {
  // Later, whether there is a ticket then.
  message.looksAgain = true;
  clearTimeout(pollTimer);
  pollTimer = setTimeout(() => {
    if (!message.looksAgain || document.body.dataset.view !== "message" || current !== null || presence.away) return;
    next = null;
    takeNext();
  }, 4000);
}

function noTicket(error) {
  // The queue refused a claim: for now, such as in a warm-up without gold, or something is wrong.
  next = nextWork = nextClaim = null;
  keepHolds();
  if (error.status === 401) return askToLogIn();
  player.show(null);
  strip.show(null);
  message({
    glyph: "–",
    title: "No ticket for you now",
    text: error.message,
    actions: error.status === 403 ? [] : [{ text: "Try again", run: takeNext, key: "Enter" }],
  });
  if (error.status === 403) lookAgain();
}

function sayNothingLeft() {
  const { verify, track } = kindsOf();
  const none = !verify && !track;
  message({
    glyph: "✓",
    title: none ? "No tickets for your roles" : verify ? "Nothing left to verify" : "Nothing left to correct",
    text: none
      ? "An admin gives you the role of an annotator or a verifier."
      : "Every ticket that you may take is done or in somebody's hands. New ones appear by themselves.",
    counts: waitingCounts(),
  });
  message.nothingLeft = message.looksAgain = true;
  showTurn();
}

function waitingCounts() {
  const n = counts();
  const lines = [
    [kindsOf().verify ? n.open : 0, "waiting for another verifier"],
    [n.leased, "being verified"],
    [n.lead, "waiting for a lead"],
    [n.track, "waiting for an annotator"],
    [n.tracking, "being corrected"],
  ];
  return lines.filter(([count]) => count > 0).map(([count, text]) => `${NUMBERS.format(count)} ${text}`);
}

// --- showing work ----------------------------------------------------------------------------------------------------

function view(name) {
  document.body.dataset.view = name;
  showSaveState();
}

function showWork(work) {
  current = work;
  choosing = null;
  keepHolds();
  view("work");
  work.startedAt = presence.clock();
  work.frames.limit = work.timeline.length;
  const { ticket, masklet, before, timeline } = work;
  const correcting = ticket.kind !== "verify";
  sayKind(correcting ? "track" : "verify");
  $("batch").textContent = ticket.batch_id;
  $("eyebrow").textContent =
    ASKS[ticket.kind].name + (ticket.attempt > 1 ? ` · attempt ${ticket.attempt}` : "") +
    (ticket.needs_lead ? ` · ${saidOf(work) === "unsure" ? "a verifier was unsure" : "a lead decides"}` : "");
  $("question").textContent = isFurther(work) ? "Mask a further object." : ASKS[ticket.kind].question;
  showFacts();
  showVerdicts();
  showTurn();
  strip.show(work);
  player.show(work);
  desk.show(correcting ? work : null);
  player.showOthers ||= correcting && !ticket.masklet_id; // where the point is to find something new
  showOthers();
  if (!correcting && player.mode === "before") setMode("fill");
  for (const button of $("modes").children) {
    button.style.visibility = button.value === "before" && !correcting ? "hidden" : ""; // the others stay where they are
  }
  showTools();
  player.portrait($("portrait"));
  player.play(false);
  if (!correcting) player.play(true);
  else player.seek(pinned(work) ?? timeline.suspects[0]?.position ?? Math.max(0, timeline.present.indexOf(true)));
  showPlaying();
  showLease();
}

function sayKind(kind) {
  // A change from verifying to correcting, or back, is said; so is why there is none though it was asked for.
  const before = document.body.dataset.kind;
  const wanted = wantedKinds()[0];
  const n = counts();
  if (kind !== wanted) barred[wanted] = wanted === "verify" ? n.open : n.track;
  barred[kind] = 0;
  if (asked && asked !== kind) {
    notice(asked === "verify"
      ? "Nothing is left that you may verify: what you made or sent back is for somebody else."
      : "Nothing is left for you to correct.");
  } else if (!asked && before && before !== kind) {
    notice(kind === "verify"
      ? "A masklet to verify has come in. It goes first."
      : "Nothing is left that you may verify. This one is to be corrected.");
  }
  asked = null;
  document.body.dataset.kind = kind;
}

function pinned(work) {
  // The place that the last verdict pointed to, or undefined.
  const place = work.timeline.frames.indexOf(work.rules.pinned?.frame_idx);
  return place < 0 ? undefined : place;
}

// The verdict of whoever pointed; of an older ticket it is not known.
const saidOf = (work) => work.rules.pinned?.verdict;

function showFacts() {
  const { ticket, before, timeline, draft } = current;
  $("checkpoint").textContent = before ? `${before.checkpoint} · round ${before.round}` : "Nobody yet";
  $("origin").textContent = before
    ? before.annotated_by ? `corrected by ${before.annotated_by}` : "automatic, not corrected"
    : "to be made by hand";
  const lowest = timeline.lowest();
  const facts = [["Video", ticket.video_id], ["Phase", ticket.phase]];
  facts.push(["Present", `${timeline.presentCount} of ${timeline.length} frames`]);
  const pin = current.rules.pinned;
  if (pin) {
    const why = pin.reasons.map((reason) => REASONS[reason] ?? reason).join(", ");
    const sentBack = saidOf(current) === "refine" && !ticket.needs_lead; // and not one side of a tie
    const who = sentBack ? `Sent back by ${pin.by}` : `${pin.by} pointed to`;
    facts.push([who, `frame ${pin.frame_idx}${why ? `: ${why.toLowerCase()}` : ""}`]);
  }
  if (draft) {
    facts.push(["Touched", `${many(draft.edited.size, "frame")}, ${many(draft.clicks, "click")}`]);
    if (draft.unmasked().length) facts.push(["Not masked", many(draft.unmasked().length, "frame")]);
  } else {
    if (lowest) facts.push(["Score", `${timeline.mean().toFixed(2)} mean, ${lowest[0].toFixed(2)} lowest`]);
    if (before?.click_count) facts.push(["Clicks", `${before.click_count} on ${many(before.edited_frame_count, "frame")}`]);
  }
  $("facts").replaceChildren(
    ...facts.flatMap(([term, value]) => [element("dt", {}, term), element("dd", { title: value }, value)]),
  );
  $("suspects").textContent =
    timeline.suspects.length === 1 ? "1 suspect" : `${timeline.suspects.length || "no"} suspects`;
  $("previous-suspect").disabled = $("next-suspect").disabled = timeline.suspects.length === 0;
}

function showTools() {
  const bar = $("tools");
  bar.hidden = !desk.active;
  if (!desk.active) return;
  const button = (id, text, run, { on = false, off = false, wide = false } = {}) => {
    const { title } = keys.ACTIONS.find((a) => a.id === id);
    return element(
      "button",
      { type: "button", id: `tool-${id}`, className: wide ? "tool wide" : "tool", onclick: run, disabled: off, title,
        ariaPressed: String(on) },
      element("span", {}, text), element("kbd", {}, keys.hint(id)),
    );
  };
  const { draft } = desk.work;
  const label = (text) => element("p", { className: "label" }, text);
  const moves = desk.may("propagate");
  replace(
    bar,
    ...TOOLS.map(({ tool, title }) =>
      button(tool, title, () => desk.choose(tool), { on: desk.tool === tool, off: !desk.allows(tool) })),
    button("clear", draft.edited.has(desk.frame) ? "Forget" : "Empty", () => desk.clear(), { off: !draft.edited.has(desk.frame) && !desk.masked() }),
    label(desk.frame === undefined ? "" : "Carry this frame's mask"),
    button("backward", "◀ Back", () => desk.propagate("backward"), { off: !moves }),
    button("forward", "On ▶", () => desk.propagate("forward"), { off: !moves }),
    button("both", "◀ Both ways ▶", () => desk.propagate("both"), { off: !moves, wide: true }),
    label("This frame"),
    button("lock", "Lock", () => desk.lock(), { on: draft.locked.has(desk.frame) }),
    button("absent", desk.absentFrom === null ? "Absent" : "… to here", () => desk.absent(), { on: desk.absentFrom !== null }),
    button("newObject", "New object", newObject),
    button("otherObject", "Next object", otherObject, { off: begunWith(desk.work).length === 0 }),
    button("undo", "Undo", () => desk.undo(), { off: draft.done.length === 0 }),
    button("redo", "Redo", () => desk.redo(), { off: draft.undone.length === 0 }),
  );
}

function showDraft() {
  // After anything that changes the draft or the tool.
  const { work } = desk;
  if (!work || work !== current) return;
  redraw(work);
  work.absentFrom = desk.absentFrom;
  showFacts();
  showTools();
  strip.draw();
  player.refresh();
  desk.paint();
  if (player.shown >= 0) showFrame(player.shown);
}

function showVerdicts() {
  document.body.classList.toggle("choosing", choosing !== null);
  const { kind } = current.ticket;
  const track = kind !== "verify";
  if (choosing) {
    const buttons = WHY[choosing].map((reason) =>
      element(
        "button",
        { type: "button", id: `reason-${reason}`, className: "reason", onclick: () => decide(choosing, [reason]) },
        element("kbd", {}, String(me.reasons.indexOf(reason) + 1)),
        element("span", {}, REASONS[reason]),
      ),
    );
    replace(
      $("verdicts"),
      element("p", { className: "label" }, choosing === "reject" ? "Why is it rejected?" : "What is wrong with it?"),
      element("div", { className: "reasons" }, ...buttons),
      element(
        "button", { type: "button", className: "quiet back", onclick: () => choose(null) }, element("kbd", {}, "Esc"),
        " back",
      ),
    );
    return;
  }
  const offered = VERDICTS.filter(({ verdict }) =>
    track ? verdict === "reject" : !(verdict === "unsure" && current.ticket.needs_lead));
  const hints = { track: "cannot be tracked", select: "nothing challenging is left here" };
  const buttons = offered.map(({ verdict, title, hint }) =>
    element(
      "button",
      { type: "button", id: `verdict-${verdict}`, className: `verdict ${verdict}`, onclick: () => answer(verdict) },
      element("kbd", {}, keys.hint(verdict)),
      element("span", {}, element("b", {}, title), element("small", {}, hints[kind] ?? hint)),
    ),
  );
  if (track) {
    buttons.unshift(
      element(
        "button", { type: "button", className: "verdict accept", id: "submit", onclick: submit },
        element("kbd", {}, keys.hint("submit")),
        element("span", {}, element("b", {}, "Submit"), element("small", {}, "it is right in every frame now")),
      ),
    );
    buttons.push(
      element(
        "button", { type: "button", className: "quiet back", onclick: putBack }, element("kbd", {}, "Esc"), " put it back",
      ),
    );
  }
  replace($("verdicts"), ...buttons);
}

function showFrame(position) {
  const { timeline, info } = current ?? player.work;
  const frameIdx = timeline.frames[position];
  strip.move(position);
  $("frame").textContent = String(frameIdx);
  $("of").textContent = ` / ${timeline.frames[timeline.length - 1]}`;
  $("clock").textContent = `${(frameIdx / info.fps).toFixed(2)} s`;
  const present = timeline.present[position];
  const draft = current?.draft;
  const masked = timeline.scores && (!draft || draft.masks.has(frameIdx));
  $("score").textContent = masked ? (present ? `score ${timeline.scores[position].toFixed(2)}` : "absent") : "";
  const badges = [];
  if (draft && !draft.masks.has(frameIdx)) badges.push(["", "Not masked yet"]);
  else if (timeline.scores && !present) badges.push(["", "Absent in this frame"]);
  if (draft?.locked.has(frameIdx)) badges.push(["", "Locked"]);
  if (draft?.waiting().length) badges.push(["busy", current.progress ? `Propagating · ${current.progress.frames.size} frames` : "The model is at work"]);
  if (current?.rules.pinned?.frame_idx === frameIdx) badges.push(["doubt", `${current.rules.pinned.by} pointed here`]);
  if (desk.absentFrom !== null) badges.push(["doubt", `Absent from ${desk.absentFrom}: go to its last frame and press ${keys.hint("absent")} again`]);
  if (desk.corners.length) {
    const key = keys.hint("submit");
    badges.push(["", `${key} closes the polygon, Alt ${key} cuts it out, Esc drops it`]);
  }
  const suspect = timeline.suspect(position);
  if (suspect && (present || suspect.why !== "object leaves")) badges.push(["doubt", `Suspect: ${suspect.why}`]);
  if (player.hidden) badges.push(["", "Overlay hidden"]);
  if (desk.active) {
    desk.paint();
    if (showFrame.tools !== position) showTools();
    showFrame.tools = position;
  }
  $("badges").replaceChildren(...badges.map(([name, text]) => element("span", { className: `badge ${name}` }, text)));
}

function showPlaying() {
  $("play").classList.toggle("playing", player.playing);
  $("speed").textContent = `${player.speed}×`;
  $("speed").ariaLabel = `Speed ${player.speed}×`;
  for (const button of $("modes").children) button.setAttribute("aria-checked", String(button.value === player.mode));
}

function message({ glyph, title, text, counts: lines = [], actions = [] }) {
  $("message-glyph").textContent = glyph;
  $("message-title").textContent = title;
  $("message-text").textContent = text;
  $("message-counts").replaceChildren(...lines.map((line) => element("span", {}, line)));
  replace(
    $("message-actions"),
    ...actions.map(({ text: label, run, key }) =>
      element(
        "button", { type: "button", className: "primary", onclick: run }, label,
        ...(key ? [" ", element("kbd", {}, key)] : []),
      ),
    ),
  );
  message.enter = actions[0]?.run ?? null;
  message.nothingLeft = message.looksAgain = false;
  view("message");
}

function notice(text, stays = false) {
  $("notice").textContent = text;
  $("notice").hidden = false;
  clearTimeout(notice.timer);
  if (!stays) notice.timer = setTimeout(() => ($("notice").hidden = true), 9000);
}

// --- deciding --------------------------------------------------------------------------------------------------------

function answer(verdict) {
  if (!current || current.lost) return;
  if (current.ticket.kind !== "verify" && verdict !== "reject") return;
  if (verdict === "unsure" && current.ticket.needs_lead) return notice("This came to a lead already: you decide.");
  if (verdict === "reject") return choose(verdict);
  decide(verdict, []);
}

function choose(verdict) {
  choosing = verdict;
  showVerdicts();
}

function decide(verdict, reasons) {
  finishWith({ verdict, reasons });
  flash(verdict, VERDICTS.find((v) => v.verdict === verdict).title);
  takeNext();
}

function submit() {
  const work = current;
  const { draft } = work;
  if (draft.waiting().length) return notice("The model is still at work: wait for it, or stop it with Esc.");
  const made = draft.masklet();
  if (!made.area_px.some(Boolean)) return notice("There is no mask yet. "
    + `An object that is not there is rejected with ${keys.hint("reject")}.`);
  const unmasked = draft.unmasked().length;
  if (unmasked && !work.warned) {
    work.warned = true;
    return notice(`${unmasked} frames were never masked and will count as absent. ${keys.hint("submit")} again submits.`);
  }
  if (draft.done.length === 0 && draft.base && !work.warned) {
    work.warned = true;
    return notice(`Nothing was changed. ${keys.hint("submit")} again submits the masklet as it was.`);
  }
  finishWith({ masklet: { masklet_id: api.newId(), ...made } });
  flash("accept", "Submitted");
  takeNext();
}

function sendOutcome(work, outcome) {
  // Returns the seconds that the work took.
  const seconds = (work === current ? spent(work) : work.spent) / 1000;
  forgetTime(me.name, work.ticket.ticket_id);
  outbox.add({
    person: me.name,
    ticketId: work.ticket.ticket_id,
    token: work.ticket.lease_token,
    what: "finish",
    body: {
      operation_id: api.newId(),
      created_at: new Date().toISOString(),
      reasons: [],
      ...outcome,
      frame_idx: work.timeline.frames[Math.max(0, player.shown)],
      seconds: Math.round(seconds * 100) / 100,
    },
  });
  return seconds;
}

function finishWith(outcome) {
  const work = current;
  const seconds = sendOutcome(work, outcome);
  work.finished = true;
  if (work.ticket.kind === "verify") {
    paces = [...paces.slice(-19), seconds];
    const mean = paces.reduce((a, b) => a + b, 0) / paces.length;
    $("pace").textContent = `${mean.toFixed(1)} s a masklet`;
  }
  keepHolds();
  work.frames.close();
}

async function takeBack() {
  // The last answer, while nobody has touched what followed; what is on screen comes after it.
  if (takeBack.busy) return;
  takeBack.busy = true;
  try {
    const waiting = outbox.pending().some((item) => item.what === "finish");
    if (waiting) return notice("The last answer is still on its way. Try again in a moment.");
    const [last] = await api.recent();
    if (!last) return notice("There is no answer to take back.");
    const claim = newClaim({}); // its id is that of the act, so that a reload takes up the lease that this gives
    const act = { operation_id: claim.claim_id, created_at: new Date().toISOString() };
    const ticket = await asking(claim, () => api.unsubmit(last.ticket_id, act));
    const work = await prepare(ticket, claim);
    work.back = VERDICTS.find((v) => v.verdict === last.verdict)?.title ?? "Submitted";
    setAside();
    showWork(work);
    fetchNext();
    notice(`Taken back: ${work.back}.`);
  } catch (error) {
    fail(error);
  } finally {
    takeBack.busy = false;
  }
}

function flash(verdict, title) {
  const sign = $("flash");
  sign.textContent = title;
  sign.className = "flash";
  void sign.offsetWidth; // begin the animation again
  sign.className = `flash on ${verdict}`;
}

function refused(item, error) {
  if (item.what === "release") return; // the lease was over already
  const what = item.what === "finish" ? "One answer" : "One change";
  if (error.kind === "LeaseLost") {
    notice(`${what} came after its lease had run out: it is kept beside the ticket, and somebody else decides.`);
    if (current?.ticket.ticket_id === item.ticketId && current.ticket.lease_token === item.token && !current.lost) {
      current.lost = true;
      leaseLost(current, outOfReach());
    }
    return;
  }
  notice(`${what} was refused: ${error.message}`);
  const work = workOf(item.ticketId);
  if (work?.draft && item.what !== "finish") {
    work.draft.refuse(item.body.operation_id);
    if (work === current) showDraft();
  }
}

// --- correcting ------------------------------------------------------------------------------------------------------

const workOf = (ticketId) => [current, nextWork, ...resumed].find((work) => work?.ticket.ticket_id === ticketId);

function sendOperation(work, operation, answered) {
  const { operation_id, kind, frame_idx, payload, created_at } = operation;
  outbox.add({
    person: me.name,
    ticketId: work.ticket.ticket_id,
    token: work.ticket.lease_token,
    what: answered ? "refine" : "operation",
    body: { operation_id, kind, frame_idx, payload: JSON.stringify(payload), created_at },
  });
}

function answered(item, event) {
  // What the model says to an operation. The masks that are there stay until all of the new ones have come.
  const work = workOf(item.ticketId);
  if (!work?.draft || item.cancelled) return;
  const id = item.body.operation_id;
  if (event.event === "frame") {
    work.arriving ??= new Map();
    if (!work.arriving.has(id)) work.arriving.set(id, new Map());
    work.arriving.get(id).set(event.frame.frame_idx, event.frame);
    if (item.body.kind !== "propagate") return; // the end of the answer is right behind its only frame
    work.progress = { frames: work.arriving.get(id) };
    if (work === current) {
      strip.draw();
      if (player.shown >= 0) showFrame(player.shown);
    }
    return;
  }
  const frames = [...(work.arriving?.get(id)?.values() ?? [])];
  work.arriving?.delete(id);
  work.progress = null;
  if (event.event === "done") {
    work.draft.answer(id, { frames, checkpoint: event.checkpoint, round: event.round });
    if (item.body.kind === "propagate" && work === current) {
      if (frames.length) flash("unsure", `${many(frames.length, "frame")} propagated`);
      else notice("There is nothing to propagate into: the neighbours are settled.");
    }
  } else {
    notice(`The model did not answer: ${event.error || event.why}`);
    const standing = work.draft.done.some((o) => o.operation_id === id);
    const undo = { operation_id: api.newId(), kind: "undo", frame_idx: null, payload: { operation_id: id }, created_at: new Date().toISOString() };
    if (standing) {
      work.draft.add(undo);
      sendOperation(work, undo, false);
    }
  }
  if (work !== current) return;
  showDraft();
  $("screen").dispatchEvent(new CustomEvent("answered", { detail: item.body.kind }));
}

function changeTurn() {
  // From verifying to correcting, or back; what was fetched ahead goes back to the queue.
  const verifying = current ? current.ticket.kind === "verify" : turn !== "track";
  turn = asked = verifying ? "track" : "verify";
  for (const work of [nextWork, current, ...resumed]) if (work) letGo(work);
  resumed = [];
  next = nextWork = nextClaim = null;
  takeNext();
}

function showTurn() {
  const { verify, track } = kindsOf();
  const n = counts();
  const verifying = current ? current.ticket.kind === "verify" : turn !== "track";
  const waiting = verifying ? n.track - barred.track : n.open - barred.verify;
  $("turn").hidden = !(verify && track) || waiting <= 0 || message.nothingLeft;
  $("turn").textContent = `${verifying ? "Correct" : "Verify"} ${NUMBERS.format(waiting)}`;
}

function putBack() {
  const empty = isFurther(current) && current.draft.done.length === 0;
  const work = current;
  desk.show(null);
  letGo(work);
  if (empty) return takeNext();
  if (turn === "track" && kindsOf().verify) turn = "verify";
  message({
    glyph: "↩",
    title: "The ticket is back in the queue",
    text: "What you did in it is kept: whoever takes it next goes on from there.",
    actions: [{ text: "Take the next one", run: takeNext, key: "Enter" }],
  });
  current = null;
  keepHolds();
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
    if (work === current) leaseLost(work, outOfReach());
  }
}

async function renewAll() {
  outbox.adopt().catch(() => {});
  if (!me || presence.away) return;
  await Promise.all([renew(current), renew(nextWork), ...resumed.map(renew)]);
  for (const { ticketId, token } of outbox.pending()) api.heartbeat(ticketId, token).catch(() => {});
}

function beat() {
  clearTimeout(beat.timer);
  beat.timer = setTimeout(() => renewAll().finally(beat), 1000 * me.heartbeat_s);
}

const outOfReach = () => `Its lease of ${me.lease_s} s ran out while this page was out of reach.`;

function stepAway() {
  // Nobody is here. Others may have the tickets when their leases end; what was done in them is kept.
  player.play(false);
  showPlaying();
  if (!me || !(current || nextWork || resumed.length)) return;
  notice("Nobody has touched this page for a while: its tickets go back to the queue. What was done in them is kept, "
    + "and any key takes them up again.", true);
}

async function comeBack() {
  if (!me || document.body.dataset.view === "login") return;
  $("notice").hidden = true;
  renew(nextWork);
  const [work, at, beside] = [current, player.position, resumed];
  if (work === null) {
    if (!message.looksAgain || document.body.dataset.view !== "message") return;
    next = null;
    return takeNext();
  }
  keepTimes();
  work.spent = spent(work);
  current = null; // nothing is done in it before it is known whose it is
  desk.show(null);
  message({ glyph: "…", title: "One moment", text: "Taking the ticket up again." });
  const [again, ...others] = await Promise.all([work, ...beside].map(takeUp));
  if (document.body.dataset.view === "login") return;
  if (resumed === beside) resumed = others.filter(Boolean);
  if (again === null) return leaseLost(work, "Nobody was at this page for a while, and its lease ran out.");
  showWork(again);
  player.play(false);
  player.seek(at);
  showPlaying();
}

async function takeUp(work) {
  // The work under its lease, or under a new one where nobody else has taken its ticket, or null.
  const { ticket_id, lease_token } = work.ticket;
  try {
    await persist(() => api.heartbeat(ticket_id, lease_token));
    work.renewedAt = performance.now();
    return work;
  } catch (error) {
    if (error.status === 401) return askToLogIn();
  }
  work.frames.close();
  return send(newClaim({ ticket_id })).catch(() => null);
}

function leaseLost(work, why) {
  player.play(false);
  showPlaying();
  current = null;
  keepHolds();
  message({
    glyph: "⏳",
    title: "This ticket went back to the queue",
    text: `${why} Nothing that you sent is lost; somebody else may hold the ticket now.`,
    actions: [{ text: "Take the next one", run: takeNext, key: "Enter" }],
  });
  work.frames.close();
  desk.show(null);
}

function showLease() {
  if (!current || !me) return ($("lease").hidden = true);
  const left = Math.max(0, me.lease_s - (performance.now() - current.renewedAt) / 1000);
  $("lease").hidden = left > me.lease_s / 2; // it is renewed long before, unless the queue is out of reach
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
  const pending = outbox.pending();
  const waiting = pending.length;
  const unreachable = outbox.offline || !setReachable.now;
  const locked = document.body.dataset.view === "login"; // nothing is sent before somebody logs in
  const state = unreachable || (locked && waiting) ? "offline" : waiting ? "saving" : "saved";
  const acts = pending.filter((item) => item.what !== "finish").length;
  const written = pending.every((item) => item.stored); // to this computer's disk
  const answers = `${written ? "" : "keeping "}${many(waiting, acts ? "change" : "answer")}${written ? " kept here" : ""}`;
  const offline = [unreachable && "No connection", waiting && answers].filter(Boolean).join(" · ");
  const text = { offline, saving: "Saving", saved: "Saved" };
  $("save").dataset.state = state;
  $("save").hidden = me === null && state === "saved";
  $("save").lastElementChild.textContent = text[state];
  showSaveState.answers ||= acts < waiting;
  if (state !== "saved" || !showSaveState.answers) return;
  showSaveState.answers = false;
  if (me) refreshStats(); // a ticket less
}

function counts() {
  const sum = (test) => (lastStats?.counts ?? []).filter(test).reduce((n, row) => n + row.tickets, 0);
  return {
    open: sum((c) => c.kind === "verify" && c.state === "open" && !c.needs_lead),
    leased: sum((c) => c.kind === "verify" && c.state === "leased"),
    lead: sum((c) => c.kind === "verify" && c.state === "open" && c.needs_lead),
    track: sum((c) => c.kind !== "verify" && c.state === "open"),
    tracking: sum((c) => c.kind !== "verify" && c.state === "leased"),
  };
}

async function refreshStats() {
  try {
    lastStats = await api.stats();
  } catch {
    return;
  }
  const n = counts();
  const left = Math.max(0, n.open - barred.verify) + n.leased + (me.roles.includes("lead") ? n.lead : 0);
  const { verify } = kindsOf();
  $("left").textContent = verify
    ? `${NUMBERS.format(left)} to verify` : `${NUMBERS.format(n.track + n.tracking)} to correct`;
  showTurn();
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
  player.play(false);
  view("login");
  login.ask(me !== null);
}

async function begin(who) {
  const same = me?.name === who.name;
  me = who;
  player.rate = me.fps / me.stride;
  $("who").textContent = me.name;
  $("lead").hidden = !me.roles.includes("lead") && !me.roles.includes("admin");
  outbox.mine(me.name);
  if (me.live && kindsOf().track) api.loadModel().catch(() => {});
  refreshStats();
  beat();
  if (same && current) {
    renewAll();
    return view("work");
  }
  current = next = nextWork = null;
  resumed = [];
  const last = sessionStorage.getItem("masklets.person");
  if (last !== null && last !== me.name) sessionStorage.removeItem("masklets.holds"); // claims of somebody else
  sessionStorage.setItem("masklets.person", me.name);
  for (const claim of holds()) {
    const work = await send(claim).catch(() => null); // its lease may be over
    if (work) resumed.push(work);
  }
  resumed.forEach(renew); // a claim that is repeated gives the lease as it was, and that may be about to end
  takeNext();
}

$("log-out").addEventListener("click", async () => {
  clearTimeout(pollTimer);
  for (const work of [current, nextWork, ...resumed]) if (work) letGo(work);
  current = next = nextWork = nextClaim = null;
  resumed = [];
  keepHolds();
  desk.show(null);
  const left = (await outbox.settled(4000)) ? 0 : outbox.pending().length;
  const leave = async () => {
    try {
      await api.logOut();
    } catch (error) {
      if (error.status !== 401) return stillLoggedIn(error);
    }
    location.reload();
  };
  const stillLoggedIn = (error) => message({
    glyph: "!",
    title: "You are still logged in",
    text: `${error instanceof api.Refused ? error.message : "The queue does not answer."} Whoever is at this browser ` +
      "next works as you.",
    actions: [{ text: "Log out", run: leave, key: "Enter" }],
  });
  if (left === 0) return leave();
  message({
    glyph: "…",
    title: "Not everything has been sent",
    text: `${many(left, "change")} of yours wait in this browser for a connection. They are sent when there is one, or ` +
      "when you log in here again; after their lease they are kept beside their ticket.",
    actions: [{ text: "Log out all the same", run: leave }],
  });
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

function toggleOthers() {
  player.showOthers = !player.showOthers;
  showOthers();
}

async function showOthers() {
  // What else of this video is masked, and the objects that this person has begun in it; or none of it.
  $("others").setAttribute("aria-pressed", String(player.showOthers));
  const work = current;
  if (work && player.showOthers) {
    work.settledOthers ??= await api.others(work.ticket.ticket_id).catch(() => null);
    if (work !== current) return;
    const begun = begunWith(work);
    const known = new Set(begun.map(({ ticket }) => ticket.masklet_id));
    work.others = [
      ...begun.map((each) => ({ ...each.masklet, settled: null, work: each })),
      ...(work.settledOthers ?? []).filter(({ masklet_id }) => !known.has(masklet_id)),
    ];
    if (work.others.length === 0 && work.ticket.masklet_id) notice("Nothing else of this video is masked.");
    showLanes();
  }
  $("lanes").hidden = !(player.showOthers && work?.others?.length);
  player.refresh();
}

function showLanes() {
  if (current?.others) replace($("lanes"), ...lanes(current.others, current.timeline, colour, pick));
}

const begunWith = (work) =>
  [nextWork, ...resumed].filter(
    (each) => each?.draft && !each.finished && !each.lost && each.ticket.video_id === work.ticket.video_id,
  );

function pick(object, position) {
  if (object.work) goOnWith(object.work);
  else step(position - player.position);
}

function goOnWith(work) {
  // Another object of this video that this person holds; what is on screen is set aside, as it is.
  const at = player.position;
  desk.abandon();
  setAside();
  const held = resumed.filter((each) => each !== work);
  const here = held.filter(({ ticket }) => ticket.video_id === work.ticket.video_id);
  const [last, ...later] = here; // what was on screen comes after the others of its video, so that M goes round
  resumed = [...later, last, ...held.filter((each) => !here.includes(each))];
  showWork(work);
  player.seek(at);
  fetchNext();
}

async function newObject() {
  // A ticket for another object of this video; the one on screen stays this person's.
  if (newObject.busy || !current) return;
  newObject.busy = true;
  const { ticket } = current;
  const claim = newClaim({});
  try {
    const body = { token: ticket.lease_token, claim_id: claim.claim_id };
    const opened = await asking(claim, () => api.newObject(ticket.ticket_id, body));
    const work = await prepare(opened, claim);
    if (current?.ticket === ticket) goOnWith(work);
    else resumed.unshift(work);
    notice(`A new object: mask it, and ${keys.hint("submit")} submits it. ${keys.hint("otherObject")} goes back to the other one.`);
  } catch (error) {
    fail(error);
  } finally {
    newObject.busy = false;
  }
}

function otherObject() {
  const [work] = begunWith(current);
  if (work) goOnWith(work);
  else notice(`You hold no other object of this video. ${keys.hint("newObject")} begins one.`);
}

function setMode(mode) {
  player.setMode(mode);
  localStorage.setItem("masklets.mode", mode);
  showPlaying();
}

const RUN = {
  accept: () => answer("accept"),
  refine: () => answer("refine"),
  refineWhy: () => current.ticket.kind === "verify" && choose("refine"),
  reject: () => answer("reject"),
  unsure: () => answer("unsure"),
  unsubmit: takeBack,
  submit: (event) => (desk.corners.length ? desk.close(event.altKey) : submit()),
  click: () => desk.choose("click"),
  box: () => desk.choose("box"),
  brush: () => desk.choose("brush"),
  eraser: () => desk.choose("eraser"),
  polygon: () => desk.choose("polygon"),
  smaller: () => desk.resize(1 / 1.25),
  larger: () => desk.resize(1.25),
  forward: () => desk.propagate("forward"),
  backward: () => desk.propagate("backward"),
  both: () => desk.propagate("both"),
  lock: () => desk.lock(),
  absent: () => desk.absent(),
  clear: () => desk.clear(),
  newObject,
  otherObject,
  undo: () => desk.undo(),
  redo: () => desk.redo(),
  previousPrompt: () => desk.promptFrame(-1),
  nextPrompt: () => desk.promptFrame(1),
  play: togglePlay,
  back: () => step(-1),
  on: () => step(1),
  back10: () => step(-10),
  on10: () => step(10),
  first: () => step(-player.position),
  last: () => step(current.timeline.length),
  previousSuspect: () => toSuspect(-1),
  nextSuspect: () => toSuspect(1),
  hide: () => {
    player.setHidden(true);
    desk.paint();
  },
  others: toggleOthers,
  colour: nextColour,
  brighter: () => brighten(0.1),
  darker: () => brighten(-0.1),
  turn: () => $("turn").hidden || changeTurn(),
  mode: () => {
    const offered = MODES.filter((mode) => mode !== "before" || desk.active);
    setMode(offered[(offered.indexOf(player.mode) + 1) % offered.length]);
  },
  speed: nextSpeed,
  zoomIn: () => player.zoom(1.4),
  zoomOut: () => player.zoom(1 / 1.4),
  fit: () => player.look({ scale: 1, x: 0, y: 0 }),
  pan: () => setPanning(true),
};
const PAN = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] }; // px

function isForControl({ target, key }) {
  // Whether a control that has the focus takes this key. What a click by pointer focused does not: see below.
  if (target === document.body || target === $("screen")) return false;
  return key === "Enter" || key === " " || (target.matches?.("input") && /^(Arrow|Page|Home|End)/.test(key));
}

addEventListener("keydown", (event) => {
  if (help.takes(event)) return;
  if (event.target.matches?.("input:not([type=range])")) return;
  if (event.key === "?") return help.toggle();
  if (document.querySelector("dialog[open]") || isForControl(event)) return;
  const name = document.body.dataset.view;
  if (name === "message" && event.key === "Enter" && message.enter) {
    event.preventDefault();
    return message.enter();
  }
  const back = keys.find(keys.nameOf(event), "verify")?.id === "unsubmit";
  if (back && name === "message" && !event.repeat) return takeBack();
  if (name !== "work" || !current) return;
  if (choosing && /^[1-9]$/.test(event.key)) {
    const reason = me.reasons[Number(event.key) - 1];
    if (WHY[choosing].includes(reason)) decide(choosing, [reason]);
    return event.preventDefault();
  }
  if (event.key === "Escape") {
    if (choosing) choose(null);
    else if (desk.active && (desk.abandon() || desk.stopAll())) showDraft();
    else if (current.ticket.kind !== "verify" && event.target.tagName !== "INPUT") putBack();
    return;
  }
  if (player.panning && PAN[event.key]) {
    player.pan(...PAN[event.key]);
    return event.preventDefault();
  }
  const action = keys.find(keys.nameOf(event), current.ticket.kind === "verify" ? "verify" : "track");
  if (!action) return;
  event.preventDefault();
  if (!event.repeat || action.repeats) RUN[action.id](event);
});

function setPanning(on) {
  player.panning = on;
  $("stage").classList.toggle("panning", on);
}

function letLoose() {
  // What is done while a key is held.
  setPanning(false);
  player.setHidden(false);
  desk.paint();
}
addEventListener("keyup", ({ key }) => (player.hidden || player.panning) && !PAN[key] && letLoose());
addEventListener("blur", letLoose);

$("play").addEventListener("click", togglePlay);
$("screen").addEventListener("click", () => !desk.active && !player.panning && togglePlay());
$("stage").addEventListener(
  "wheel",
  (event) => {
    event.preventDefault();
    player.zoom(Math.exp(-event.deltaY / 300), event.clientX, event.clientY);
  },
  { passive: false },
);
function brighten(by) {
  $("brightness").value = String(Number($("brightness").value) + by);
  player.brightness = Number($("brightness").value);
  player.refresh();
}
$("brightness").addEventListener("input", () => brighten(0));
$("speed").addEventListener("click", nextSpeed);
$("colour").addEventListener("click", nextColour);
$("previous-suspect").addEventListener("click", () => toSuspect(-1));
$("next-suspect").addEventListener("click", () => toSuspect(1));
$("others").addEventListener("click", toggleOthers);
$("turn").addEventListener("click", changeTurn);
for (const mode of MODES) {
  const label = mode[0].toUpperCase() + mode.slice(1);
  $("modes").append(
    element("button", { type: "button", value: mode, role: "radio", onclick: () => setMode(mode) }, label),
  );
}

// Who clicks on a control goes on with the keys of the work; who comes to it by Tab goes on with the control's own.
addEventListener("click", ({ detail, target }) => {
  if (detail > 0 && target.closest("button, a, summary")) document.activeElement.blur();
}, true);
addEventListener("pointerup", () => document.activeElement === $("brightness") && $("brightness").blur());

function showKeys() {
  // Which keys do what, wherever that is written.
  for (const made of document.querySelectorAll("[data-key]")) {
    const key = keys.hint(made.dataset.key);
    if (made.tagName === "KBD") made.textContent = key;
    else made.title = `${(made.dataset.title ??= made.title)} (${key})`;
  }
  if (!current) return;
  showVerdicts();
  showTools();
  if (player.shown >= 0) showFrame(player.shown);
}

$("theme").addEventListener("click", () => {
  const isDark = getComputedStyle(document.documentElement).colorScheme === "dark" ||
    (!document.documentElement.dataset.theme && dark.matches);
  setTheme(isDark ? "light" : "dark");
});

function setColour(n) {
  player.choose(n);
  $("colour").firstElementChild.style.background = `rgb(${player.colours.fill.join(" ")})`;
}

function nextColour() {
  setColour(player.colour + 1);
  localStorage.setItem("masklets.colour", String(player.colour));
}

function setTheme(theme) {
  if (theme) {
    document.documentElement.dataset.theme = theme;
    localStorage.setItem("masklets.theme", theme);
  }
  strip.draw();
  showLanes();
}

// --- start -------------------------------------------------------------------------------------------------------------

setTheme(localStorage.getItem("masklets.theme"));
setColour(Number(localStorage.getItem("masklets.colour") ?? 0));
player.mode = MODES.includes(localStorage.getItem("masklets.mode")) ? localStorage.getItem("masklets.mode") : "fill";
dark.addEventListener("change", () => setTheme(null));
showPlaying();
showKeys();
showSaveState();
setInterval(showLease, 1000);
setInterval(keepTimes, 5000);
addEventListener("pagehide", keepTimes);
new ResizeObserver(showLanes).observe($("timeline")); // which is as wide
setInterval(() => document.visibilityState === "visible" && me && refreshStats(), 15000);

async function start() {
  await outbox.open().catch((error) => notice(`This browser keeps nothing (${error?.name ?? "no storage"}): stay online until it says Saved.`));
  await login.finishElsewhere();
  try {
    await begin(await persist(api.me));
  } catch (error) {
    if (error instanceof api.Refused && error.status === 401) askToLogIn();
    else fail(error);
  }
}
start();
