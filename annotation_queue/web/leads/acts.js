// What a lead does to tickets: the controls for it, and what became of each ticket.

/** @import { Act, ActResult, Kind } from "../shared/types.js" */
import * as api from "../shared/api.js";
import { element, messageOf } from "../shared/dom.js";
import { many } from "../shared/words.js";

const AT_ONCE = 100; // tickets of one request
const PRIORITY = 10; // that the field offers
const LONGEST = 2000; // characters of a comment

/** The comment whose answer is missing, and what it says to whom. Sent again, it is the same act. @type {{what: string, deed: Deed} | null} */
let unanswered = null;

/**
 * @typedef {object} Doing
 * @property {() => string[]} tickets  that an act is about
 * @property {string[]} people  to whom tickets can be assigned
 * @property {() => number | null} frame  that a reopened ticket points to, and that a comment is about; null: none
 * @property {(ids: string[]) => unknown} ondone  after an act
 */

/**
 * The controls, to be put into a holder.
 * @param {Doing} doing
 */
export function controlsFor(doing) {
  const to = select("Person", doing.people.map((name) => [name, name]));
  const priority = element("input", {
    type: "number", value: String(PRIORITY), min: "-1000", max: "1000", ariaLabel: "Priority", className: "short",
  });
  const as = select("Kind of the new ticket", [["", "as it was"], ["verify", "to verify"], ["track", "to correct"]]);
  const results = element("div", { className: "results", role: "status" });
  const act = (/** @type {Omit<Act, "act_id" | "ticket_ids">} */ what) => void run(doing, acting(what), results);
  const text = element("input", {
    type: "text", maxLength: LONGEST, ariaLabel: "Comment", placeholder: "What to look at", className: "long",
  });
  let sends = false; // Enter once more would send everybody the comment once more
  const comment = async () => {
    if (sends) return;
    const words = text.value.trim();
    if (!words) return text.focus();
    const frame = doing.frame();
    const what = JSON.stringify([words, frame, doing.tickets()]);
    const deed = unanswered?.what === what ? unanswered.deed : commenting(words, frame);
    unanswered = { what, deed };
    await run(doing, async (ids) => {
      sends = true;
      try {
        const done = await deed(ids);
        if (unanswered?.deed === deed) unanswered = null;
        if (text.value.trim() === words) text.value = ""; // unless the next one has been begun
        return done;
      } finally {
        sends = false;
      }
    }, results);
  };
  text.addEventListener("keydown", ({ key }) => key === "Enter" && void comment());
  const reopen = () => {
    const frame_idx = doing.frame();
    act({
      action: "reopen", ...(as.value && { kind: /** @type {Kind} */ (as.value) }),
      ...(frame_idx !== null && { frame_idx }),
    });
  };
  return [
    group("Assign to", to, button("Assign", "Nobody else may claim them, until they are taken back",
      () => act({ action: "assign", to: to.value }))),
    button("Take back", "From the people who hold them or have them assigned: anybody may claim them. The work stays",
      () => act({ action: "take back" })),
    group("Priority", priority, button("Set", "A higher number is handed out first; the usual one is 0",
      () => act({ action: "prioritise", priority: Math.round(Number(priority.value)) }))),
    group("Reopen", as, button("Reopen", "Settled tickets get a successor. Not in a batch that is complete", reopen)),
    group("Comment", text, button("Send", "Everybody who works on these objects reads it", comment)),
    results,
  ];
}

/**
 * Something that is done to tickets. Calling it again, after an answer was lost, changes nothing that is done.
 * @typedef {(ids: string[]) => Promise<ActResult[]>} Deed
 */

/**
 * A deed that is sent for many tickets at once.
 * @param {(ids: string[]) => Promise<ActResult[]>} send
 * @returns {Deed}
 */
const inParts = (send) => async (ids) => {
  /** @type {ActResult[]} */
  const results = [];
  for (let n = 0; n < ids.length; n += AT_ONCE) results.push(...(await send(ids.slice(n, n + AT_ONCE))));
  return results;
};

/** @type {(what: Omit<Act, "act_id" | "ticket_ids">) => Deed} */
function acting(what) {
  const act_id = api.newId();
  return inParts((ticket_ids) => api.act({ ...what, act_id, ticket_ids }));
}

/** @type {(text: string, frame_idx: number | null) => Deed} */
function commenting(text, frame_idx) {
  const said = { act_id: api.newId(), created_at: new Date().toISOString(), text, frame_idx };
  return inParts((ticket_ids) => api.commentAll({ ...said, ticket_ids }));
}

/**
 * Do it, and say what became of it.
 * @param {Doing} doing
 * @param {Deed} deed
 * @param {HTMLElement} holder
 */
async function run(doing, deed, holder) {
  const ids = doing.tickets();
  const attempt = async () => {
    holder.replaceChildren(element("p", {}, "…"));
    try {
      holder.replaceChildren(...said(await deed(ids)));
    } catch (error) {
      const again = button("Try again", "The same act: what was done already is not done twice", attempt);
      const refused = error instanceof api.Refused;
      holder.replaceChildren(element("p", { className: "refused" },
        refused ? messageOf(error) : "The queue does not answer. "), ...(refused ? [] : [again]));
      return;
    }
    await doing.ondone(ids);
  };
  await attempt();
}

/** @param {ActResult[]} results */
function said(results) {
  const refused = results.filter(({ done }) => !done);
  if (results.length === 1) {
    const [{ done, said: text }] = results;
    return [element("p", { className: done ? "" : "refused" }, done ? `Done: ${text}.` : `Refused: ${text}.`)];
  }
  const done = results.length - refused.length;
  const line = [done ? `${many(done, "ticket")} done` : "None done", ...(refused.length ? [`${refused.length} refused`] : [])].join(", ");
  const rows = results.map(({ ticket_id: id, done, said: text }) =>
    element("li", { className: done ? "" : "refused" }, `${id.slice(0, 12)}: ${text}`));
  return [element("details", { open: refused.length > 0 }, element("summary", {}, line), element("ul", {}, ...rows))];
}

/**
 * @param {string} name
 * @param {[value: string, text: string][]} choices
 */
const select = (name, choices) =>
  element("select", { ariaLabel: name }, ...choices.map(([value, text]) => element("option", { value }, text)));

/** @type {(title: string, ...parts: HTMLElement[]) => HTMLElement} */
const group = (title, ...parts) => element("span", { className: "act" }, element("span", { className: "label" }, title), ...parts);

/** @type {(text: string, title: string, run: () => unknown) => HTMLButtonElement} */
const button = (text, title, run) =>
  element("button", { type: "button", className: "quiet bordered", title, onclick: () => void run() }, text);
