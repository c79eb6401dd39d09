"""Records as Parquet: every value comes back, the bytes are the same each time, and old files stay readable."""

from __future__ import annotations

import ast
import dataclasses
import inspect

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import arrow
from storage.records import Masklet, Operation, Quarantined, Video
from tests import tree

floats = st.floats(allow_nan=False)
operations = st.builds(
    Operation,
    **{name: st.text(max_size=8) for name in ("operation_id", "ticket_id", "batch_id", "video_id", "masklet_id")},
    person=st.text(max_size=5),
    kind=st.sampled_from(["prompt", "stroke"]),
    frame_idx=st.none() | st.integers(0, 10_000),
    payload=st.text(max_size=20),
    created_at=st.just("2026-01-01T00:00:00Z"),
    seq=st.integers(0, 100),
)


@settings(deadline=None, max_examples=40)
@given(st.lists(operations, max_size=4))
def test_any_operations_survive_the_round_trip(rows):
    assert arrow.from_parquet(Operation, arrow.to_parquet(Operation, rows)) == rows


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.binary(max_size=9), st.integers(0, 2**31 - 1), floats), max_size=5))
def test_any_lists_of_a_masklet_survive_the_round_trip(frames):
    row = Masklet(
        masklet_id="m",
        video_id="v",
        batch_id="b",
        height=1,
        width=1,
        frame_idx=tuple(range(0, 4 * len(frames), 4)),
        rle=tuple(f[0] for f in frames),
        area_px=tuple(f[1] for f in frames),
        score=tuple(f[2] for f in frames),
        object_score=tuple(-f[2] for f in frames),
        stability=tuple(f[2] for f in frames),
        kind="auto",
        phase="auto",
        round=0,
        checkpoint="c",
        prompt="{}",
    )
    assert arrow.from_parquet(Masklet, arrow.to_parquet(Masklet, [row])) == [row]


def test_videos_and_quarantine_records_survive_the_round_trip(video):
    rows = [video("v1"), video("v2", truth_key="videos/v2.truth.json", variable_rate=True)]
    assert arrow.from_parquet(Video, arrow.to_parquet(Video, rows)) == rows
    refused = [Quarantined(stage="ingest", subject="a.mp4", reason="unreadable", detail="é", batch_id="b")]
    assert arrow.from_parquet(Quarantined, arrow.to_parquet(Quarantined, refused)) == refused


def test_the_same_rows_give_the_same_bytes(masklet):
    rows = [masklet(f"m{n}") for n in range(300)]
    assert arrow.to_parquet(Masklet, rows) == arrow.to_parquet(Masklet, list(rows))


def test_rows_are_zstd_in_groups_that_one_reader_can_take(masklet):
    data = arrow.to_parquet(Masklet, [masklet(f"m{n}") for n in range(300)])
    metadata = pq.read_metadata(pa.BufferReader(data))
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [128, 128, 44]
    assert metadata.row_group(0).column(0).compression == "ZSTD"


def test_a_column_that_an_old_file_lacks_is_the_default(masklet):
    table = arrow.to_arrow(Masklet, [masklet(verdict=None)])
    old = table.drop_columns(["parent_id", "edited_frame_count", "split", "verdict"])
    assert arrow.from_arrow(Masklet, old) == [masklet(verdict=None)]


def test_a_null_where_the_record_has_a_default_is_the_default(masklet):
    table = arrow.to_arrow(Masklet, [masklet()])
    index = table.column_names.index("split")
    table = table.set_column(index, "split", pa.array([None], pa.string()))
    assert arrow.from_arrow(Masklet, table) == [masklet(split="train")]


def test_a_column_without_a_default_must_be_there(masklet):
    table = arrow.to_arrow(Masklet, [masklet()]).drop_columns(["rle"])
    with pytest.raises(ValueError, match="'rle'"):
        arrow.from_arrow(Masklet, table)


@pytest.mark.parametrize("record", [Video, Masklet, Operation, Quarantined])
def test_every_field_of_every_record_has_a_column(record):
    assert [f.name for f in arrow.schema(record)] == [f.name for f in dataclasses.fields(record)]


def _uses(module: ast.Module) -> set[tuple[str, str]]:
    """Every name that a module takes from `pyarrow.parquet` or `pyarrow.dataset`, with the code of its use."""
    aliases, found = set(), set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            aliases |= {a.asname or a.name for a in node.names if a.name in ("pyarrow.parquet", "pyarrow.dataset")}
        elif isinstance(node, ast.ImportFrom) and node.module == "pyarrow":
            aliases |= {a.asname or a.name for a in node.names if a.name in ("parquet", "dataset")}
        elif isinstance(node, ast.ImportFrom) and node.module in ("pyarrow.parquet", "pyarrow.dataset"):
            found |= {(a.name, "import") for a in node.names}
    for node in ast.walk(module):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in aliases:
            found.add((node.attr, ast.unparse(node)))
    return found


def test_one_module_reads_parquet_and_it_uses_no_thread_of_the_pool():
    """After a read with Arrow's thread pool, a process may abort at its exit: `benchmarks/exits.py` measures it."""
    used = {name: _uses(ast.parse(path.read_text())) for name, path in tree.files().items()}
    assert {name for name, names in used.items() if names} == {"storage.arrow"}
    assert {name for name, _ in used["storage.arrow"]} == {"ParquetFile", "ParquetWriter"}
    source = inspect.getsource(arrow)
    assert source.count("pq.ParquetFile") == source.count(".read(") == source.count(".read_row_group(") == 1
    assert source.count(", use_threads=False)") == 2


def test_other_ways_to_read_parquet_are_found():
    for code in (
        "import pyarrow.parquet as pq\npq.read_table(x)",
        "import pyarrow.parquet\npyarrow.parquet.ParquetDataset(x)",
        "from pyarrow import dataset as ds\nds.dataset(x)",
        "from pyarrow.parquet import read_table",
    ):
        assert len(_uses(ast.parse(code))) == 1, code


@pytest.mark.parametrize(
    ("kind", "lists"),
    [
        (pa.binary(), [[b"a", b"bc"], [], [b""], [b"zzz"] * 3]),
        (pa.int32(), [[1, 2], [], [3]]),
        (pa.int32(), [[1, None], [2]]),
        (pa.float64(), [[1.5], [], [2.5, 3.5]]),
        (pa.string(), [["a"], [], ["b", "c"]]),
        (pa.binary(), [None, [b"a"]]),
    ],
    ids=str,
)
def test_the_lists_of_a_column_are_those_of_arrow_wherever_it_was_cut(kind, lists):
    its = pa.list_(kind)
    whole = pa.chunked_array([pa.array(part, its) for part in (lists, [], lists[::-1])])
    for column in (whole, whole.slice(1, 3), whole.slice(len(lists)), whole.slice(0, 0), pa.chunked_array([], its)):
        assert arrow._values(column) == [v if v is None else tuple(v) for v in column.to_pylist()]
