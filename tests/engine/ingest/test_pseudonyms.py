"""Pseudonyms of people in releases: the same everywhere in a store, and not to be guessed without its key."""

from engine.ingest import pseudonyms
from storage.blobs.folder import LocalBlobs


def test_a_person_has_one_pseudonym_in_a_store_and_another_one_elsewhere(tmp_path):
    here, there = LocalBlobs(tmp_path / "here"), LocalBlobs(tmp_path / "there")
    ann, again = pseudonyms.of(here)("ann"), pseudonyms.of(here)("ann")
    assert ann == again and ann.startswith("person-") and "ann" not in ann
    assert len({ann, pseudonyms.of(here)("vera"), pseudonyms.of(there)("ann")}) == 3


def test_two_machines_that_make_the_key_at_once_agree(tmp_path, monkeypatch):
    blobs = LocalBlobs(tmp_path)
    real = LocalBlobs.create

    def late(self, key, data):
        real(self, key, b"of the other machine, and first!")
        return real(self, key, data)

    monkeypatch.setattr(LocalBlobs, "create", late)
    assert pseudonyms.of(blobs)("ann") == pseudonyms.of(LocalBlobs(tmp_path))("ann")
    assert blobs.read(pseudonyms.KEY).startswith(b"of the other")


def test_a_verifier_is_no_person(tmp_path):
    assert pseudonyms.of(LocalBlobs(tmp_path))("verifier-0001-0123abcd") == "verifier-0001-0123abcd"
