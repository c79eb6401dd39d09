// The page about the pipeline, for leads and admins: what waits and why, what serves, the workers, the quarantine.

/** @import { BatchStanding, PipelineView, StageProgress } from "../shared/pipeline_types.js" */
import * as api from "../shared/api.js";
import { $, element, replace } from "../shared/dom.js";
import { begin } from "../shared/lead_page.js";
import { copyButton, short } from "../shared/names.js";
import { startQuarantine } from "./quarantine.js";
import { number, table, time } from "../shared/tables.js";
import { many } from "../shared/words.js";

const EVERY_MS = 10000; // the server computes it anew that often
const DEAD_S = 120; // a scheduler that was last seen longer ago has stopped
const WHAT = { click: "a click", propagation: "a propagation's first frame", frame: "each further frame" };

/** @type {Map<string, string>} */
const shown = new Map();

/**
 * Draw a part of the page, if what it shows has changed: a selected text stays selected.
 * @param {string} id
 * @param {unknown} value
 * @param {() => HTMLElement[]} make
 */
function draw(id, value, make) {
  const text = JSON.stringify(value);
  if (shown.get(id) === text) return;
  shown.set(id, text);
  replace($(id), ...make());
}

/**
 * @param {number} from  s since the epoch
 * @param {number} at
 */
const ago = (from, at) => `${time(Math.max(0, at - from))} ago`;

/** @param {PipelineView} view */
function showFacts({ at, batches, more, workers, serving }) {
  const tickets = batches.flatMap((batch) => batch.tickets?.counts ?? []);
  const sum = (/** @type {string} */ state) => tickets.reduce((n, c) => n + (c.state === state ? c.tickets : 0), 0);
  const inReview = batches.filter((batch) => (batch.tickets?.batch.remaining ?? 0) > 0);
  const known = inReview.flatMap((batch) => (batch.due === null ? [] : [batch.due - at]));
  const unknown = inReview.length - known.length;
  const failing = batches.filter((batch) => batch.stuck.length).length;
  const left = known.length ? time(Math.max(...known)) : inReview.length ? "unknown" : "none";
  const rate = Math.round(batches.reduce((sum, batch) => sum + (batch.tickets?.an_hour ?? 0), 0));
  const pace = inReview.length ? `${many(rate, "ticket")} an hour in the last 15 minutes` : "no batch is in review";
  const lacking = `unknown for ${unknown} of ${many(inReview.length, "review")}`;
  const made = serving.round ? `made by round ${serving.round}` : "before the first round";
  const airflowNote = workers.url === null ? "the queue publishes by itself" : "Airflow's last sign of life";
  const airflow = workers.url === null ? "not set" : workers.error ? "no answer"
    : workers.scheduler_seen === null ? "never ran" : ago(workers.scheduler_seen, at);
  const dead = workers.url !== null && (workers.scheduler_seen === null || at - workers.scheduler_seen > DEAD_S);
  /** @type {[string, string, string, boolean?][]} */
  const facts = [
    ["Waiting", many(batches.length + more, "batch", "batches"), failing ? `${failing} of them failing` : "none fails",
      failing > 0],
    ["Tickets", `${sum("open")} open`, `${sum("leased")} held by people${more ? ", of the batches below" : ""}`],
    ["Time left", left, unknown ? lacking : pace],
    ["Checkpoint", serving.error ? "no answer" : serving.checkpoint, serving.error ?? made, Boolean(serving.error)],
    ["Scheduler", airflow, workers.error ?? airflowNote, dead],
  ];
  draw("facts", facts, () => facts.map(([name, value, note, bad]) =>
    element("div", { className: bad ? "bad" : "" },
      element("dt", {}, name), element("dd", { title: value }, value),
      element("dd", { className: "note", title: note }, note))));
}

/** @param {StageProgress} stage */
function stageOf({ stage, done, of, noun, complete }) {
  const share = of ? Math.round((100 * done) / of) : complete ? 100 : 0;
  const said = `${stage}: ${done} of ${many(of, noun)}`;
  const bar = element("div", { className: "share", role: "img", ariaLabel: said, title: said });
  const part = element("i", { className: complete ? "done" : "made" });
  part.style.width = `${share}%`;
  bar.append(part);
  return element("li", { className: complete ? "complete" : done ? "begun" : "later" },
    element("span", { className: "stage-name" }, stage), bar,
    element("span", { className: "soft" }, complete && noun === "video" ? "done" : `${done} of ${of}`));
}

/**
 * @param {BatchStanding} batch
 * @param {number} at
 */
function batchOf(batch, at) {
  const title = batch.name || short(batch.batch_id);
  const maker = batch.imported ? "imported" : batch.checkpoint;
  const videos = batch.videos && many(batch.videos, "video"); // none are known of a damaged batch
  const about = [videos, maker, batch.phase && `phase ${batch.phase}`].filter(Boolean).join(" · ");
  const query = new URLSearchParams({ batch_id: batch.batch_id });
  const tickets = batch.tickets ? [element("a", { href: `/web/browser.html#${query}` }, "Tickets")] : [];
  const checks = batch.refused.map((one) => `${one.reason}: ${many(one.rows, "row")}, such as ${one.examples[0]}`);
  const refused = batch.quarantined
    ? [element("span", { className: "flagged", title: checks.join("\n") }, `${batch.quarantined} quarantined`)] : [];
  const due = batch.due === null
    ? [] : [element("span", { className: "soft" }, `expected in ${time(Math.max(0, batch.due - at))}`)];
  return element("li", { className: batch.stuck.length ? "one failing" : "one" },
    element("header", {},
      element("h3", { title: batch.batch_id }, title), copyButton(batch.batch_id, "Copy the id of this batch"),
      element("span", { className: "soft" }, about), ...refused,
      element("span", { className: "space" }), ...due, ...tickets),
    ...(batch.stages.length ? [element("ol", { className: "stages" }, ...batch.stages.map(stageOf))] : []),
    element("p", { className: "waits" }, element("b", {}, "Waits for "), batch.waits_for),
    ...(batch.next ? [element("p", { className: "soft next" }, element("b", {}, "Next "), batch.next)] : []));
}

/** @param {PipelineView} view */
function showBatches({ at, batches, more }) {
  draw("waiting", batches.map((batch) => [batch, batch.due && Math.round((batch.due - at) / 60)]), () => [
    ...batches.map((batch) => batchOf(batch, at)),
    ...(batches.length ? [] : [element("li", { className: "none" }, "All batches are published.")]),
    ...(more ? [element("li", { className: "soft" }, `${more} more; masklets why lists them all.`)] : []),
  ]);
}

/** @param {PipelineView} view */
function showWorkers({ workers }) {
  draw("workers", workers, () => [
    workers.error !== null
      ? element("p", { className: "error" }, `Airflow at ${workers.url} cannot be asked: ${workers.error}`)
      : table(
          [{ head: "Pool" }, { head: "Places", is: "number" }, { head: "Running", is: "number" },
            { head: "Queued", is: "number" }],
          workers.pools.map((pool) => [pool.name, pool.slots < 0 ? "no limit" : pool.slots, pool.running, pool.queued]),
          "No Airflow is set (airflow.url): the queue collects and publishes by itself.",
        ),
  ]);
}

/** @param {PipelineView} view */
function showServing({ serving }) {
  draw("serving", serving, () => [
    table(
      [{ head: "Answer to" }, { head: "Answers", is: "number" }, { head: "Mean", unit: "s", is: "number" },
        { head: "95 % within", unit: "s", is: "number" }, { head: "Checkpoint" }],
      serving.times.map((row) => [
        WHAT[/** @type {keyof typeof WHAT} */ (row.what)] ?? row.what, row.answers, number(row.mean_s, 2),
        number(row.p95_s, 2), serving.live ?? "–",
      ]),
      serving.live === null ? "The model is loaded with the first correction."
        : `${serving.live} is loaded; nobody has asked it yet.`,
    ),
  ]);
}

/** @param {PipelineView} view */
function showDocs({ docs }) {
  const lines = docs.map(({ batch_id, built_at, pages }) => element("li", {},
    element("b", { title: batch_id }, short(batch_id)),
    ...Object.entries(pages).map(([name, path]) =>
      element("a", { href: `/docs/${batch_id}/${path}`, target: "_blank" }, `Table ${name}`)),
    element("span", { className: "soft" }, new Date(1000 * built_at).toLocaleString())));
  draw("docs", docs, () => docs.length ? lines
    : [element("li", { className: "none" }, "Nothing was published on this machine yet.")]);
}

async function refresh() {
  try {
    const view = await api.pipeline();
    $("age").textContent = `as of ${new Date(1000 * view.at).toLocaleTimeString()}`;
    for (const show of [showFacts, showBatches, showWorkers, showServing, showDocs]) show(view);
  } catch (error) {
    if (api.statusOf(error) === 401) location.href = "/";
    const missing = api.statusOf(error) === 404;
    const said = error instanceof api.Refused ? error.message : "The queue does not answer";
    $("age").textContent = missing ? "This server knows no pipeline" : said;
  }
}

async function start() {
  if ((await begin()) === null) return;
  await Promise.all([refresh(), startQuarantine()]);
  setInterval(() => document.visibilityState === "visible" && refresh(), EVERY_MS);
}
start();
