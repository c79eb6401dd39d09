"""Which folder may import which, who may import the heavy libraries, and no circle between modules."""

import pytest

from tests import tiers, tree

#: A library that only these folders may import.
ONLY_IN = {"airflow": {"dags"}, "torch": {"model"}, "transformers": {"model"}, "fastapi": {"annotation_queue"}}

MODULES = tree.files()
ARROWS = tree.graph(MODULES)


def test_imports_between_folders_point_down():
    assert tree.arrows_up(ARROWS) == []


def test_no_modules_import_each_other_in_a_circle():
    assert tree.circles(ARROWS) == []


def test_no_rooms_import_each_other_in_a_circle():
    assert tree.room_circles(ARROWS) == []


def test_the_rooms_of_the_engine_import_only_rooms_further_left_on_the_page():
    page = (tree.ROOT / "docs" / "architecture.md").read_text()
    line = next(line for line in page.splitlines() if line.count("◄──") > 5)
    place = {room.strip(): n for n, column in enumerate(line.split("◄──")) for room in column.split(",")}
    assert set(place) == {path.parent.name for path in (tree.ROOT / "engine").glob("*/__init__.py")}
    for module, imported in ARROWS.items():
        for other in imported:
            mine, its = (tree.room(name).removeprefix("engine.") for name in (module, other))
            if mine in place and its in place and mine != its:
                assert place[its] < place[mine], f"{module} imports {other}"


@pytest.mark.parametrize("module", MODULES)
def test_heavy_libraries_stay_in_their_folders(module):
    folder = module.partition(".")[0]
    for each in tree.imports(MODULES[module]):
        library = each.name.partition(".")[0]
        if not each.for_types and library in ONLY_IN:
            assert folder in ONLY_IN[library], f"only {ONLY_IN[library]} may import {library}"


def test_the_trainer_is_called_by_the_one_fine_tuning_run_and_by_the_module_that_made_micro():
    callers = {module for module, path in MODULES.items() if "trainer.train(" in path.read_text()}
    assert callers == {"engine.rounds.training", "engine.demo.micro"}


def test_dag_files_import_the_engine_only_inside_tasks():
    for module, path in MODULES.items():
        if module.startswith("dags"):
            assert [
                i.name for i in tree.imports(path) if i.at_top and not i.for_types and i.name.startswith("engine")
            ] == []


@pytest.mark.parametrize("module", ["model.training.samples", "engine.datasets.clip_sampler"])
def test_a_process_that_draws_training_samples_loads_no_transformers(module):
    """It would cost each of them six seconds and 175 MB."""
    assert not tiers.imports_any(MODULES[module], frozenset({"transformers"}))
    assert tiers.imports_any(MODULES["model.training.trainer"], frozenset({"transformers"}))


@pytest.mark.parametrize("path", sorted((tree.ROOT / "tests").rglob("conftest.py")), ids=str)
def test_the_fixtures_of_a_folder_import_no_torch_for_its_fast_tests(path):
    assert not tiers.imports_any(path)


def test_the_graph_is_read_from_real_files():
    assert len(MODULES) > 80
    assert "storage.records" in ARROWS["storage.arrow"]


def test_circles_and_arrows_up_are_found():
    assert tree.circles({"a": frozenset("b"), "b": frozenset("c"), "c": frozenset("a"), "d": frozenset("a")}) == [
        ["a", "b", "c"]
    ]
    by_way_of_a_file = {"engine.rounds.a": frozenset({"engine.b"}), "engine.b": frozenset({"engine.rounds.c"})}
    assert tree.room_circles(by_way_of_a_file) == [["engine.b", "engine.rounds"]]
    assert tree.arrows_up({"storage.rle": frozenset({"model.masks"}), "model.masks": frozenset({"storage.rle"})}) == [
        "storage.rle imports model.masks"
    ]
