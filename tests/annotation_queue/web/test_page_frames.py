"""The frames of a video in the browser: what is decoded, and what is given up."""

from __future__ import annotations

import pytest

# Two tickets leave the screen: one while a frame is fetched, one while it is decoded. How often a frame was decoded,
# and how many of the decoded frames are still there.
RESTING = """
async () => {
  const { Frames } = await import("/web/shared/frames.js");
  const turn = () => new Promise((done) => setTimeout(done));
  const [decoded, closed] = [[], []];
  let decode;
  window.createImageBitmap = () => new Promise((done) => {
    decoded.push(1);
    decode = () => done({ width: 1, height: 1, close: () => closed.push(1) });
  });
  let come;
  const fetched = new Frames("video", [0], () => new Promise((done) => (come = done)));
  fetched.want(0);
  fetched.rest();
  come(new Blob());
  await turn();
  const whileFetched = decoded.length;
  const other = new Frames("video", [0], async () => new Blob());
  other.want(0);
  await turn();
  other.rest();
  decode();
  await turn();
  const open = decoded.length - closed.length;
  other.limit = 1;
  other.want(0);
  await turn();
  decode();
  await turn();
  return { whileFetched, open, again: other.ready(0) !== null };
}
"""


def test_a_ticket_that_left_the_screen_keeps_no_decoded_frame(open_page):
    assert open_page().tab.evaluate(RESTING) == {"whileFetched": 0, "open": 0, "again": True}


# A queue that begins to send a frame and then falls silent: until the browser's patience ends, or until nobody wants
# the frame any more.
SILENT = """
async (ends) => {
  const { frame, Unreachable } = await import("/web/shared/api.js");
  const [patience, wish] = [new AbortController(), new AbortController()];
  AbortSignal.timeout = () => patience.signal;
  window.fetch = async (_, { signal }) => new Response(new ReadableStream({
    pull(body) {
      if (ends === "patience") patience.abort(new DOMException("", "TimeoutError"));
      else wish.abort();
      if (signal.aborted) body.error(signal.reason);
      else body.close();
    },
  }));
  return frame("video", 0, wish.signal)
    .then(() => "a frame", (error) => (error instanceof Unreachable ? "no answer" : error.name));
}
"""


@pytest.mark.parametrize(("ends", "what"), [("patience", "no answer"), ("wish", "AbortError")])
def test_a_frame_that_does_not_come_is_given_up(open_page, ends, what):
    assert open_page().tab.evaluate(SILENT, ends) == what
