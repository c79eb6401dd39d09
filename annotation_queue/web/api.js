// The queue's API as functions. Knows nothing of the page.

export class Refused extends Error {
  // What the queue answered: `status` is HTTP's, `kind` the name of the server's exception.
  constructor(status, kind, message) {
    super(message);
    this.status = status;
    this.kind = kind;
  }
}

export class Unreachable extends Error {}

const PATIENCE_MS = 20000; // without an answer, a request is given up

let csrf = null;
let person = null;

export const newId = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");

async function ask(method, path, body, again = false) {
  const used = csrf; // another request may learn of a new one while this one is under way
  const headers = {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (method !== "GET" && csrf) headers["X-CSRF-Token"] = csrf;
  let response;
  try {
    response = await fetch(path, {
      method,
      headers,
      credentials: "same-origin",
      signal: AbortSignal.timeout(PATIENCE_MS),
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    throw new Unreachable(error.message);
  }
  if (response.status === 204) return null;
  if (response.status >= 500) throw new Unreachable(`${response.status}`); // it may work again: nothing is given up
  const answer = await answerOf(response);
  if (response.status === 403 && method !== "GET" && person !== null && !again) {
    // another tab may have logged in anew, which changes what the header must carry
    const now = await ask("GET", "/api/me");
    if (now.name !== person) throw new Refused(401, "NotLoggedIn", `${now.name} has logged in in another tab`);
    if (now.csrf !== used) {
      csrf = now.csrf;
      return ask(method, path, body, true);
    }
  }
  if (!response.ok) throw new Refused(response.status, answer.kind, answer.error);
  return answer;
}

async function answerOf(response) {
  // What the queue says. Something else on the way to it, such as a proxy's page, has no say in what is kept.
  const answer = await response.json().catch(() => null);
  if (answer === null || (!response.ok && typeof answer.kind !== "string")) {
    throw new Unreachable(`${response.status} without an answer of the queue`);
  }
  return answer;
}

const remember = (me) => {
  csrf = me.csrf;
  person = me.name;
  return me;
};

export const logIn = async (name, password) => remember(await ask("POST", "/api/login", { name, password }));
export const waysToLogIn = () => ask("GET", "/api/login");
export const beginElsewhere = () => ask("POST", "/api/login/oidc");
export const finishElsewhere = async (answer) => remember(await ask("POST", "/api/login/oidc/finish", answer));
export const me = async () => remember(await ask("GET", "/api/me"));
export const logOut = () => ask("POST", "/api/logout");
export const claim = (body) => ask("POST", "/api/tickets/claim", body);
export const tickets = (query) => ask("GET", `/api/tickets?${new URLSearchParams(query)}`);
export const heartbeat = (id, token) => ask("POST", `/api/tickets/${id}/heartbeat`, { token });
export const release = (id, token) => ask("POST", `/api/tickets/${id}/release`, { token });
export const finish = (id, token, outcome) => ask("POST", `/api/tickets/${id}/finish`, { token, outcome });
export const operations = (id, token, acts) => ask("POST", `/api/tickets/${id}/operations`, { token, operations: acts });
export const operationsOf = (id) => ask("GET", `/api/tickets/${id}/operations`);
export const versions = (id) => ask("GET", `/api/tickets/${id}/versions`);
export const warm = (id, token, frameIdx) => ask("POST", `/api/tickets/${id}/warm`, { token, frame_idx: frameIdx });
export const loadModel = () => ask("POST", "/api/live");
export const masklet = (id) => ask("GET", `/api/tickets/${id}/masklet`);
export const newObject = (id, body) => ask("POST", `/api/tickets/${id}/objects`, body);
export const others = (id) => ask("GET", `/api/tickets/${id}/others`);
export const recent = () => ask("GET", "/api/me/recent");
export const unsubmit = (id, body) => ask("POST", `/api/tickets/${id}/unsubmit`, body);
export const figures = () => ask("GET", "/api/figures");
export const branches = () => ask("GET", "/api/branches");
export const inHands = () => ask("GET", "/api/tickets?state=leased&limit=500");
export const endLease = ({ ticket_id, lease_token }) =>
  ask("POST", `/api/tickets/${ticket_id}/end-lease`, { token: lease_token });
export const people = () => ask("GET", "/api/people");
export const setPerson = (body) => ask("POST", "/api/people", body);
export const disable = (name, disabled) => ask("POST", `/api/people/${name}/disable`, { disabled });
export const issueToken = (name, scopes) => ask("POST", `/api/people/${name}/tokens`, { scopes });
export const revokeTokens = (name) => ask("DELETE", `/api/people/${name}/tokens`);
export const video = (id) => ask("GET", `/api/videos/${id}`);
export const stats = () => ask("GET", "/api/stats");

export async function* refine(id, token, operation, signal) {
  // The model's answer to an operation, event by event: kept, frame …, done or failed. Aborting cancels the work.
  // While the model is at work the queue says "alive" every few seconds: silence is a dead connection.
  const silence = new AbortController();
  let timer;
  const listen = () => {
    clearTimeout(timer);
    timer = setTimeout(() => silence.abort(), PATIENCE_MS);
  };
  listen();
  let rest = "";
  let ended = false;
  try {
    const response = await retried(() =>
      fetch(`/api/tickets/${id}/refine`, {
        method: "POST",
        headers: { "Content-Type": "application/json", ...(csrf ? { "X-CSRF-Token": csrf } : {}) },
        credentials: "same-origin",
        signal: AbortSignal.any([signal, silence.signal]),
        body: JSON.stringify({ token, operation }),
      }),
    );
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let part; !(part = await reader.read()).done; ) {
      listen();
      const lines = (rest + part.value).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        const event = JSON.parse(line);
        ended ||= event.event === "done" || event.event === "failed";
        yield event;
      }
    }
  } catch (error) {
    throw error instanceof Refused ? error : new Unreachable(error.message);
  } finally {
    clearTimeout(timer);
  }
  if (!ended) throw new Unreachable("the answer broke off");
}

async function retried(send) {
  // The answer to a request that may not be sent by `ask`; once more if another tab has logged in anew.
  for (let again = false; ; again = true) {
    const used = csrf;
    let response;
    try {
      response = await send();
    } catch (error) {
      throw new Unreachable(error.message);
    }
    if (response.ok) return response;
    if (response.status >= 500) throw new Unreachable(`${response.status}`);
    if (response.status === 403 && !again && person !== null) {
      const now = await ask("GET", "/api/me");
      if (now.name !== person) throw new Refused(401, "NotLoggedIn", `${now.name} has logged in in another tab`);
      if (now.csrf !== used) {
        csrf = now.csrf;
        continue;
      }
    }
    const answer = await answerOf(response);
    throw new Refused(response.status, answer.kind, answer.error);
  }
}

export async function frame(videoId, frameIdx, signal) {
  // The JPEG of exactly this frame, as a Blob.
  let response;
  try {
    response = await fetch(`/api/videos/${videoId}/frames/${frameIdx}.jpg`, { credentials: "same-origin", signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Unreachable(error.message);
  }
  if (response.status >= 500) throw new Unreachable(`${response.status}`);
  if (!response.ok) throw new Refused(response.status, "", `frame ${frameIdx}: error ${response.status}`);
  return response.blob();
}
