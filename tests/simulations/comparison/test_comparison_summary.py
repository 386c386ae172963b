import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_cells import LAYERS, SCENARIO, client_row, comparison, round_row, run_cell
from rich.console import Console

from simulations.comparison.cells import Cell
from simulations.comparison.comparison import Comparison
from simulations.comparison.measures import RUN_METRICS, measure
from simulations.comparison.results import FINAL, TIMING, ResultsTable
from simulations.comparison.summary import METRICS, Collected, summarize
from simulations.report.comparison.metrics import metrics_of
from simulations.report.comparison.quality import IMAGES, TEXT
from simulations.report.comparison.table import comparison_tables, failed_lines


def result(*clients: dict[str, Any], **changes: Any) -> dict[str, Any]:
    found = {
        "clients": list(clients),
        "rounds": [],
        "privacy": "none",
        "fleet": [],
        "model": {"layer_names": LAYERS},
        "settings": {},
        "timing": {"wall_seconds": 2.0, "cpu_seconds": 1.0},
    }
    return {**found, **changes}


def collected(wanted: Comparison, folder: Path, **changed: Any) -> Collected:
    found = Collected(wanted)
    for point, cell in wanted.cells():
        found.add(point, cell, {**run_cell(cell, folder), **changed})
    return found


def rows_of(summary: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["method"]: row for row in summary["rows"]}


@pytest.mark.parametrize(
    ("lost", "target", "wanted"),
    [
        ([0.2, 0.1, 0.0], 0.1, 2.0),
        ([0.2, 0.1, 0.0], 0.0, 3.0),
        ([-0.1, 0.1], 0.01, 1.0),
        ([0.2, 0.1], 0.05, None),
    ],
)
def test_the_target_is_reached_in_the_first_round_near_the_fitted_dense_model(
    lost: list[float], target: float, wanted: float | None
) -> None:
    # The loss is split over two clients, one of whom is above the target in every round.
    rounds = [
        round_row(number, client, 0.95 - loss + sign * 0.3)
        for number, loss in enumerate(lost, 1)
        for client, sign in ((0, 1), (1, -1))
    ]
    rounds.append(round_row(1, 1, None, status="dropped"))
    found = measure(result(client_row(0, 0.9), client_row(1, 0.9), rounds=rounds[::-1]), target_loss=target)
    assert found.run["rounds_to_target"] == wanted
    assert found.reached is (wanted is not None)


def test_attackers_count_nowhere() -> None:
    honest = result(client_row(0, 0.9), rounds=[round_row(1, 0, 0.5)])
    attacked = {**honest, "rounds": [*honest["rounds"], round_row(1, 7, 0.95, status="attacker")]}
    assert measure(attacked, target_loss=0.01) == measure(honest, target_loss=0.01)


def test_a_run_without_rounds_has_no_rounds_to_target() -> None:
    found = measure(result(client_row(0, 0.95)), target_loss=0.01)
    assert (found.run["rounds_to_target"], found.reached) == (None, None)


@pytest.mark.parametrize(
    ("fleet", "sent", "wanted"),
    [
        (
            [{"failures": {}, "uplink_bytes": 300, "replies": 3}, {"failures": {}, "uplink_bytes": 100, "replies": 1}],
            9,
            100,
        ),
        ([], 0, 0.0),
        ([], 9, None),
    ],
)
def test_bytes_of_a_round_are_per_reply(fleet: list[dict[str, Any]], sent: int, wanted: float | None) -> None:
    found = measure(result(client_row(0, 0.9, uplink_bytes=sent), fleet=fleet), target_loss=0.01)
    assert found.run["uplink_bytes"] == wanted
    assert found.clients["uplink_bytes_total"] == {0: sent}


def test_failures_are_summed_and_layers_shared() -> None:
    fleet = [{"failures": {"late": 1, "garbled": 2}, "uplink_bytes": 1, "replies": 1}] * 2
    rows = [client_row(0, 0.9, personalized_layers=LAYERS), client_row(1, 0.9, personalized_layers=LAYERS[1:])]
    found = measure(result(*rows, fleet=fleet), target_loss=0.01)
    assert found.failures == {"garbled": 4, "late": 2}
    assert found.personal == (0.5, 1.0)
    assert measure(result(client_row(0, 0.9, personalized_layers=[])), target_loss=0.01).personal == ()


def test_differences_are_paired_by_seed_and_client() -> None:
    wanted = comparison("mean", "median")
    found = Collected(wanted)
    accuracies = np.random.default_rng(0).random((2, 6))
    for point, cell in wanted.cells():
        base = accuracies[cell.seed] + (0.125 if cell.method == "median" else 0.0)
        rows = [client_row(client, float(accuracy)) for client, accuracy in enumerate(base)]
        if cell.method == "median":
            rows = [*rows[:0:-1], client_row(9, 0.0)]  # in another order, one missing, one that the first hasn't got
        found.add(point, cell, result(*rows))
    rows_ = rows_of(summarize(found, command=""))
    assert rows_["mean"]["metrics"]["difference"] is None
    difference = rows_["median"]["metrics"]["difference"]
    assert [difference[key] for key in ("mean", "low", "high")] == pytest.approx([0.125] * 3)


def test_changes_are_paired_with_the_first_point_of_the_sweep() -> None:
    wanted = comparison("mean", "median", budgets=(0.3, 0.5))
    found = Collected(wanted)
    accuracies = np.random.default_rng(0).random((2, 6)) / 2
    for point, cell in wanted.cells():
        lost = 0.25 * point if cell.method == "mean" else 0.0
        rows = [client_row(client, float(a) + 0.25 - lost) for client, a in enumerate(accuracies[cell.seed])]
        found.add(point, cell, result(*rows))
    rows_ = {(row["point"], row["method"]): row["metrics"]["change"] for row in summarize(found, command="")["rows"]}
    assert rows_[0, "mean"] is rows_[0, "median"] is None
    assert [rows_[1, "mean"][key] for key in ("mean", "low", "high")] == pytest.approx([-0.25] * 3)
    assert [rows_[1, "median"][key] for key in ("mean", "low", "high")] == pytest.approx([0.0] * 3)


def test_a_summary_holds_all_that_was_compared(tmp_path: Path) -> None:
    wanted = comparison("mean", "median", "arm:dense", seeds=3, budgets=(0.3, 0.5))
    found = collected(wanted, tmp_path)
    summary = summarize(found, command="fedsieve compare --seeds 3")
    assert [(row["point"], row["method"]) for row in summary["rows"]] == [
        (point, method) for point in (0, 1) for method in ("mean", "median", "arm:dense")
    ]
    assert summary["sweep"] == {"budget": [0.3, 0.5]}
    assert summary["points"] == [{"settings": {"budget": b}, "label": f"budget={b}"} for b in (0.3, 0.5)]
    assert summary["seeds"] == [0, 1, 2]
    assert summary["command"] == "fedsieve compare --seeds 3"
    assert summary["versions"]["torch"]
    for row in summary["rows"]:
        assert set(row["metrics"]) == set(METRICS)
        assert row["settings"] == {
            "budget": summary["points"][row["point"]]["settings"]["budget"],
            "strategy": row["method"],
        }
        assert (row["cells"], row["failed"]) == (3, [])
        for value in row["metrics"].values():
            assert value is None or value["low"] <= value["mean"] <= value["high"]
    row = summary["rows"][0]
    accuracies = [[r["personal_accuracy"] for r in run_cell(cell, tmp_path)["clients"]] for _, cell in wanted.cells()][
        :3
    ]
    assert row["metrics"]["personal_accuracy"]["mean"] == pytest.approx(np.mean(accuracies))
    assert row["metrics"]["worst_decile"]["mean"] == pytest.approx(np.mean(np.min(accuracies, axis=1)))
    assert row["late"]["personal_accuracy"]["mean"] == pytest.approx(np.mean([seed[3] for seed in accuracies]))
    assert row["failures"] == {"garbled": 3}
    assert row["personal_share"] == [0.5, 0.0]
    arm = summary["rows"][2]
    assert (arm["kind"], arm["reached"], arm["metrics"]["rounds_to_target"]) == ("arm", None, None)


def test_the_swept_target_is_the_one_that_counts(tmp_path: Path) -> None:
    wanted = comparison("mean")
    (point,) = wanted.points
    strict = Comparison(
        methods=wanted.methods,
        scenario=wanted.scenario,
        sweep={"target_loss": (0.0, 1.0)},
        points=tuple(
            type(point)(settings={"target_loss": t}, scenario={**SCENARIO, "target_loss": t}) for t in (0.0, 1.0)
        ),
        seeds=wanted.seeds,
    )
    summary = summarize(collected(strict, tmp_path, rounds=[round_row(1, 1, 0.9)]), command="")
    assert [row["reached"] for row in summary["rows"]] == [0.0, 1.0]
    assert [row["metrics"]["rounds_to_target"] is None for row in summary["rows"]] == [True, False]


def test_every_metric_is_known_to_the_page(tmp_path: Path) -> None:
    assert set(METRICS) == {name for quality in (IMAGES, TEXT) for name, _, _ in metrics_of(quality)}
    assert set(RUN_METRICS) < set(METRICS)


def test_results_have_a_row_for_each_client_and_round_and_the_final_one(tmp_path: Path) -> None:
    wanted = comparison("mean", seeds=1)
    table = ResultsTable(["budget"])
    point = type(wanted.points[0])(settings={"budget": 0.5}, scenario=SCENARIO)
    cell = Cell(method="mean", scenario=SCENARIO, seed=0)
    found = run_cell(cell, tmp_path)
    table.add(point, cell, found)
    rows = list(csv.DictReader(io.StringIO(table.to_bytes().decode())))
    assert [(row["round"], row["client"]) for row in rows] == [
        *((number, client) for number in "12" for client in (("1", "2", "4") if number == "1" else ("1", "2"))),
        *((FINAL, client) for client in "0123"),
    ]
    assert list(rows[0])[-len(TIMING) :] == list(TIMING)
    for row, client in zip([row for row in rows if row["round"] == FINAL], found["clients"], strict=True):
        assert float(row["personal_accuracy"]) == client["personal_accuracy"]
        assert (row["late"], row["fit_r2"], row["set:budget"]) == (str(client["late"]).lower(), "", "0.5")
        assert row["classes"].split() == [str(entry) for entry in client["classes"]]
    attacker = rows[2]
    assert (attacker["status"], attacker["personal_accuracy"], attacker["device"]) == ("attacker", "", "")


def test_the_tables_fit_a_terminal_and_show_failures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = comparison("trimmed-mean:attackers=0.3", "median", "arm:dense")
    found = collected(wanted, tmp_path)
    del found.measures[0, "median", 1]
    found.failed[0, "median", 1] = "[red]no client replied"
    summary = summarize(found, command="")
    Console(width=80).print(*comparison_tables(summary))
    shown = capsys.readouterr().out
    for text in ("trimmed-mean:attackers=0.3", "median (1 cell failed)", "dense", "2 seeds, 95 % interval", "600 B"):
        assert text in shown
    assert "…" not in shown
    assert failed_lines(summary) == ["median, fake, seed 1: [red]no client replied"]
