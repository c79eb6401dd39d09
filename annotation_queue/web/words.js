// What the page calls the kinds of work, the verdicts and their reasons.

export const VERDICTS = [
  { verdict: "accept", title: "Accept", hint: "right in every frame" },
  { verdict: "refine", title: "Refine", hint: "a clear object, to be corrected" },
  { verdict: "reject", title: "Reject", hint: "not a well-defined object" },
  { verdict: "unsure", title: "Unsure", hint: "a lead decides" },
];

export const REASONS = {
  not_an_object: "Not an object",
  wrong_boundary: "Wrong boundary",
  identity_switch: "Jumps to another object",
  drift: "Drifts off the object",
  missed_reappearance: "Misses its return",
  duplicate: "Same object as another",
  untrackable: "Cannot be tracked",
  objectionable: "Objectionable video",
  other: "Something else",
};
export const WHY = {
  refine: ["wrong_boundary", "identity_switch", "drift", "missed_reappearance", "other"],
  reject: ["not_an_object", "duplicate", "untrackable", "objectionable", "other"],
};

export const ASKS = {
  verify: { name: "Verify", question: "Is this mask right in every frame?" },
  track: { name: "Correct", question: "Make this masklet right in every frame." },
  select: { name: "Select", question: "Mask a challenging object that nobody has masked yet." },
};
