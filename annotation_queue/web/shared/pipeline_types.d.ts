// The answers of the API about the pipeline (annotation_queue/pipeline_records.py), for pipeline.js and quarantine.js.

import type { Batch, Stuck } from "./types.js";

export interface Oldest {
  ticket_id: string;
  kind: string;
  since: number; // s since the epoch, as all times here
  person: string | null;
}

export interface BatchTickets {
  batch: Batch;
  counts: { kind: string; state: "open" | "leased" | "done"; needs_lead: boolean; tickets: number }[];
  oldest_open: Oldest | null;
  oldest_held: Oldest | null;
  an_hour: number;
  expected_end: number | null;
}

export interface StageProgress {
  stage: string;
  done: number;
  of: number;
  noun: string;
  complete: boolean;
}

export interface RefusedRows {
  stage: string;
  reason: string;
  rows: number;
  examples: string[];
  detail: string;
}

export interface BatchStanding {
  batch_id: string;
  name: string;
  imported: boolean;
  videos: number;
  stages: StageProgress[];
  tickets: BatchTickets | null;
  stuck: Stuck[];
  quarantined: number;
  checkpoint: string | null;
  phase: string | null;
  waits_for: string;
  next: string;
  due: number | null;
  refused: RefusedRows[];
}

export interface PipelineView {
  at: number;
  batches: BatchStanding[];
  more: number;
  workers: {
    url: string | null;
    scheduler_seen: number | null;
    pools: { name: string; slots: number; running: number; queued: number }[];
    error: string | null;
  };
  serving: {
    checkpoint: string;
    round: number;
    live: string | null;
    times: { what: string; answers: number; mean_s: number; p95_s: number }[];
    error: string | null;
  };
  docs: { batch_id: string; built_at: number; pages: Record<string, string> }[];
}

export interface QuarantineRow {
  row_id: string;
  stage: string;
  subject: string;
  reason: string;
  detail: string;
  batch_id: string;
  release: string | null;
  acts: { act_id: string; action: "release" | "seen"; reason: string; by: string; at: string; why: string }[];
  waits: boolean;
  outcome: string | null;
}

export interface QuarantinePage {
  rows: QuarantineRow[];
  total: number;
  reasons: Record<string, number>;
  next: number | null;
}
