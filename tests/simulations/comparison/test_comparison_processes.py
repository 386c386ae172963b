import os
from pathlib import Path

import pytest
from fake_cells import RUN_CELL, comparison

from personalization.errors import UserError
from simulations.comparison.engine_processes import run_in_processes
from simulations.comparison.engine_ray import run_under_ray
from simulations.comparison.processes import call_apart
from simulations.comparison.work import Outcome


def outcomes(scratch: Path, *methods: str, jobs: int = 2, seeds: int = 2) -> dict[tuple[str, int], Outcome]:
    cells = {cell.key: cell for _, cell in comparison(*methods, seeds=seeds).cells()}
    found = list(run_in_processes(list(cells.values()), run_cell=RUN_CELL, jobs=jobs, scratch=scratch))
    assert sorted(outcome.key for outcome in found) == sorted(cells)
    return {(cells[outcome.key].method, cells[outcome.key].seed): outcome for outcome in found}


def test_a_process_that_dies_fails_its_cell_alone(tmp_path: Path) -> None:
    found = outcomes(tmp_path, "mean", "killed", "left", "refused", "median")
    for seed in (0, 1):
        assert "SIGKILL" in found["killed", seed].error
        assert "exit code 3" in found["left", seed].error
        assert found["refused", seed].error == "not with this method"
        for method in ("mean", "median"):
            result = found[method, seed].result
            assert result is not None
            assert result["threads"] == "1"
            assert result["pid"] != os.getpid()


def test_cells_of_one_fleet_share_a_process(tmp_path: Path) -> None:
    found = outcomes(tmp_path, "mean", "median", "krum", jobs=1)
    results = [outcome.result for outcome in found.values() if outcome.result]
    assert len({result["pid"] for result in results}) == 1
    assert list(tmp_path.iterdir()) == []


def test_closing_the_iterator_ends_the_processes(tmp_path: Path) -> None:
    cells = [cell for _, cell in comparison("mean", seeds=3).cells()]
    running = run_in_processes(cells, run_cell=RUN_CELL, jobs=1, scratch=tmp_path)
    first = next(running)
    running.close()
    assert first.result is not None
    with pytest.raises(ProcessLookupError):
        os.kill(first.result["pid"], 0)


def test_what_is_called_apart_returns_and_raises_as_it_would_here() -> None:
    assert call_apart("json:loads", {"s": '{"a": [1.5]}'}) == {"a": [1.5]}
    with pytest.raises(UserError, match="'nonsense': unknown"):
        call_apart("strategies.registry:canonical", {"spec": "nonsense"})
    with pytest.raises(RuntimeError, match="exit code"):
        call_apart("os:_exit", {"status": 4})


@pytest.mark.slow
def test_ray_computes_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    cells = {cell.key: cell for _, cell in comparison("mean", "refused", "left", seeds=1).cells()}
    under_ray = {
        cells[outcome.key].method: outcome for outcome in run_under_ray(list(cells.values()), run_cell=RUN_CELL, jobs=1)
    }
    assert under_ray["refused"].error == "not with this method"
    assert under_ray["left"].result is None
    here = outcomes(tmp_path, "mean", seeds=1)["mean", 0].result
    there = under_ray["mean"].result
    assert here is not None
    assert there is not None
    accuracies = [[row["personal_accuracy"] for row in result["clients"]] for result in (here, there)]
    assert accuracies[0] == accuracies[1]
