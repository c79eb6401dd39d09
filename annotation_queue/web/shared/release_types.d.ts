// The answers of the API about releases (annotation_queue/release_records.py), for release.js, release_video.js and
// release_masks.js.

import type { VideoInfo } from "./types.js";

export interface Releases {
  alone: boolean; // this server shows releases only: there is no queue
  releases: { name: string; videos: number; masklets: number }[];
}

export interface ReleaseMasklet {
  masklet_id: string;
  video_id: string;
  kind: string;
  phase: string;
  label: string | null;
  split: string;
  checkpoint: string;
  annotated_by: string | null;
  verified_by: string | null;
  verdict: string | null;
  size: string; // "small", "medium", "large"; "": no frame shows the object
  area_px: number;
  shown: number; // annotated frames that show the object
  frames: number;
  score: number | null;
  edited: number; // frames
  clicks: number;
  best: number; // frame_idx of the largest mask
  disagreement: number | null; // share of the verdicts that differ from the most frequent one
}

export interface ReleasePage {
  masklets: ReleaseMasklet[];
  next: string | null;
  looked: number;
}

export interface ReleaseVideo {
  info: VideoInfo;
  masklets: ReleaseMasklet[];
}

export interface ReleaseMasks {
  first: number; // frame_idx
  end: number;
  masklets: { frame_idx: number[]; rle: string[] }[]; // in the order of the video's masklets, without empty masks
}
