// The records of the queue's API, as JSON carries them, and what the page keeps of them. For the type checker only:
// no browser loads this file. The server's side is annotation_queue/records.py and annotation_queue/api.

import type { HeldTicket } from "./held.js";
import type { Player } from "../canvas/player.js";

export type Kind = "select" | "track" | "verify";
export type Verdict = "accept" | "refine" | "reject" | "unsure";
export type Reason =
  | "not_an_object"
  | "wrong_boundary"
  | "identity_switch"
  | "drift"
  | "missed_reappearance"
  | "duplicate"
  | "untrackable"
  | "objectionable"
  | "other";

export type Point = [x: number, y: number];
export type Colour = [red: number, green: number, blue: number]; // 0 to 255
export type Rgba = [red: number, green: number, blue: number, alpha: number]; // 0 to 255
export type Box = [x0: number, y0: number, x1: number, y1: number];

export interface Me {
  name: string;
  roles: string[];
  skills: string[];
  csrf: string | null;
  lease_s: number;
  heartbeat_s: number;
  fps: number;
  stride: number; // annotated frames are every `stride`-th
  reasons: Reason[]; // in the order of the keys 1 to 9
  live: boolean; // a model answers clicks
  watch: Watch;
  keys: Record<string, string>; // that the person chose, by action
  projects: string[]; // that the person belongs to
}

/** How much of a masklet must have been on screen before the page takes a verdict. */
export interface Watch {
  watch_share: number; // of the frames with the object, to accept
  watch_fault_share: number; // of them, for every other verdict
  watch_least: number; // frames
}

export interface Claim {
  claim_id: string;
  kinds?: Kind[];
  project?: string; // only tickets of this one
  ticket_id?: string;
}

export interface Ticket {
  ticket_id: string;
  project: string; // "": none
  batch_id: string;
  kind: Kind;
  video_id: string;
  masklet_id: string | null;
  phase: string;
  payload: string; // Rules, as JSON
  made_by: string | null;
  needs_lead: boolean;
  rework: boolean; // about a person's masklet that was sent back
  lease_token: number;
  leased_by: string | null;
  state: "open" | "leased" | "done";
  verdict: Verdict | null; // of a ticket that is done; null: its answer was a masklet
  reasons: Reason[];
  finished_by: string | null;
}

export interface Rules {
  prompts?: string[];
  ontology?: string; // the version of the one whose classes the object may get
  label_at?: "never" | "select" | "verify"; // which tickets need a label
  begun_by?: string; // the person who began this object beside another one
  pinned?: { frame_idx: number | null; by: string; reasons: Reason[]; verdict?: Verdict; text?: string };
}

export interface VideoInfo {
  video_id: string;
  height: number;
  width: number;
  frame_count: number;
  fps: number;
  name: string; // of the source's file; "": not known
}

export interface Batch {
  batch_id: string;
  opened_at: number; // s since the epoch
  name: string; // of the folder that its videos came from; "": not known
  project: string; // "": none
}

export interface Masklet {
  masklet_id?: string;
  video_id: string;
  batch_id: string;
  height: number;
  width: number;
  frame_idx: number[];
  rle: string[];
  area_px: number[];
  score: number[];
  object_score: number[];
  stability: number[];
  kind: string;
  phase: string;
  checkpoint: string;
  round: number;
  prompt: string;
  parent_id: string | null;
  edited_frame_count: number;
  click_count: number;
  split: string;
  annotated_by?: string | null;
  label?: string | null;
  attributes?: string | null; // Record<string, Value>, as JSON
}

export type Value = string | boolean | number; // of an attribute

/** What is said of an object. */
export interface Label {
  name: string | null; // its class
  attributes: Record<string, Value>;
}

export interface Attribute {
  name: string;
  kind: "choice" | "boolean" | "number" | "text";
  values: string[]; // of a choice
  required: boolean;
}

export interface ObjectClass {
  name: string;
  colour: string; // #rrggbb
  key: string | null;
  guideline: string; // Markdown
  attributes: Attribute[];
  instances?: "numbered" | "one"; // left out: a video may have many
}

export interface Ontology {
  name: string;
  guidelines: string; // Markdown
  classes: ObjectClass[];
  attributes: Attribute[]; // of every class
  pictures: Record<string, unknown>; // by the address in the Markdown
}

export interface FrameMask {
  frame_idx: number;
  rle: string;
  area_px: number;
  score: number;
  object_score: number;
  stability: number;
}

export interface Prompt {
  points_xy: Point[];
  labels: number[];
  box_xyxy?: Box;
}

// What an operation carries; which keys are there depends on its kind.
export interface Payload extends Partial<Prompt> {
  operation_id?: string; // undo, redo, stop: the operation it is about
  mask_rle?: string; // stroke
  on?: boolean; // lock
  first?: number; // absent, propagate: frame_idx
  last?: number | null; // absent, propagate, stop: frame_idx
  spare?: number; // stop: frame_idx that the propagation does not change
  direction?: "forward" | "backward" | "both"; // propagate
  masks?: Record<string, string>; // submit: frame_idx → RLE
  label?: string | null; // label: the class
  attributes?: Record<string, Value>; // label
}

export interface Operation {
  operation_id: string;
  kind: string;
  frame_idx: number | null;
  payload: Payload;
  created_at: string; // ISO 8601
}

export type SentOperation = Omit<Operation, "payload"> & { payload: string };
export type KeptOperation = SentOperation & { ticket_id: string; video_id: string; person: string };

/** A batch that the pipeline cannot take further until somebody acts. */
export interface PlannedPhase {
  project: string; // "": none
  phase: string;
  state: "done" | "current" | "planned";
  masklets: number;
  planned_masklets: number | null;
  retrainings: number;
  planned_retrainings: number;
}

export interface Stuck {
  batch_id: string;
  stage: string;
  error: string;
  since: number; // s since the epoch
}

export interface Version {
  frames: FrameMask[];
  checkpoint: string;
  round: number;
  complete?: boolean; // false: of a propagation that is under way, or was cut off
}

export interface Submission {
  operation_id: string;
  created_at: string;
  verdict?: Verdict;
  reasons: Reason[];
  last_operation_id?: string; // the masklet follows from the ticket's operations up to this; "": from none
  frame_idx: number;
  seconds: number;
  watched: number; // share of the frames with the object that were on screen
  text?: string; // what the person adds to their reasons
  same_as?: string; // masklet_id of the object that this one is the same as
}

export interface NewComment {
  comment_id: string;
  text: string;
  created_at: string; // ISO 8601
  frame_idx: number | null;
  x: number | null; // px of the video
  y: number | null;
}

export type Comment = NewComment & { ticket_id: string; person: string };

export interface Recent {
  ticket_id: string;
  kind: Kind;
  video_id: string;
  verdict: Verdict | null;
  reasons: Reason[];
  finished_at: number; // s since the epoch
}

export interface HistoryPage {
  answers: Recent[];
  next: string | null; // asks for the page after this one; null: this is the last
}

// Another object of the same video.
export interface Other {
  masklet_id?: string | null;
  frame_idx: number[];
  rle: string[];
  score: number[];
  settled: Verdict | null;
}

export type RefineEvent =
  | { event: "kept"; seq: number; frames: number; made: number } // at most so many frames, of which so many were made before
  | { event: "alive" }
  | { event: "frame"; frame: FrameMask }
  | { event: "done"; checkpoint: string; round: number; frames: number }
  | { event: "failed"; why: string; error: string };

export interface Count {
  kind: Kind;
  state: "open" | "leased" | "done";
  needs_lead: boolean;
  tickets: number;
}

export interface Stats {
  counts: Count[]; // none for annotators and verifiers
  paces: { person: string; finished: number; seconds: number | null }[]; // of the last hour
}

export interface Share {
  right: number;
  of: number;
  low: number;
  high: number;
}

export interface BatchProgress {
  batch_id: string;
  kind: Kind;
  open: number;
  leased: number;
  done: number;
  per_hour: number;
  expected_s: number | null;
}

export interface WorkFigures {
  name: string;
  answers: number;
  verdicts: Record<string, number>;
  seconds_per_ticket: number | null;
  seconds_per_frame: number | null;
  clicks_per_clicked_frame: number | null;
  edited_frames_share: number | null;
  first_pass: Share | null;
  agreement: number | null;
  masklet_iou: number | null;
}

export interface GoldFigures {
  person: string;
  kind: Kind;
  accuracy: Share;
}

export interface JudgingFigures {
  person: string;
  verdicts: number;
  median_s: number | null;
  watched: number | null;
  accepts: Share;
  agreement: number | null;
  shared: number;
  gold: Share | null;
  flags: string[];
}

export interface Figures {
  at: number; // s since the epoch
  batches: BatchProgress[];
  people: WorkFigures[];
  makers: WorkFigures[];
  phases: WorkFigures[];
  checkpoints: WorkFigures[];
  labels: WorkFigures[];
  projects: WorkFigures[];
  total: WorkFigures;
  gold: GoldFigures[];
  judging: JudgingFigures[];
}

export interface Account {
  name: string;
  roles: string[];
  skills: string[];
  disabled: boolean;
  tokens: unknown[];
}

// --- what leads see of all tickets ------------------------------------------------------------------------------------

export interface Card {
  ticket: Ticket & {
    state: "open" | "leased" | "done";
    priority: number;
    attempt: number;
    verdict: Verdict | null;
    reasons: Reason[];
    finished_by: string | null;
    label: string | null;
    attributes: string | null; // JSON object
    next_ticket_id: string | null;
    expires_at: number | null;
  };
  created_at: number; // s since the epoch
  finished_at: number | null;
  seconds: number | null;
  settled: Verdict | null;
  score: number | null; // 0 to 1
  agreement: number | null; // 0 to 1
  assigned_to: string | null;
  assigned_by: string | null;
  reopened_by: string | null;
  gold: boolean;
}

export interface CardPage {
  cards: Card[];
  looked: number; // tickets that were looked at
  next: string | null;
}

export interface Lease {
  token: number;
  person: string;
  claimed_at: number; // s since the epoch
  finished_at: number | null;
  verdict: Verdict | null;
  reasons: Reason[];
  seconds: number | null;
  watched: number | null;
  ended_by: string | null;
}

export interface Logged {
  operation: KeptOperation;
  received_at: number; // s since the epoch
  token: number;
  branch: boolean; // the lease was over: it counts nowhere
  closed: "applied" | "dismissed" | null;
}

export interface AuditEntry {
  at: number; // s since the epoch
  actor: string;
  action: string;
  detail: string; // JSON
}

export interface History {
  card: Card;
  line: Card[]; // the tickets of the same object, in order
  leases: Lease[];
  operations: Logged[];
  versions: (Version & { operation_id: string })[];
  acts: AuditEntry[];
}

/** What a lead does to tickets. */
export interface Act {
  act_id: string;
  action: "assign" | "take back" | "prioritise" | "reopen";
  ticket_ids: string[];
  to?: string;
  priority?: number;
  kind?: Kind;
  frame_idx?: number;
}

export interface ActResult {
  ticket_id: string;
  done: boolean;
  said: string;
}

export interface Batch {
  batch_id: string;
  opened_at: number; // s since the epoch
  total: number;
  remaining: number;
  drained: boolean;
}

// --- on the way to the queue -----------------------------------------------------------------------------------------

interface Addressed {
  person: string;
  ticketId: string;
  token: number; // of the lease
}

// "refine" is an operation that the model answers.
export type Parcel = Addressed &
  (
    | { what: "operation" | "refine"; body: SentOperation }
    | { what: "finish"; body: Submission }
    | { what: "comment"; body: NewComment }
    | { what: "release"; body: null }
  );

export type OutboxItem = Parcel & {
  id: string;
  at: number; // orders the items of a ticket
  tab?: string; // the tab that sends it
  stored?: boolean; // it is on this computer's disk, or cannot be
  kept?: boolean; // the queue has it; the model's answer is still to come
  cancelled?: boolean; // nobody waits for the model's answer any more
};

/** What the pointer draws between press and release, on one frame, px of the video; or the picture being moved. */
export type Drag =
  | { kind: "pan"; at: Point }
  | { kind: "box"; frame: number; from: Point; to: Point }
  | { kind: "stroke"; frame: number; last: Point; bits: Uint8Array; value: 0 | 1 };

/** What the desk works on. */
export interface DeskScreen {
  player: Player;
  marks: HTMLCanvasElement; // the canvas above the picture
  stage: HTMLElement; // what holds both
}

export interface DeskListeners {
  onact: (held: HeldTicket, operation: Operation) => void; // an operation was made
  onchange: () => void; // the draft or the tool has changed
  onnotice: (text: string) => void; // a person should read this
}
