// Work that reached the queue after its lease had ended: a list of it, with pictures. The person who sent it, or a lead,
// applies it to the ticket again, as if it were done now, or dismisses it.

/** @import { Operation, Payload } from "../shared/types.js" */
/** @import { HeldTicket } from "../shared/held.js" */
/** @import { Work } from "../shared/kept_work.js" */
import * as api from "../shared/api.js";
import { $, element, messageOf, whenSeen } from "../shared/dom.js";
import { describe, drawPictures, NAMES, repeated, worksOf } from "../shared/kept_work.js";
import { fail } from "./login.js";
import { notice } from "./messages.js";
import { named, videos } from "../shared/names.js";
import { desk, player } from "./screen.js";
import { sendOperation, untilAnswered } from "./sending.js";
import { session } from "../shared/session.js";
import { showInstead, takeNew } from "./supply.js";
import { ASKS, many, VERDICTS } from "../shared/words.js";

const OPEN = "#kept"; // the page's address with this opens the list: leads come so from the list of all tickets

/** @type {Work[]} */
let works = [];
const dialog = $("kept-list", HTMLDialogElement);

/** Ask the queue what it has kept of this person's work. */
export async function refreshKept() {
  const others = session.person.roles.includes("lead") ? await api.keptOfAll() : [];
  works = worksOf([...(await api.kept()), ...others.filter(({ person }) => person !== session.person.name)]);
  $("kept").hidden = works.length === 0;
  $("kept").textContent = `Kept work: ${many(works.length, "ticket")}`;
  if (works.length === 0 && dialog.open) dialog.close();
  if (location.hash === OPEN && works.length) {
    window.history.replaceState(null, "", location.pathname);
    dialog.showModal();
  }
  if (dialog.open) show();
}

// --- the list --------------------------------------------------------------------------------------------------------

function show() {
  $("kept-works").replaceChildren(...works.map(rowOf));
}

/** @param {Work} work */
function rowOf(work) {
  const said = element("p", { className: "said", role: "status" });
  const row = element("section", { className: "kept", ariaLabel: `Work on ${work.videoId}` });
  const actions = element("div", { className: "actions" },
    element("button", { type: "button", className: "primary", onclick: () => void apply(work, said) }, "Apply to the ticket"),
    element("button", { type: "button", className: "quiet bordered", onclick: () => void dismiss(work, said) }, "Dismiss"));
  const whose = isMine(work) ? "" : `${work.person} · `;
  const when = new Date(work.operations[0].created_at).toLocaleString();
  const pictures = element("div", { className: "pictures" });
  row.append(element("p", { className: "label" }, `${whose}${when} · `, named(videos, work.videoId, "video")), pictures,
    element("p", {}, describe(work)), said, actions);
  whenSeen(row, () => drawPictures(work, pictures, player.colours.fill)
    .catch((error) => (said.textContent = `No picture: ${messageOf(error)}`)));
  return row;
}

/** Whether this person sent it, and not somebody whose work they see as a lead. @param {Work} work */
const isMine = (work) => work.person === session.person.name;

// --- what becomes of it ----------------------------------------------------------------------------------------------

/**
 * @param {Work} work
 * @param {HTMLElement} said  for what went wrong
 */
async function dismiss(work, said) {
  await close(work, false).catch((error) => (said.textContent = messageOf(error)));
}

/**
 * @param {Work} work
 * @param {boolean} applied
 */
async function close(work, applied) {
  const ids = work.operations.map(({ operation_id }) => operation_id);
  await untilAnswered(() => (isMine(work) ? api.closeKept : api.closeKeptOfAny)(ids, applied));
  await refreshKept();
}

/**
 * Take the ticket again, and do the work in it once more.
 * @param {Work} work
 * @param {HTMLElement} said  for what went wrong
 */
async function apply(work, said) {
  const shown = session.heldFor(work.ticketId);
  const here = shown?.readOnly ? undefined : shown; // what is only looked at can be taken
  const held = here ?? (await takeNew({ ticket_id: work.ticketId }).catch(() => null));
  if (!held || held.lost || held.finished) {
    said.textContent = "Another person has this ticket, or it is decided: the work can only be looked at or dismissed.";
    return;
  }
  if (here && here !== session.current) {
    said.textContent = "You hold this ticket: it comes next. Apply the work once it is on screen.";
    return;
  }
  dialog.close();
  if (held !== session.current) showInstead(held);
  again(work, held);
  const verdict = work.operations.find(({ kind }) => kind === "verdict")?.content.verdict;
  notice(verdict
    ? `${isMine(work) ? "Your" : `${work.person}'s`} verdict was ${VERDICTS.find((each) => each.verdict === verdict)?.title}. Look, and give it again.`
    : `${isMine(work) ? "Your work" : `The work of ${work.person}`} is in the ticket again. ${ASKS[held.ticket.kind].name} on from there.`, { over: true });
  await close(work, true).catch(fail);
}

/**
 * @param {Work} work
 * @param {HeldTicket} held  on screen
 */
function again(work, held) {
  const { draft } = held;
  const into = draft ?? held.labelling; // a verify ticket has labels only
  if (!into) return;
  /** @type {Map<string, string>} */
  const ids = new Map(); // of the operations then → now
  /** @type {(kind: string, frame_idx: number | null, payload: Payload, then?: string) => void} */
  const act = (kind, frame_idx, payload, then) => {
    /** @type {Operation} */
    const operation = { operation_id: api.newId(), kind, frame_idx, payload, created_at: new Date().toISOString() };
    if (then) ids.set(then, operation.operation_id);
    into.add(operation);
    sendOperation(held, operation);
  };
  for (const { operation_id, kind, frame_idx, content } of repeated(work)) {
    const { masklet } = content;
    if (kind === "stop") {
      // its propagation came in time, and has gone on since the ticket was taken again
      if (draft?.waiting().some((each) => each.operation_id === content.operation_id)) desk.stop({ spare: content.spare });
    } else if (kind === "submit" && masklet && draft) {
      masklet.frame_idx.forEach((frame, i) => {
        const now = draft.masks.get(frame)?.rle;
        if (now !== masklet.rle[i]) act("stroke", frame, { mask_rle: masklet.rle[i] });
      });
    } else if (kind in NAMES) {
      const about = content.operation_id;
      act(kind, frame_idx, about ? { ...content, operation_id: ids.get(about) ?? about } : content, operation_id);
    }
  }
  session.emit("draft");
}

dialog.addEventListener("close", () => dialog.open || $("kept-works").replaceChildren()); // the pictures take memory
$("kept").addEventListener("click", () => {
  dialog.showModal();
  show();
});
session.on("refused", ({ error }) => api.isLost(error) && refreshKept().catch(() => {}));
