"""The command `verifier`: fits, shows and explains."""

import json

from engine.verifier import keeping
from tests.engine.verifier import reviewed

BATCH = "a" * 16


def test_the_verifier_is_fitted_and_shown(s, command, mistake):
    assert "no verifier yet" in mistake("verifier")
    reviewed.review(s.blobs, BATCH, reviewed.candidates(BATCH), 1)
    fitted = json.loads(command("verifier", "--fit", "--json"))
    assert fitted["verifier_id"] == keeping.ids(s.blobs)[-1]
    assert fitted["figures"]["auroc"]["value"] == 1
    assert json.loads(command("verifier", "--json")) == fitted
    shown = [line.split("\t") for line in command("verifier").splitlines()]
    assert shown[0][0] == f"{fitted['verifier_id']}: 100 candidates of 10 videos"
    cells = {row[0]: row[1:] for row in shown if len(row) == 3}
    assert cells["AUROC"] == ["1.000", "1.000 to 1.000"] and cells["people agree"][0] == "not measured"
    saved = fitted["figures"]["saved"]["value"]
    assert cells["reviews saved, %"][0] == f"{100 * saved:.1f}" and saved >= 0.34
    right = fitted["figures"]["saved_precision"]["value"]
    assert cells["right among them (98 % wanted), %"][0] == f"{100 * right:.1f}" and right > 0.9
    assert shown[-1] == ["sure to accept: nothing; sure to reject: nothing; sure to correct: nothing"], (
        "34 candidates prove no 98 %"
    )


def test_too_few_verdicts_are_one_line(s, mistake):
    reviewed.review(s.blobs, BATCH, reviewed.candidates(BATCH, 12), 1)
    assert mistake("verifier", "--fit").startswith("masklets: a verifier needs 60 verdicts")
