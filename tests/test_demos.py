"""The table of demos: one row for each run, also for one whose round did not come."""

from benchmarks import demos

BATCH = {
    "accepted": 1,
    "candidates": 4,
    "candidates_jf": 21.0,
    "clicks": 30,
    "masklets": 10,
    "edited_frames": 50,
    "modelled_s": 900.0,
    "annotated_frames": 60,
}
ROUND = {
    "jf_before": 0.4,
    "jf_after": 0.65,
    "interval": [0.2, 0.3],
    "promoted": False,
    "reasons": ["clearly worse on size=small"],
    "general_before": 0.5,
    "general_after": None,
}
RUN = {"domain": "belt", "seed": 2, "round": ROUND, "batches": [BATCH, BATCH | {"accepted": 2}]}


def test_a_row_shows_what_the_round_and_the_second_batch_changed():
    learned = ("40.0 → 65.0", "+25.0, +20.0 to +30.0", "no: clearly worse on size=small", "")
    work = ("25.0 → 50.0", "21.0 → 21.0", "3.0 → 3.0", "5.0 → 5.0", "15.0 → 15.0")
    assert demos.row(RUN) == ("belt, 2", *learned, *work)


def test_a_run_without_a_round_has_a_row_too():
    without = RUN | {"round": None, "batches": [BATCH | {"masklets": 0, "candidates_jf": None}]}
    assert demos.row(without)[1:5] == ("", "", "no round", "")
    assert demos.page([RUN, without]).count("| belt, 2 |") == 2
