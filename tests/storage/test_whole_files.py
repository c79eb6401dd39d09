"""Files that appear whole or not at all."""

import os

import pytest

from storage.whole_files import complete


@pytest.mark.parametrize("one_writer", [False, True])
def test_a_file_appears_when_it_is_complete(tmp_path, one_writer):
    path = tmp_path / "new" / "a.json"
    with pytest.raises(KeyboardInterrupt), complete(path, one_writer=one_writer) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert list(path.parent.iterdir()) == []
    with complete(path, one_writer=one_writer, flushed=True) as temporary:
        temporary.write_text("whole")
        assert temporary.suffix == ".json"  # writers of pictures choose the format by it
        assert not path.exists()
    assert [(p.name, p.read_text()) for p in path.parent.iterdir()] == [("a.json", "whole")]


def test_only_one_writer_has_always_the_same_temporary_name(tmp_path):
    def name(path, **how):
        with complete(tmp_path / path, **how) as temporary:
            temporary.touch()
        return temporary.name

    assert name("state.pt", one_writer=True) == name("state.pt", one_writer=True) != name("other.pt", one_writer=True)
    assert name("state.pt") != name("state.pt")


def test_flushed_bytes_are_on_the_disk_before_the_old_file_is_replaced(tmp_path, monkeypatch):
    path = tmp_path / "state.pt"
    path.write_text("old")
    seen = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: seen.append((os.fstat(descriptor).st_size, path.read_text())))
    with complete(path, flushed=True) as temporary:
        temporary.write_text("newer")
    assert seen == [(5, "old")] and path.read_text() == "newer"
