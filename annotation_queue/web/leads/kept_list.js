// Kept work of everybody, for leads: looked at, dismissed, or taken to the desk to be applied.

/** @import { Work } from "../shared/kept_work.js" */
import * as api from "../shared/api.js";
import { $, element, messageOf, whenSeen } from "../shared/dom.js";
import { describe, drawPictures, worksOf } from "../shared/kept_work.js";
import { named, videos } from "../shared/names.js";
import { many } from "../shared/words.js";

/** @type {import("../shared/types.js").Colour} */
const MASKS = [165, 123, 255];

/** Ask for kept work, and say in the bar how much there is. */
export async function refreshKeptList() {
  const works = worksOf(await api.keptOfAll());
  $("to-kept").hidden = works.length === 0;
  $("to-kept").textContent = `Kept work: ${many(works.length, "ticket")}`;
  return works;
}

export async function showKeptList() {
  const works = await refreshKeptList();
  const none = element("p", { className: "none" }, "Nothing came late.");
  $("kept-works").replaceChildren(...(works.length ? works.map(rowOf) : [none]));
}

/** @param {Work} work */
function rowOf(work) {
  const said = element("p", { className: "said", role: "status" });
  const pictures = element("div", { className: "pictures" });
  const when = new Date(work.operations[0].created_at).toLocaleString();
  const id = encodeURIComponent(work.ticketId);
  const row = element("section", { className: "kept", ariaLabel: `Work of ${work.person} on ${work.ticketId}` },
    element("p", {}, element("b", {}, work.person), ` · ${when} · `, named(videos, work.videoId, "video")), pictures,
    element("p", {}, describe(work)), said,
    element("div", { className: "actions" },
      element("a", { className: "quiet bordered", href: `#ticket=${id}` }, "Open the ticket"),
      element("a", { className: "quiet bordered", href: "/#kept" }, "Apply it at the desk"),
      element("button", { type: "button", className: "quiet bordered", onclick: () => void dismiss(work, said) }, "Dismiss")));
  whenSeen(row, () => drawPictures(work, pictures, MASKS)
    .catch((error) => (said.textContent = `No picture: ${messageOf(error)}`)));
  return row;
}

/**
 * @param {Work} work
 * @param {HTMLElement} said  for what went wrong
 */
async function dismiss(work, said) {
  try {
    await api.closeKeptOfAny(work.operations.map(({ operation_id }) => operation_id), false);
    await showKeptList();
  } catch (error) {
    said.textContent = messageOf(error);
  }
}
