import json
from pathlib import Path
from typing import Any

import pytest
from fake_cells import SCENARIO

from personalization.errors import UserError
from simulations.comparison import cells
from simulations.comparison.cache import check_folder, opened_cache
from simulations.comparison.cells import Cell

CELL = Cell(method="median", scenario=SCENARIO, seed=0)
RESULT: dict[str, Any] = {"clients": [{"client": 0, "personal_accuracy": 1 / 3}], "timing": {}}


def kept(out: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((out / "cells").iterdir())]


def test_a_result_comes_back_as_it_was(tmp_path: Path) -> None:
    with opened_cache(tmp_path / "out") as cache:
        assert not cache.holds(CELL)
        cache.save(CELL, RESULT)
    with opened_cache(tmp_path / "out") as cache:
        assert cache.load(CELL) == RESULT
        assert not cache.holds(Cell(method="mean", scenario=SCENARIO, seed=0))
    (path,) = (tmp_path / "out" / "cells").iterdir()
    assert Cell.from_record(json.loads(path.read_text())["cell"]) == CELL


@pytest.mark.parametrize("text", ["", "{", "[]", '{"result": 1}', "{}"])
def test_a_damaged_cell_is_run_again(text: str, tmp_path: Path) -> None:
    with opened_cache(tmp_path) as cache:
        (tmp_path / "cells" / f"{CELL.key}.json").write_text(text)
        assert not cache.holds(CELL)


@pytest.mark.parametrize("changed", [("CELL_FORMAT", 99), ("version", lambda name: "99.0")])
def test_refuses_cells_of_another_version_and_keeps_them(
    changed: tuple[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened_cache(tmp_path) as cache:
        cache.save(CELL, RESULT)
    before = kept(tmp_path)
    monkeypatch.setattr(cells, *changed)
    monkeypatch.setattr(f"simulations.comparison.cache.{changed[0]}", changed[1])
    with pytest.raises(UserError, match=r"holds cells of fedsieve .*99.*kept"), opened_cache(tmp_path):
        pass
    assert kept(tmp_path) == before


@pytest.mark.parametrize("text", ["", "{}", "[1]", "null"])
def test_refuses_a_damaged_version_file(text: str, tmp_path: Path) -> None:
    (tmp_path / "compare.json").write_text(text)
    with pytest.raises(UserError, match="damaged"):
        check_folder(tmp_path)


def test_refuses_folders_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="a file"):
        check_folder(tmp_path / "file")
    with pytest.raises(UserError, match="something else"):
        check_folder(tmp_path)
    assert (tmp_path / "file").read_text() == "mine"
    check_folder(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_one_comparison_at_a_time(tmp_path: Path) -> None:
    with opened_cache(tmp_path):
        (tmp_path / "work" / "running").mkdir()
        with pytest.raises(UserError, match="another comparison runs"), opened_cache(tmp_path):
            pass
        assert (tmp_path / "work" / "running").exists()
    with opened_cache(tmp_path) as cache:
        assert list(cache.scratch.iterdir()) == []
