import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_cells import RUN_CELL, Serially, comparison, run_cell

from personalization.errors import UserError
from simulations.comparison.cells import Cell
from simulations.comparison.results import TIMING
from simulations.comparison.run import Engine, Progress, make_engine, run_comparison


def run(out: Path, *methods: str, engine: Engine | None = None, **changes: Any) -> dict[str, Any]:
    wanted = comparison(*methods, **changes)
    return run_comparison(wanted, out=out, engine=engine or Serially(), command="fedsieve compare")


def without_times(path: Path) -> list[dict[str, str]]:
    rows = list(csv.DictReader(io.StringIO((path / "results.csv").read_text())))
    return [{key: value for key, value in row.items() if key not in TIMING} for row in rows]


def test_the_same_comparison_twice_differs_in_the_timing_columns_alone(tmp_path: Path) -> None:
    for name in ("first", "again"):
        run(tmp_path / name, "mean", "median", "arm:dense", budgets=(0.3, 0.5))
    assert without_times(tmp_path / "first") == without_times(tmp_path / "again")
    texts = [(tmp_path / name / "results.csv").read_text().splitlines() for name in ("first", "again")]
    assert texts[0] != texts[1]
    cut = [[line.rsplit(",", len(TIMING))[0] for line in text] for text in texts]
    assert cut[0] == cut[1]


def test_what_is_there_is_not_computed_again(tmp_path: Path) -> None:
    first = Serially()
    run(tmp_path, "mean", "median", engine=first)
    assert sorted(first.computed) == [("mean", 0), ("mean", 1), ("median", 0), ("median", 1)]
    for engine, methods, changes, wanted in (
        (Serially(), ("mean", "median"), {}, []),
        (Serially(), ("median", "krum"), {}, [("krum", 0), ("krum", 1)]),
        (Serially(), ("mean",), {"seeds": 3}, [("mean", 2)]),
        (Serially(), ("mean",), {"budgets": (0.5, 0.6)}, [("mean", 0), ("mean", 1)]),
    ):
        run(tmp_path, *methods, engine=engine, **changes)
        assert sorted(engine.computed) == wanted


def test_what_comes_from_the_cache_reads_as_what_was_computed(tmp_path: Path) -> None:
    summary = run(tmp_path, "mean", "median")
    results = (tmp_path / "results.csv").read_bytes()
    assert run(tmp_path, "mean", "median") == summary
    assert (tmp_path / "results.csv").read_bytes() == results
    assert json.loads((tmp_path / "summary.json").read_text()) == summary


def test_an_interrupted_comparison_goes_on_where_it_stopped(tmp_path: Path) -> None:
    stopped, rest = Serially(most=3), Serially()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "mean", "median", engine=stopped)
    assert not (tmp_path / "summary.json").exists()
    run(tmp_path, "mean", "median", engine=rest)
    assert len(rest.computed) == 1
    assert not set(rest.computed) & set(stopped.computed)
    run(tmp_path / "whole", "mean", "median")
    assert without_times(tmp_path) == without_times(tmp_path / "whole")


def test_a_failing_cell_is_told_kept_out_of_the_figures_and_tried_again(tmp_path: Path) -> None:
    told: list[Progress] = []
    wanted = comparison("mean", "refused", "broken", "not-a-number")
    engine = Serially()
    summary = run_comparison(wanted, out=tmp_path, engine=engine, command="", on_cell=told.append)
    rows = {row["method"]: row for row in summary["rows"]}
    assert rows["refused"]["failed"] == [{"seed": seed, "error": "not with this method"} for seed in (0, 1)]
    assert rows["broken"]["failed"][0]["error"] == "ZeroDivisionError: a fault of ours"
    assert "ValueError" in rows["not-a-number"]["failed"][0]["error"]
    assert (rows["mean"]["cells"], rows["mean"]["failed"], rows["broken"]["cells"]) == (2, [], 0)
    assert all(value is None for value in rows["broken"]["metrics"].values())
    assert {row["method"] for row in without_times(tmp_path)} == {"mean"}
    assert sorted(p.done for p in told) == list(range(1, 9))
    traces = [p.trace.read_text() for p in told if p.cell.method == "broken" and p.trace]
    assert len(traces) == 2
    assert all("raise ZeroDivisionError" in text and '"seed"' in text for text in traces)
    again = Serially()
    run(tmp_path, "mean", "refused", engine=again)
    assert sorted(again.computed) == [("refused", 0), ("refused", 1)]


def test_a_cell_that_works_at_last_leaves_no_trace_of_its_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def works(cell: Cell, folder: Path) -> dict[str, Any]:
        return run_cell(replace(cell, method="mean"), folder)

    run(tmp_path, "broken", seeds=1)
    assert len(list((tmp_path / "failed").iterdir())) == 1
    monkeypatch.setattr("fake_cells.run_cell", works)
    assert run(tmp_path, "broken", seeds=1)["rows"][0]["cells"] == 1
    assert not list((tmp_path / "failed").iterdir())


def test_nothing_is_left_of_what_runs_write(tmp_path: Path) -> None:
    run(tmp_path, "mean", "broken")
    assert {path.name for path in tmp_path.iterdir()} == {
        "cells",
        "failed",
        "compare.json",
        "results.csv",
        "summary.json",
    }
    assert len(list((tmp_path / "cells").iterdir())) == 2


@pytest.mark.parametrize(("name", "jobs", "word"), [("proceses", 1, "processes, ray"), ("ray", 0, "jobs 0")])
def test_refuses_engines_that_there_are_not(name: str, jobs: int, word: str) -> None:
    with pytest.raises(UserError, match=word):
        make_engine(name, jobs=jobs, run_cell=RUN_CELL)
