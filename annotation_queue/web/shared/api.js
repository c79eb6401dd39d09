// The queue's API as functions. Knows nothing of the page.

/** @import { Account, Act, ActResult, Batch, CardPage, Claim, Comment, Figures, History, HistoryPage, KeptOperation, Masklet, Me,
 *    NewComment, Ontology, Other, PlannedPhase, Recent, RefineEvent, SentOperation, Stats, Stuck, Submission, Ticket,
 *    Version, VideoInfo } from "./types.js" */
import { messageOf } from "./dom.js";

/** The queue has answered with an error. `status` is HTTP's, `kind` the name of the server's exception. */
export class Refused extends Error {
  /**
   * @param {number} status
   * @param {string} kind
   * @param {string} message
   */
  constructor(status, kind, message) {
    super(message);
    this.status = status;
    this.kind = kind;
  }
}

/** There is no answer of the queue; a retry may help. */
export class Unreachable extends Error {}

/**
 * The HTTP status that the queue answered with, or null if it has not answered.
 * @param {unknown} error
 */
export const statusOf = (error) => (error instanceof Refused ? error.status : null);

/**
 * Whether the queue refuses because a lease is over: it ended by itself, or a lead took the ticket back.
 * @param {unknown} error
 */
export const isLost = (error) => error instanceof Refused && ["LeaseLost", "TakenBack"].includes(error.kind);

const PATIENCE_MS = 20000; // a request without an answer is given up after this

/** @type {string | null} */
let csrf = null;
/** @type {string | null} */
let person = null;

/** A new random id, 32 hex digits. */
export const newId = () =>
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");

/**
 * Send a request, and return the JSON of the answer, or null if the queue answers without one.
 * @param {string} method
 * @param {string} path
 * @param {unknown} [body]
 * @returns {Promise<any>}
 */
async function ask(method, path, body) {
  const text = body === undefined ? undefined : JSON.stringify(body);
  const response = await send(method, path, text, AbortSignal.timeout(PATIENCE_MS));
  return response.status === 204 ? null : answerOf(response);
}

/**
 * The response, if it is a success. A request that is rejected because another tab has logged in again is sent twice.
 * @param {string} method
 * @param {string} path
 * @param {string | undefined} body
 * @param {AbortSignal} signal
 */
async function send(method, path, body, signal) {
  for (let again = false; ; again = true) {
    const used = csrf; // another request may learn of a new one while this one is under way
    /** @type {Record<string, string>} */
    const headers = {};
    if (body !== undefined) headers["Content-Type"] = "application/json";
    if (method !== "GET" && csrf) headers["X-CSRF-Token"] = csrf;
    let response;
    try {
      response = await fetch(path, { method, headers, credentials: "same-origin", signal, body });
    } catch (error) {
      throw new Unreachable(messageOf(error));
    }
    if (response.ok) return response;
    if (response.status >= 500) throw new Unreachable(`${response.status}`); // a retry may work: nothing is given up
    const answer = await answerOf(response);
    if (response.status === 403 && method !== "GET" && person !== null && !again) {
      /** @type {Me} */
      const now = await ask("GET", "/api/me");
      if (now.name !== person) throw new Refused(401, "NotLoggedIn", `${now.name} has logged in in another tab`);
      if (now.csrf !== used) {
        csrf = now.csrf;
        continue;
      }
    }
    throw new Refused(response.status, answer.kind, answer.error);
  }
}

/**
 * The JSON of the queue's answer. Anything else, such as the page of a proxy in between, counts as no answer.
 * @param {Response} response
 */
async function answerOf(response) {
  const answer = await response.json().catch(() => null);
  if (answer === null || (!response.ok && typeof answer.kind !== "string")) {
    throw new Unreachable(`${response.status} without an answer of the queue`);
  }
  return answer;
}

/** @param {Me} me */
function remember(me) {
  csrf = me.csrf;
  person = me.name;
  return me;
}

// --- people ---

/** @type {(name: string, password: string) => Promise<Me>} */
export const logIn = async (name, password) => remember(await ask("POST", "/api/login", { name, password }));
/** @type {() => Promise<{oidc: string | null}>} */
export const waysToLogIn = () => ask("GET", "/api/login");
/** @type {() => Promise<{url: string}>} */
export const beginElsewhere = () => ask("POST", "/api/login/oidc");
/** @type {(answer: {state: string | null, code: string | null, error: string | null}) => Promise<Me>} */
export const finishElsewhere = async (answer) => remember(await ask("POST", "/api/login/oidc/finish", answer));
/** @type {() => Promise<Me>} */
export const me = async () => remember(await ask("GET", "/api/me"));
/** @type {(keys: Record<string, string>) => Promise<void>} */
export const setKeys = (keys) => ask("PUT", "/api/me/keys", { keys });
/** @type {() => Promise<void>} */
export const logOut = () => ask("POST", "/api/logout");
/** @type {() => Promise<Account[]>} */
export const people = () => ask("GET", "/api/people");
/** @type {(body: {name: string, roles: string[], skills?: string[], new: boolean}) => Promise<Account>} */
export const setPerson = (body) => ask("POST", "/api/people", body);
/** @type {(name: string, disabled: boolean) => Promise<void>} */
export const disable = (name, disabled) => ask("POST", `/api/people/${name}/disable`, { disabled });
/** @type {(name: string, scopes: string[]) => Promise<{token: string}>} */
export const issueToken = (name, scopes) => ask("POST", `/api/people/${name}/tokens`, { scopes });
/** @type {(name: string) => Promise<{revoked: number}>} */
export const revokeTokens = (name) => ask("DELETE", `/api/people/${name}/tokens`);

// --- tickets ---

/** @type {(body: Claim) => Promise<Ticket | null>} */
export const claim = (body) => ask("POST", "/api/tickets/claim", body);
/** @type {(id: string, token: number) => Promise<Ticket>} */
export const heartbeat = (id, token) => ask("POST", `/api/tickets/${id}/heartbeat`, { token });
/** @type {(id: string, token: number) => Promise<Ticket>} */
export const release = (id, token) => ask("POST", `/api/tickets/${id}/release`, { token });
/** @type {(id: string, token: number, submission: Submission) => Promise<unknown>} */
export const finish = (id, token, submission) =>
  ask("POST", `/api/tickets/${id}/finish`, { token, outcome: submission });
/** @type {(id: string, token: number, sent: SentOperation[]) => Promise<unknown>} */
export const operations = (id, token, sent) =>
  ask("POST", `/api/tickets/${id}/operations`, { token, operations: sent });
/** @type {(id: string) => Promise<KeptOperation[]>} */
export const operationsOf = (id) => ask("GET", `/api/tickets/${id}/operations`);
/** @type {(id: string) => Promise<(Version & {operation_id: string})[]>} */
export const versions = (id) => ask("GET", `/api/tickets/${id}/versions`);
/** @type {(id: string, token: number, frameIdx: number) => Promise<void>} */
export const warm = (id, token, frameIdx) => ask("POST", `/api/tickets/${id}/warm`, { token, frame_idx: frameIdx });
/** @type {() => Promise<void>} */
export const loadModel = () => ask("POST", "/api/live");
/** @type {(id: string) => Promise<Masklet>} */
export const masklet = (id) => ask("GET", `/api/tickets/${id}/masklet`);
/** The masklet that a ticket's masklet corrects. @type {(id: string) => Promise<Masklet>} */
export const before = (id) => ask("GET", `/api/tickets/${id}/before`);
/** @type {(id: string, body: {token: number, claim_id: string}) => Promise<Ticket>} */
export const newObject = (id, body) => ask("POST", `/api/tickets/${id}/objects`, body);
/** @type {(id: string) => Promise<Other[]>} */
export const others = (id) => ask("GET", `/api/tickets/${id}/others`);
/** @type {(version: string) => Promise<Ontology>} */
export const ontology = (version) => ask("GET", `/api/ontologies/${version}`);
/** @type {() => Promise<Recent[]>} */
export const recent = () => ask("GET", "/api/me/recent");
/** @type {(after: string | null) => Promise<HistoryPage>} */
export const history = (after) => ask("GET", `/api/me/history${after ? `?after=${encodeURIComponent(after)}` : ""}`);
/** @type {(id: string) => Promise<Ticket>} */
export const ticket = (id) => ask("GET", `/api/tickets/${encodeURIComponent(id)}`);
/** @type {(id: string) => Promise<Comment[]>} */
export const comments = (id) => ask("GET", `/api/tickets/${id}/comments`);
/** @type {(id: string, body: NewComment) => Promise<Comment>} */
export const comment = (id, body) => ask("POST", `/api/tickets/${id}/comments`, body);
/** @type {(id: string) => Promise<Batch>} */
export const batch = (id) => ask("GET", `/api/batches/${id}`);
/** The address of the picture of a ticket's object. @type {(id: string) => string} */
export const portrait = (id) => `/api/tickets/${id}/portrait.jpg`;
/** @type {(id: string, body: {operation_id: string, created_at: string}) => Promise<Ticket>} */
export const unsubmit = (id, body) => ask("POST", `/api/tickets/${id}/unsubmit`, body);
/** @type {() => Promise<Stuck[]>} */
export const stuck = () => ask("GET", "/api/stuck");
/** @type {() => Promise<PlannedPhase[]>} */
export const campaign = () => ask("GET", "/api/campaign");

/** @returns {Promise<import("./pipeline_types.js").PipelineView>} */
export const pipeline = () => ask("GET", "/api/pipeline");

/** @param {URLSearchParams} query @returns {Promise<import("./pipeline_types.js").QuarantinePage>} */
export const quarantine = (query) => ask("GET", `/api/quarantine?${query}`);

/**
 * @param {{ act_id: string, action: string, row_id: string, why: string }} act
 * @returns {Promise<import("./pipeline_types.js").QuarantineRow>}
 */
export const decide = (act) => ask("POST", "/api/quarantine", act);
/** @type {() => Promise<KeptOperation[]>} */
export const kept = () => ask("GET", "/api/me/kept");
/** @type {(operation_ids: string[], applied: boolean) => Promise<{closed: number}>} */
export const closeKept = (operation_ids, applied) => ask("POST", "/api/me/kept/close", { operation_ids, applied });
/** @type {() => Promise<KeptOperation[]>} */
export const branches = () => ask("GET", "/api/branches");
/** @type {(query: URLSearchParams) => Promise<CardPage>} */
export const cards = (query) => ask("GET", `/api/cards?${query}`);
/** @type {(id: string) => Promise<History>} */
export const story = (id) => ask("GET", `/api/tickets/${encodeURIComponent(id)}/history`);
/** @type {(act: Act) => Promise<ActResult[]>} */
export const act = (act) => ask("POST", "/api/acts", act);
/**
 * The same comment on many tickets.
 * @param {{act_id: string, ticket_ids: string[], text: string, created_at: string, frame_idx: number | null}} said
 * @returns {Promise<ActResult[]>}
 */
export const commentAll = (said) => ask("POST", "/api/comments", said);
/** @type {() => Promise<Batch[]>} */
export const batches = () => ask("GET", "/api/batches");
/** @type {() => Promise<KeptOperation[]>} */
export const keptOfAll = () => ask("GET", "/api/kept");
/** @type {(operation_ids: string[], applied: boolean) => Promise<{closed: number}>} */
export const closeKeptOfAny = (operation_ids, applied) => ask("POST", "/api/kept/close", { operation_ids, applied });
/** The address of a ticket's picture. @param {string} id */
export const thumbnail = (id) => `/api/tickets/${encodeURIComponent(id)}/thumbnail`;
/** @type {() => Promise<Ticket[]>} */
export const leased = () => ask("GET", "/api/tickets?state=leased&limit=500");
/** @type {(ticket: Ticket) => Promise<Ticket>} */
export const endLease = ({ ticket_id, lease_token }) =>
  ask("POST", `/api/tickets/${ticket_id}/end-lease`, { token: lease_token });

// --- releases ---

/** @param {string} name */
const releasePath = (name) => `/api/releases/${encodeURIComponent(name)}`;
/** @type {(name: string, videoId: string) => string} */
const releaseVideoPath = (name, videoId) => `${releasePath(name)}/videos/${encodeURIComponent(videoId)}`;
/** @type {() => Promise<import("./release_types.js").Releases>} */
export const releases = () => ask("GET", "/api/releases");
/** @type {(name: string, query: URLSearchParams) => Promise<import("./release_types.js").ReleasePage>} */
export const releasePage = (name, query) => ask("GET", `${releasePath(name)}/masklets?${query}`);
/** @type {(name: string, videoId: string) => Promise<import("./release_types.js").ReleaseVideo>} */
export const releaseVideo = (name, videoId) => ask("GET", releaseVideoPath(name, videoId));
/** @type {(name: string, videoId: string) => (first: number, count: number) => Promise<import("./release_types.js").ReleaseMasks>} */
export const masksOf = (name, videoId) => (first, count) =>
  ask("GET", `${releaseVideoPath(name, videoId)}/masks?first=${first}&count=${count}`);
/** The address of a masklet's picture. @type {(name: string, videoId: string, maskletId: string) => string} */
export const releaseThumbnail = (name, videoId, maskletId) =>
  `${releaseVideoPath(name, videoId)}/${encodeURIComponent(maskletId)}/thumbnail`;

// --- videos and numbers ---

/** @type {(id: string) => Promise<VideoInfo>} */
export const video = (id) => ask("GET", `/api/videos/${id}`);
/** @type {(project?: string) => Promise<Stats>} */
export const stats = (project) => ask("GET", `/api/stats${project ? `?${new URLSearchParams({ project })}` : ""}`);
/** @type {() => Promise<Figures>} */
export const figures = () => ask("GET", "/api/figures");

/**
 * The JPEG of exactly this frame. An abort throws an AbortError; a frame that takes too long is Unreachable.
 * @param {string} videoId
 * @param {number} frameIdx
 * @param {AbortSignal} [signal]
 * @returns {Promise<Blob>}
 */
export const frame = (videoId, frameIdx, signal) => frameAt(`/api/videos/${videoId}`, frameIdx, signal);

/**
 * The same of a video of a release.
 * @param {string} release
 * @returns {typeof frame}
 */
export const frameOf = (release) => (videoId, frameIdx, signal) =>
  frameAt(releaseVideoPath(release, videoId), frameIdx, signal);

/**
 * @param {string} video  its path
 * @param {number} frameIdx
 * @param {AbortSignal} [signal]
 */
async function frameAt(video, frameIdx, signal) {
  const either = AbortSignal.any([...(signal ? [signal] : []), AbortSignal.timeout(PATIENCE_MS)]);
  try {
    const response = await fetch(`${video}/frames/${frameIdx}.jpg`, { credentials: "same-origin", signal: either });
    if (response.status >= 500) throw new Unreachable(`${response.status}`);
    if (!response.ok) throw new Refused(response.status, "", `frame ${frameIdx}: error ${response.status}`);
    return await response.blob();
  } catch (error) {
    signal?.throwIfAborted();
    if (error instanceof Refused || error instanceof Unreachable) throw error;
    throw new Unreachable(messageOf(error)); // also a request or a body that took too long
  }
}

/**
 * The model's answer to an operation, event by event. Aborting `signal` cancels the work.
 *
 * While the model works, the queue sends "alive" every few seconds: silence means a dead connection.
 * @param {string} id
 * @param {number} token
 * @param {SentOperation} operation
 * @param {AbortSignal} signal
 * @returns {AsyncGenerator<RefineEvent, void>}
 */
export async function* refine(id, token, operation, signal) {
  const silence = new AbortController();
  /** @type {number | undefined} */
  let timer;
  const listen = () => {
    clearTimeout(timer);
    timer = setTimeout(() => silence.abort(), PATIENCE_MS);
  };
  listen();
  let rest = "";
  let ended = false;
  try {
    const either = AbortSignal.any([signal, silence.signal]);
    const response = await send("POST", `/api/tickets/${id}/refine`, JSON.stringify({ token, operation }), either);
    if (response.body === null) throw new Unreachable("an answer without a body");
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let part; !(part = await reader.read()).done; ) {
      listen();
      const lines = (rest + part.value).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) {
        /** @type {RefineEvent} */
        const event = JSON.parse(line);
        ended ||= event.event === "done" || event.event === "failed";
        yield event;
      }
    }
  } catch (error) {
    throw error instanceof Refused ? error : new Unreachable(messageOf(error));
  } finally {
    clearTimeout(timer);
  }
  if (!ended) throw new Unreachable("the connection broke off during the answer");
}
