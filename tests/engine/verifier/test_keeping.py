"""Verifiers in the store: what they learned from, and that they can be fitted again."""

import pytest

from engine.verifier import features, keeping
from engine.verifier.fitting import TooFewVerdicts
from engine.verifier.keeping import NoSuchVerifier
from storage.blobs import stores
from storage.blobs.base import BlobDamaged
from tests.engine.verifier.reviewed import candidates, review

pytestmark = pytest.mark.slow

A, B = "a" * 16, "b" * 16


@pytest.fixture
def blobs(tmp_path):
    return stores.connect(str(tmp_path / "store"), cache=tmp_path / "cache")


def test_a_verifier_is_kept_with_its_examples_and_fitted_again_from_them(blobs):
    release = review(blobs, A, candidates(A), 1)
    kept = keeping.refit(blobs, release, 0.98)
    assert kept == keeping.find(blobs, kept.verifier_id) and keeping.ids(blobs) == [kept.verifier_id]
    assert (kept.figures.candidates, kept.figures.accepted, kept.figures.videos) == (100, 34, 10)
    assert kept.figures.auroc.value == 1 and keeping.is_verifier(kept.verifier_id)
    new = candidates(B, 4)
    scores = keeping.load(blobs, kept.verifier_id).predict(features.table_of(new))
    assert [accept > 0.5 for accept in scores.accept] == [True, False, False, True]


def test_fitting_again_changes_nothing_until_there_are_new_verdicts(blobs):
    release = review(blobs, A, candidates(A), 1)
    first = keeping.refit(blobs, release, 0.98)
    before = list(blobs.keys())
    assert keeping.refit(blobs, release, 0.98) == first and list(blobs.keys()) == before
    later = review(blobs, B, candidates(B), 2)
    assert keeping.refit(blobs, release, 0.98) == first, "a verifier of an older release does not see newer verdicts"
    second = keeping.refit(blobs, later, 0.98)
    assert second.figures.candidates == 200 and keeping.ids(blobs) == [first.verifier_id, second.verifier_id]


def test_each_project_and_each_precision_has_verifiers_of_its_own(blobs):
    release = review(blobs, A, candidates(A), 1)
    first, strict = keeping.refit(blobs, release, 0.98), keeping.refit(blobs, release, 0.99)
    other = keeping.refit(blobs, review(blobs, B, candidates(B), 2, project="beta"), 0.98)
    assert keeping.newest(blobs, "", 0.98) == first.verifier_id, "not the newest of all"
    assert keeping.newest(blobs, "", 0.99) == strict.verifier_id
    assert keeping.newest(blobs, "beta", 0.98) == other.verifier_id
    assert keeping.newest(blobs, "beta", 0.99) is None


def test_what_was_proved_by_the_rules_of_an_earlier_version_no_longer_counts(blobs, monkeypatch):
    release = review(blobs, A, candidates(A), 1)
    monkeypatch.setattr(keeping, "PROOF", keeping.PROOF - 1)
    old = keeping.refit(blobs, release, 0.98)
    monkeypatch.undo()
    assert keeping.newest(blobs, "", 0.98) is None
    new = keeping.refit(blobs, release, 0.98)
    assert new.verifier_id != old.verifier_id, "its figures are measured again"
    assert keeping.newest(blobs, "", 0.98) == new.verifier_id
    blobs.delete(f"verifiers/{new.verifier_id}/about.json")
    assert keeping.newest(blobs, "", 0.98) is None, "the first version did not note it"


def test_a_verifier_with_other_features_is_not_fitted_again(blobs, monkeypatch):
    kept = keeping.refit(blobs, review(blobs, A, candidates(A), 1), 0.98)
    monkeypatch.setattr(keeping, "_FEATURES", "00000000")
    with pytest.raises(NoSuchVerifier, match="another version of this program made it"):
        keeping.load(blobs, kept.verifier_id)


def test_masks_are_read_once_a_batch(blobs, monkeypatch):
    release = review(blobs, A, candidates(A), 1)
    first = keeping.refit(blobs, release, 0.98)
    monkeypatch.setattr(keeping, "judged_of", None)
    assert keeping.refit(blobs, release, 0.98) == first


def test_only_the_newest_verdicts_are_learned_from(blobs, monkeypatch):
    review(blobs, A, candidates(A), 1)
    release = review(blobs, B, candidates(B), 2)
    monkeypatch.setattr(keeping, "MOST", 100)
    assert keeping.refit(blobs, release, 0.98).figures.candidates == 100
    assert not list(blobs.keys(f"verifiers/judged-{keeping._FEATURES}/{A}")), "the older batch was not even read"


def test_too_few_verdicts_give_no_verifier(blobs):
    release = review(blobs, A, candidates(A, 30), 1)
    with pytest.raises(TooFewVerdicts, match="there are 10 accepted"):
        keeping.refit(blobs, release, 0.98)
    assert keeping.ids(blobs) == []


def test_other_names_and_damaged_figures_are_refused(blobs):
    for name in ("verifier-0001-00000000", "../releases", "vera"):
        with pytest.raises(NoSuchVerifier):
            keeping.find(blobs, name)
    blobs.create("verifiers/verifier-0001-00000000/figures.json", b"{}")
    with pytest.raises(BlobDamaged, match=r"figures\.json"):
        keeping.find(blobs, "verifier-0001-00000000")
