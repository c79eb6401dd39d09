// The list of a person's finished tickets, the latest first, a page at a time.

/** @import { Recent } from "../shared/types.js" */
import * as api from "../shared/api.js";
import { $, element, messageOf } from "../shared/dom.js";
import { videos } from "../shared/names.js";
import { openTicket } from "./opening.js";
import { ASKS, REASONS, VERDICTS } from "../shared/words.js";

const dialog = $("history", HTMLDialogElement);
/** @type {string | null} */
let next = null; // where the following page begins

async function showMore() {
  $("history-said").textContent = "";
  try {
    const page = await api.history(next);
    next = page.next;
    $("finished").append(...page.answers.map(entryOf));
    if (!$("finished").hasChildNodes()) $("history-said").textContent = "You have not finished a ticket yet.";
  } catch (error) {
    $("history-said").textContent = messageOf(error);
  }
  $("more-history").hidden = next === null;
}

/** @param {Recent} answer */
function entryOf({ ticket_id, kind, video_id, verdict, reasons, finished_at }) {
  const title = VERDICTS.find((each) => each.verdict === verdict)?.title ?? "Submitted";
  const why = reasons.map((reason) => REASONS[reason].toLowerCase());
  const name = element("b", {});
  videos.write(name, video_id);
  const picture = element("img", { src: api.portrait(ticket_id), alt: "", width: 48, height: 48, loading: "lazy" });
  const open = () => {
    dialog.close();
    void openTicket(ticket_id);
  };
  const lines = element("span", {}, name,
    element("small", {}, [`${ASKS[kind].name}: ${title}`, ...why].join(", ")),
    element("small", {}, new Date(1000 * finished_at).toLocaleString()));
  return element("li", {}, element("button", { type: "button", className: "look-at", onclick: open }, picture, lines));
}

$("open-history").addEventListener("click", () => {
  next = null;
  $("finished").replaceChildren();
  dialog.showModal();
  void showMore();
});
$("more-history").addEventListener("click", () => void showMore());
