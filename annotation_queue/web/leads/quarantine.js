// The quarantine on the page about the pipeline: a list with filters, and a dialog to release a file or note it as seen.

/** @import { QuarantineRow } from "../shared/pipeline_types.js" */
import * as api from "../shared/api.js";
import { $, element, messageOf, replace } from "../shared/dom.js";
import { table } from "../shared/tables.js";

const STAGES = {
  ingest: "Ingest", import: "Import", "auto-masklets": "Auto-masklets", review: "Review", collect: "Collect",
  publish: "Publish",
};
const WAIT_MS = 250; // after the last key in the search

/** @type {QuarantineRow[]} */
let rows = [];
/** @type {number | null} */
let following = null;
let total = 0;
/** @type {{ row: QuarantineRow, action: "release" | "seen", actId: string } | null} */
let deciding = null;
let asked = 0; // the newest question: an older answer that comes later is dropped

const form = () => $("wanted", HTMLFormElement);
const dialog = () => $("decide", HTMLDialogElement);

/** The filters of the form, without those that are empty. */
function query() {
  const sent = new URLSearchParams();
  for (const [name, value] of new FormData(form())) if (value) sent.set(name, String(value));
  return sent;
}

/** @param {boolean} goOn  append the next rows, or begin again */
async function load(goOn) {
  const question = ++asked;
  const wanted = query();
  const gone = wanted.has("undecided") ? rows.filter((row) => row.acts.length).length : 0; // shown, but no longer found
  if (goOn && following !== null) wanted.set("after", String(following - gone));
  try {
    const page = await api.quarantine(wanted);
    if (question !== asked) return;
    rows = goOn ? [...rows, ...page.rows] : page.rows;
    ({ next: following, total } = page);
    showReasons(page.reasons);
    show();
  } catch (error) {
    if (question === asked && api.statusOf(error) !== 404) $("error").textContent = messageOf(error);
  }
}

/** @param {Record<string, number>} reasons */
function showReasons(reasons) {
  const select = /** @type {HTMLSelectElement} */ (form().elements.namedItem("reason"));
  const chosen = select.value;
  const known = chosen && !(chosen in reasons) ? { ...reasons, [chosen]: 0 } : reasons;
  select.replaceChildren(element("option", { value: "" }, "Any"),
    ...Object.entries(known).map(([reason, n]) => element("option", { value: reason }, `${said(reason)} (${n})`)));
  select.value = chosen;
}

/** @param {string} reason */
const said = (reason) => reason.replaceAll("_", " ");

function show() {
  replace($("quarantine"), table(
    [{ head: "What" }, { head: "Reason" }, { head: "Detail", is: "words" }, { head: "Decided", is: "words" },
      { head: "Action", is: "number" }],
    rows.map((row) => [
      subject(row), said(row.reason), element("span", { className: "words" }, row.detail || "–"), decided(row), actions(row),
    ]),
    "Nothing is in quarantine.",
  ));
  $("more").hidden = following === null;
  $("more").textContent = `Show more of ${total}`;
}

/** @param {QuarantineRow} row */
function subject(row) {
  const name = row.subject.split("/").pop() || row.subject;
  return element("span", { className: "subject-of", title: row.subject }, name,
    element("small", {}, STAGES[/** @type {keyof typeof STAGES} */ (row.stage)] ?? row.stage));
}

/** @param {QuarantineRow} row */
function decided(row) {
  const lines = row.acts.map((act) => element("span", {},
    `${act.action === "release" ? "Released" : "Seen"} by ${act.by}, ${new Date(act.at).toLocaleString()}: ${act.why}`));
  const released = row.acts.some((act) => act.action === "release");
  if (released && row.waits) lines.push(element("span", { className: "flagged" }, "Waits for the next ingest"));
  else if (released && row.outcome) lines.push(element("span", {}, row.outcome[0].toUpperCase() + row.outcome.slice(1)));
  return element("span", { className: "words acts" }, ...(lines.length ? lines : ["–"]));
}

/** @param {QuarantineRow} row */
function actions(row) {
  /** @type {(text: string, title: string, action: "release" | "seen") => HTMLElement} */
  const button = (text, title, action) => element("button", {
    type: "button", className: "quiet bordered", id: `${action}-${row.row_id}`, title, onclick: () => ask(row, action),
  }, text);
  return element("span", { className: "acts-of" },
    ...(row.release && !row.waits ? [button("Release …", `The next ingest ${row.release}`, "release")] : []),
    ...(row.acts.length ? [] : [button("Seen …", "It is known, and nothing follows", "seen")]));
}

/**
 * @param {QuarantineRow} row
 * @param {"release" | "seen"} action
 */
function ask(row, action) {
  deciding = { row, action, actId: api.newId() };
  $("decide-title").textContent = action === "release" ? "Release this file?" : "Note as seen?";
  $("decide-subject").textContent = row.subject;
  const then = action === "release" ? `The next ingest ${row.release}.` : "It stays refused, and is no longer undecided.";
  const detail = row.detail ? `: ${row.detail.replace(/\.$/, "")}` : "";
  $("decide-text").textContent = `Refused as ${said(row.reason)}${detail}. ${then}`;
  $("decide-yes").textContent = action === "release" ? "Release" : "Note as seen";
  $("decide-why", HTMLTextAreaElement).value = "";
  $("decide-error").textContent = "";
  dialog().showModal();
}

/** @param {SubmitEvent} event */
async function decide(event) {
  event.preventDefault(); // the dialog stays until the queue has recorded it
  if (deciding === null) return;
  const { row, action, actId } = deciding;
  try {
    const why = $("decide-why", HTMLTextAreaElement).value;
    const changed = await api.decide({ act_id: actId, action, row_id: row.row_id, why });
    const { subject, reason, acts, waits, outcome } = changed; // of all rows of this file with this reason
    rows = rows.map((each) => each.subject === subject && each.reason === reason
      ? { ...each, acts, waits, outcome } : each);
    dialog().close();
    show();
  } catch (error) {
    $("decide-error").textContent = messageOf(error);
  }
}

/** Show the quarantine, and let leads decide about it. */
export async function startQuarantine() {
  const stage = /** @type {HTMLSelectElement} */ (form().elements.namedItem("stage"));
  stage.append(element("option", { value: "" }, "Any"),
    ...Object.entries(STAGES).map(([value, text]) => element("option", { value }, text)));
  let timer = 0;
  form().addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => void load(false), WAIT_MS);
  });
  form().addEventListener("submit", (event) => event.preventDefault());
  $("more").addEventListener("click", () => void load(true));
  $("decide-form").addEventListener("submit", (event) => void decide(event));
  $("decide-no").addEventListener("click", () => dialog().close());
  dialog().addEventListener("close", () => (deciding = null));
  await load(false);
}
