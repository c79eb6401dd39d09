// A ticket's log as steps that can be gone through: the masks after each of them. Knows nothing of the document.
//
// The masks follow from the operations by the same code with which an annotator's page derives them: draft.js.

/** @import { History, Logged, Masklet, Operation, Prompt, VideoInfo } from "../shared/types.js" */
import { Draft } from "../shared/draft.js";
import { iou } from "../shared/rle.js";

export class Replay {
  /** @type {Map<number, string>} */ #masks = new Map(); // of #step
  #step = -1; // whose masks are in #masks; -1: of none
  /** @type {Operation[]} */ #parsed; // the log

  /**
   * @param {History} history
   * @param {Masklet | null} masklet  that the ticket is about
   * @param {VideoInfo} info
   * @param {number} stride  annotated frames are every so many
   */
  constructor({ card, operations, versions }, masklet, info, stride) {
    this.log = operations;
    this.#parsed = operations.map(parsed); // once: a log of thousands of drawn masks has many MB
    const count = Math.ceil(info.frame_count / stride);
    this.frames = masklet?.frame_idx ?? Array.from({ length: count }, (_, i) => i * stride);
    this.draft = new Draft(card.ticket, masklet, info, this.frames);
    for (const version of versions) this.draft.versions.set(version.operation_id, version);
  }

  /** How many steps there are: the ticket as it came is step 0, then one for each operation. */
  get length() {
    return this.log.length + 1;
  }

  /**
   * The masks after a step, by frame_idx.
   * @param {number} step
   */
  masksAt(step) {
    if (step !== this.#step) {
      this.draft.operations = this.#standing(step);
      this.draft.derive();
      this.#masks = new Map([...this.draft.masks].map(([frame, { rle }]) => [frame, rle]));
      this.#step = step;
    }
    return this.#masks;
  }

  /**
   * What a person had clicked on a frame after a step.
   * @param {number} step
   * @param {number} frameIdx
   * @returns {Prompt | undefined}
   */
  promptAt(step, frameIdx) {
    this.masksAt(step);
    return this.draft.prompts.get(frameIdx);
  }

  /** The frames whose masks a step changes, in order. @param {number} step */
  changedBy(step) {
    if (step === 0) return [];
    const before = this.masksAt(step - 1);
    const now = this.masksAt(step);
    return this.frames.filter((frame) => before.get(frame) !== now.get(frame));
  }

  /**
   * The operations that count after a step. Kept work counts nowhere, but while it is looked at, it is shown as if it had
   * come in time.
   * @param {number} step
   */
  #standing(step) {
    const last = this.log[step - 1];
    const isSeen = (/** @type {Logged} */ { branch, token }) => !branch || (last?.branch && token === last.token);
    return this.#parsed.slice(0, step).filter((_, n) => isSeen(this.log[n]));
  }
}

/** @param {Logged} logged @returns {Operation} */
const parsed = ({ operation }) => {
  const payload = JSON.parse(operation.payload);
  const { masklet } = payload;
  if (!masklet || payload.masks) return { ...operation, payload };
  const masks = Object.fromEntries(masklet.frame_idx.map((/** @type {number} */ i, /** @type {number} */ n) => [i, masklet.rle[n]]));
  return { ...operation, payload: { ...payload, masks } }; // a masklet that came late, as a whole
};

/**
 * How alike two versions of a masklet are: the IoU of each frame that one of them has, and the mean over the frames on
 * which one shows the object; null if none does.
 * @param {Map<number, string>} one
 * @param {Map<number, string>} other
 * @param {(rle: string) => number} area
 */
export function likeness(one, other, area) {
  /** @type {Map<number, number>} */
  const each = new Map();
  let [sum, count] = [0, 0];
  for (const frame of new Set([...one.keys(), ...other.keys()])) {
    const [a, b] = [one.get(frame), other.get(frame)];
    const shown = (a !== undefined && area(a) > 0) || (b !== undefined && area(b) > 0);
    const same = a !== undefined && b !== undefined ? iou(a, b) : shown ? 0 : 1;
    each.set(frame, same);
    if (shown) [sum, count] = [sum + same, count + 1];
  }
  return { each, mean: count ? sum / count : null };
}
