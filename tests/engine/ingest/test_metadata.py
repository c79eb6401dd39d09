"""Tables beside the videos: what is read, what is refused, and what reaches splits, slices and exports."""

import json
import shutil
import threading
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.datasets import layouts
from engine.ingest import ingest, metadata, splits
from engine.ingest.sources import list_files
from engine.services import connect
from engine.settings import IngestSettings, Settings
from storage import rle
from storage.blobs.folder import LocalBlobs
from storage.formats import sav
from tests.storage.made_videos import make, numbered
from tests.storage.rows import make_masklet

OURS = IngestSettings(held_out_share=0.3, near_duplicates=False)


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


@pytest.fixture
def s(tmp_path):
    with connect(Settings(home=tmp_path / "home", ingest=OURS)) as services:
        yield services


def read(folder) -> metadata.Metadata:
    blobs = LocalBlobs(folder)
    return metadata.read(blobs, {key for key, _ in blobs.entries()}, OURS, lambda key: key.endswith(".mp4"))


def values(found: metadata.Metadata) -> dict[str, dict]:
    return {key: json.loads(row.values) for key, row in found.rows.items()}


def test_cells_become_numbers_and_truth_values_by_column_and_names_stay_text(source):
    (source / "metadata.csv").write_text(
        "\ufefffile_name;author;environment;iso;lux;tripod;code;empty\r\n"
        "a.mp4;007;Indoor;100;1.5;true;12;\r\n"
        "sub/b.mp4; 8 ;Outdoor;;2;FALSE;A7;\r\n"
        '".\\c.mp4";;;;;;;\r\n'
    )
    assert values(read(source)) == {
        "a.mp4": {"author": "007", "video_environment": "Indoor", "iso": 100, "lux": 1.5, "tripod": True, "code": "12"},
        "sub/b.mp4": {"author": "8", "video_environment": "Outdoor", "lux": 2.0, "tripod": False, "code": "A7"},
        "c.mp4": {},
    }


def test_a_parquet_table_says_the_same_as_one_of_text_and_keeps_lists_and_dates(source):
    table = pa.table(
        {
            "file_name": ["a.mp4", "b.mp4"],
            "iso": pa.array([100, None]),
            "lux": pa.array([1.5, float("nan")]),
            "day": pa.array([date(2024, 2, 1), None]),
            "tags": pa.array([["x", "y"], None]),
        }
    )
    pq.write_table(table, source / "metadata.parquet")
    assert values(read(source)) == {
        "a.mp4": {"iso": 100, "lux": 1.5, "day": "2024-02-01", "tags": ["x", "y"]},
        "b.mp4": {},
    }


def test_the_nearest_table_describes_a_video(source):
    (source / "in").mkdir()
    (source / "metadata.csv").write_text("file_name,country\na.mp4,DE\nin/b.mp4,DE\n")
    (source / "in" / "metadata.csv").write_text("file_name,country\nb.mp4,FR\n")
    assert values(read(source)) == {"a.mp4": {"country": "DE"}, "in/b.mp4": {"country": "FR"}}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b"name,country\na.mp4,DE\n", "it has no column file_name, only 'name', 'country'"),
        (b"", "it has no column file_name, only none"),
        (b"file_name,country\na.mp4,M\xfcnchen\n", "it is not UTF-8"),
        (b"file_name,x,x\na.mp4,1,2\n", "two columns are called 'x'"),
        (b"file_name,x\na.mp4,1,2\n", "row 2 has 3 cells, the header 2"),
        (b'file_name,x\na.mp4,"1\n', "unexpected end of data"),
        (b"file_name,faces_blurred\na.mp4,1\n", "a column is called 'faces_blurred', which ingest writes itself"),
    ],
)
def test_a_table_that_cannot_be_read_is_one_line_and_its_videos_wait(source, text, line):
    (source / "in").mkdir()
    (source / "in" / "metadata.csv").write_bytes(text)
    found = read(source)
    assert found.bad == [("in/metadata.csv", f"{line}; the videos below it wait")]
    assert found.waits("in/deeper/a.mp4") and not found.waits("a.mp4")


def test_two_tables_in_a_folder_and_a_broken_parquet_file_are_refused(source):
    (source / "metadata.parquet").write_bytes(b"no table")
    assert read(source).bad[0][1].startswith("it is no Parquet file: ")
    (source / "metadata.csv").write_text("file_name\n")
    assert {line for _, line in read(source).bad} == {
        "a folder has one table: metadata.csv or metadata.parquet; the videos below it wait"
    }


@pytest.mark.parametrize(
    ("column", "why"),
    [
        (pa.array([3_000_000], pa.int32()).cast(pa.date32()), "date value out of range"),
        (pa.array([b"caf\xe9"]).view(pa.string()), "'utf-8' codec can't decode byte 0xe9"),
    ],
    ids=["a day after the year 9999", "not UTF-8"],
)
def test_a_parquet_value_that_python_cannot_hold_costs_no_other_table(source, column, why):
    (source / "in").mkdir()
    (source / "metadata.csv").write_text("file_name,country\na.mp4,DE\n")
    pq.write_table(pa.table({"file_name": ["b.mp4"], "x": column}), source / "in" / "metadata.parquet")
    found = read(source)
    ((table, line),) = found.bad
    assert table == "in/metadata.parquet" and line.startswith(f"its column 'x' cannot be read: {why}")
    assert values(found) == {"a.mp4": {"country": "DE"}} and found.waits("in/b.mp4")


def test_a_row_names_a_file_in_either_form_of_unicode_if_only_one_is_meant(source):
    """macOS writes the dots of an ö as a character of its own, spreadsheets do not."""
    nfc, nfd = "k\N{LATIN SMALL LETTER O WITH DIAERESIS}ln", "ko\N{COMBINING DIAERESIS}ln"
    (source / nfd).mkdir()
    (source / nfd / f"{nfd}.mp4").touch()
    (source / "metadata.csv").write_text(f"file_name,author,split\n{nfc}/{nfc}.mp4,Ann,val\n", encoding="utf-8")
    found = read(source)
    assert (values(found), found.notes) == ({f"{nfd}/{nfd}.mp4": {"author": "Ann"}}, [])
    assert found.rows[f"{nfd}/{nfd}.mp4"].split == "val"

    for name in (nfc, nfd):
        (source / f"{name}.mp4").touch()
    (source / "metadata.csv").write_text(f"file_name,x\n{nfc}.mp4,1\n{nfd}.mp4,2\n", encoding="utf-8")
    assert values(read(source)) == {f"{nfc}.mp4": {"x": 1}, f"{nfd}.mp4": {"x": 2}}

    (source / f"{nfd}.mp4").unlink()
    assert read(source).rows[f"{nfc}.mp4"].problem == "row 2 and row 3 name the same file"


def test_an_impossible_row_is_a_problem_of_its_video_only(source):
    (source / "metadata.csv").write_text(
        "file_name,author,split,x\n"
        "a.mp4,Ann,train,1\n"
        "b.mp4,ann,val,1\n"
        "c.mp4,Bob,trian,1\n"
        "d.mp4,,,1\n"
        "d.mp4,,,2\n"
        "e.mp4,,,1\n"
        "e.mp4,,,1\n"
        ",,,1\n"
        "../f.mp4,,,1\n"
    )
    found = read(source)
    assert {key: row.problem for key, row in found.rows.items()} == {
        "a.mp4": None,
        "b.mp4": "split 'val', but the author has 'train' in row 2",
        "c.mp4": "split 'trian' is not one of train, val, test",
        "d.mp4": "row 5 and row 6 name the same file",
        "e.mp4": None,
    }
    assert [line for _, line in found.bad] == [
        "row 9 names no file below the table's folder: ''",
        "row 10 names no file below the table's folder: '../f.mp4'",
    ]


def test_rows_without_a_video_and_videos_without_a_row_are_noted(source):
    for name in ("a.mp4", "b.mp4", "c.mp4", "note.txt"):
        (source / name).touch()
    (source / "metadata.csv").write_text("file_name,x\na.mp4,1\nd.mp4,1\n")
    assert read(source).notes == [
        "metadata.csv: 1 row names no file, first row 3: d.mp4",
        "metadata.csv: 2 videos have no row, first b.mp4",
    ]


def test_rows_without_any_cell_say_nothing(source):
    """Spreadsheets write them at the end."""
    (source / "a.mp4").touch()
    (source / "metadata.csv").write_text("file_name,x\n,\na.mp4,1\n\n,\n")
    found = read(source)
    assert (found.bad, found.notes, found.rows["a.mp4"].at) == ([], [], "metadata.csv, row 3")


def test_a_video_is_noted_at_its_nearest_table_alone(source):
    (source / "in" / "deep").mkdir(parents=True)
    for name in ("a.mp4", "in/b.mp4", "in/deep/c.mp4"):
        (source / name).touch()
    (source / "metadata.csv").write_text("file_name,x\na.mp4,1\n")
    (source / "in" / "metadata.csv").write_text("file_name,x\nb.mp4,1\n")
    assert read(source).notes == ["in/metadata.csv: 1 video has no row, first in/deep/c.mp4"]


def test_a_corrected_row_is_judged_again_and_another_place_in_the_table_is_not(s, source):
    (source / "a.mp4").touch()
    marks = set()
    for text in ("file_name,x\na.mp4,1\n", "file_name,x\nb.mp4,3\na.mp4,1\n", "file_name,x\na.mp4,2\n"):
        (source / "metadata.csv").write_text(text)
        marks.add(next(f.marker for f in list_files(s, LocalBlobs(source)).files if f.key == "a.mp4"))
    assert len(marks) == 2


@pytest.mark.slow
def test_what_a_table_says_reaches_the_dataset_and_nothing_of_it_is_lost_on_the_way(s, source):
    for n, name in enumerate(("a", "b", "c")):
        make(source / f"{name}.mp4", [numbered(i + 30 * n) for i in range(24)])
    (source / "metadata.csv").write_text(
        "file_name,author,environment,country,split\na.mp4,Ann Lee,Indoor,DE,val\nb.mp4,Bob,,,trian\n"
    )
    pieces = ingest.plan(s, str(source))
    for piece in pieces:
        ingest.admit_piece(s, piece)
    rows = {row.source_uri[-5:]: row for row in s.tables.videos()}
    author = splits.pseudonym(s.blobs, "ann  LEE")
    assert json.loads(rows["a.mp4"].source_metadata or "") == {
        "author": author,
        "video_environment": "Indoor",
        "country": "DE",
    }
    assert "Ann" not in rows["a.mp4"].source_metadata and rows["a.mp4"].split == "val"
    assert rows["c.mp4"].source_metadata is None
    (bad,) = s.tables.quarantine()
    assert (bad.subject, bad.reason) == (f"{source}/b.mp4", "metadata")
    assert bad.detail == "metadata.csv, row 3: split 'trian' is not one of train, val, test"
    a = rows["a.mp4"]
    masks = tuple(rle.encode(np.ones((a.height, a.width), dtype=bool)) for _ in range(3))
    written = sav.to_sav(a, [make_masklet(video_id=a.video_id, height=a.height, width=a.width, rle=masks)])
    assert (written["video_environment"], written["country"], written["video_split"]) == ("Indoor", "DE", "val")
    assert layouts._metadata(rows["a.mp4"].source_metadata)["environment"] == "Indoor"

    (source / "metadata.csv").write_text("file_name,author,country,split\na.mp4,Ann Lee,FR,val\nb.mp4,Bob,,train\n")
    report = ingest.admit(s, str(source))
    assert (report.admitted, report.quarantined, report.unchanged) == (1, 1, 1)
    late = s.tables.quarantine(where=f"subject == '{source}/a.mp4'")
    assert [row.detail for row in late] == [
        "metadata.csv, row 2: it came after the video was admitted, so nothing changes: country"
    ]
    assert report.notes == ("metadata.csv: 1 video has no row, first c.mp4",)
    assert ingest.admit(s, str(source)).unchanged == 3
    (source / "metadata.csv").write_text(f"file_name,split\nc.mp4,{rows['c.mp4'].split}\n")
    assert ingest.admit(s, str(source)).quarantined == 0, "the row says what is so already"


@pytest.mark.slow
def test_videos_below_a_broken_table_wait_and_are_admitted_once_it_is_repaired(s, source):
    make(source / "a.mp4", [numbered(i) for i in range(24)])
    shutil.copy(source / "a.mp4", source / "without-a-suffix")
    (source / "metadata.csv").write_text("name,country\na.mp4,DE\n")
    report = ingest.admit(s, str(source))
    assert (report.admitted, report.quarantined, report.postponed) == (0, 1, 2)
    (source / "without-a-suffix").unlink()
    again = ingest.admit(s, str(source))
    assert (again.quarantined, again.unchanged, again.postponed) == (0, 0, 1)
    assert ingest.plan(s, str(source)) == []
    (source / "metadata.csv").write_text("file_name,country\na.mp4,DE\n")
    assert ingest.admit(s, str(source)).admitted == 1


def test_several_tables_are_read_at_once(source, monkeypatch):
    for folder in ("a", "b"):
        (source / folder).mkdir()
        (source / folder / "metadata.csv").write_text("file_name,country\nx.mp4,DE\n")
    both, read_one = threading.Barrier(2), LocalBlobs.read

    def waiting(self, key, *more):
        both.wait(timeout=10)  # for the other one; an error if there is none
        return read_one(self, key, *more)

    monkeypatch.setattr(LocalBlobs, "read", waiting)
    assert set(read(source).rows) == {"a/x.mp4", "b/x.mp4"}
