"""Strategies compared on a fleet of speakers: the same machinery as on images, judged by perplexity."""

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparison_summary import spread
from fake_cells import Serially, client_row, comparison
from rich.console import Console
from tiny_text import write_language_model, write_speakers

from personalization.errors import UserError
from simulations.comparison import cell as cells
from simulations.comparison.cell import run_cell
from simulations.comparison.cells import Cell
from simulations.comparison.comparison import Comparison
from simulations.comparison.plan import plan_comparison
from simulations.comparison.run import run_comparison
from simulations.comparison.work import Outcome
from simulations.report.comparison.headline import headline, worst_case
from simulations.report.comparison.markdown import markdown
from simulations.report.comparison.page import comparison_page
from simulations.report.comparison.table import comparison_tables
from simulations.report.units import format_bytes


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    write_language_model(folder / "model")
    write_speakers(folder / "speakers")
    file = folder / "tiny.toml"
    file.write_text(
        """
target_loss = 1.0

[fleet]
model = "model"
data = "speakers"
partition = "natural"
clients = 3
rounds = 1
fraction = 1.0
probes = 2
budget = 0.7
tolerance = 20.0
windows = 10
window_tokens = 16
"""
    )
    cells._worlds.cache_clear()
    return file


def plan(file: Path, **changes: Any) -> Comparison:
    chosen = {
        "strategies": "mean,median",
        "arms": "dense,uniform,one-cut,wanda,magnitude",
        "sweeps": [],
        "seeds": 1,
        "first_seed": 0,
    }
    return plan_comparison(scenario=str(file), **{**chosen, **changes})


class Here:
    """Runs the cells in this process, and counts them."""

    def __init__(self) -> None:
        self.ran = 0

    def __call__(self, wanted: list[Cell], *, scratch: Path) -> Any:
        for cell in wanted:
            folder = scratch / cell.key
            folder.mkdir()
            self.ran += 1
            yield Outcome(key=cell.key, result=run_cell(cell, folder))


@pytest.fixture(scope="module")
def compared(scenario: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    out = tmp_path_factory.mktemp("compared") / "out"
    return run_comparison(plan(scenario), out=out, engine=Here(), command="x"), out


def test_methods_are_compared_by_the_perplexity_that_is_left(compared: tuple[dict[str, Any], Path]) -> None:
    summary, out = compared
    assert summary["compared_by"] == "perplexity_ratio"
    rows = {row["method"]: row for row in summary["rows"]}
    assert not any(row["failed"] for row in summary["rows"])
    table = list(csv.DictReader(io.StringIO((out / "results.csv").read_text())))
    for method, row in rows.items():
        final = [line for line in table if (line["method"], line["round"]) == (method, "final")]
        own = [float(line["perplexity_ratio"]) for line in final]
        assert len(own) == 3
        assert row["metrics"]["perplexity_ratio"]["mean"] == pytest.approx(math.exp(np.mean(np.log(own))))
        assert row["metrics"]["worst_decile"]["mean"] == pytest.approx(max(own))
        assert row["metrics"]["personal_accuracy"] is None
    lossless = {"mean": 1.0, "low": 1.0, "high": 1.0}
    assert rows["arm:dense"]["metrics"]["perplexity_ratio"] == pytest.approx(lossless, rel=1e-4)
    ratio = rows["median"]["metrics"]["perplexity_ratio"]["mean"] / rows["mean"]["metrics"]["perplexity_ratio"]["mean"]
    assert rows["median"]["metrics"]["difference"]["mean"] == pytest.approx(ratio)
    judged = [line for line in table if line["method"] == "mean" and line["round"] == "1"]
    assert all(float(line["perplexity_ratio"]) > 0 for line in judged)
    assert len(judged) == 3


def test_the_same_command_goes_on_and_computes_nothing_twice(
    scenario: Path, compared: tuple[dict[str, Any], Path]
) -> None:
    summary, out = compared
    again = Here()
    assert run_comparison(plan(scenario), out=out, engine=again, command="x") == summary
    assert again.ran == 0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('partition = "classes"', "text is shared out by who wrote it"),
        ("alpha = 0.1", "fleet.alpha 0.1: is about images"),
        ("samples = 10", "fleet.samples 10: is about images"),
        ("[drift]", "drift: a speaker's text"),
    ],
)
def test_what_has_no_meaning_for_text_is_refused_in_one_line(scenario: Path, line: str, said: str) -> None:
    changed = scenario.with_name("changed.toml")
    text = scenario.read_text()
    changed.write_text(text.replace('partition = "natural"', line) if "partition" in line else f"{text}{line}\n")
    with pytest.raises(UserError, match=said) as caught:
        plan(changed)
    assert "\n" not in str(caught.value)


def test_arms_that_train_a_classifier_are_refused(scenario: Path) -> None:
    with pytest.raises(UserError, match="arm fedavg: trains a classifier"):
        plan(scenario, arms="dense,fedavg")


def of_text(values: dict[str, dict[str, float]], points: int = 1) -> dict[str, Any]:
    """A summary of text with these metrics for each method."""
    return {
        "scenario": {"name": "made-up", "target_loss": 0.05},
        "seeds": [0],
        "methods": list(values),
        "sweep": {"budget": [0.5, 0.8][:points]} if points > 1 else {},
        "points": [{"settings": {"budget": b}, "label": f"budget={b}"} for b in (0.5, 0.8)[:points]],
        "model": {"layer_names": ["0.mlp"], "weights": 1, "bytes_dense": 1},
        "compared_by": "perplexity_ratio",
        "rows": [
            {
                "point": point,
                "method": method,
                "metrics": {"bytes": spread(1e6, 0.0), "uplink_bytes_total": spread(100.0, 0.0), **metrics},
                "personal_share": [],
                "failed": [],
                "late": None,
            }
            for point in range(points)
            for method, metrics in values.items()
        ],
        "settings": {},
        "versions": {},
        "command": "x",
    }


def metrics(ratio: float, difference: dict[str, float] | None = None) -> dict[str, Any]:
    worst = spread(ratio + 0.1, 0.01)
    return {"perplexity_ratio": spread(ratio, 0.01), "worst_decile": worst, "difference": difference}


def test_lower_perplexity_wins_and_a_ratio_of_one_is_a_tie() -> None:
    better = of_text({"mean": metrics(1.2), "median": metrics(1.1, spread(0.92, 0.02)), "arm:dense": metrics(1.0)})
    assert headline(better, 0) == (
        "Of 2 strategies, median is the best: a perplexity ratio of 1.100 (1.090 to 1.110), its worst tenth 1.200. "
        "On the same clients and seeds it beats mean, the reference: 0.920 times the perplexity (0.900 to 0.940). "
        "The best reference arm, dense, reaches a perplexity ratio of 1.000 (0.990 to 1.010)."
    )
    alike = of_text({"mean": metrics(1.2), "median": metrics(1.1, spread(0.99, 0.02))})
    assert "no more than chance can do" in headline(alike, 0)
    behind = of_text({"mean": metrics(1.1), "median": metrics(1.2, spread(1.09, 0.02))})
    assert "it is clearly behind" in headline(behind, 0)
    assert worst_case(of_text({"mean": metrics(1.1), "median": metrics(1.2)}, points=2)) == (
        "Over all 2 settings mean has the best worst case: 1.100, at budget=0.5."
    )


def test_page_and_tables_of_text_speak_of_perplexity_alone(compared: tuple[dict[str, Any], Path]) -> None:
    summary, _ = compared
    body = comparison_page(summary).split("<body>")[1]
    assert "Perplexity ratio against size" in body
    assert "further down better" in body
    assert "accuracy" not in body.split("<script")[0].lower()
    text = markdown(summary)
    assert "perplexity ratio" in text
    assert "accuracy" not in text
    headings = [str(column.header) for table in comparison_tables(summary) for column in table.columns]
    assert headings[1:4] == ["perplexity ratio", "worst tenth", "times the first"]


def test_what_zeros_save_is_told_beside_what_they_do_not(compared: tuple[dict[str, Any], Path], capsys: Any) -> None:
    summary, _ = compared
    rows = {
        row["method"]: {name: found["mean"] for name, found in row["metrics"].items() if found}
        for row in summary["rows"]
    }
    dense = summary["model"]["bytes_dense"]
    for method in ("arm:wanda", "arm:magnitude"):
        own = rows[method]
        assert own["weights_kept"] == pytest.approx(0.7, abs=0.02)
        assert own["products_kept"] == 1.0
        assert max(own["bytes"], own["bytes_zipped"]) < own["bytes_in_full"] == dense
    for method in ("mean", "arm:uniform", "arm:one-cut"):
        assert rows[method]["products_kept"] == pytest.approx(rows[method]["weights_kept"])
        assert "bytes_in_full" not in rows[method]
    Console(width=80).print(*comparison_tables(summary))
    shown, wanda = capsys.readouterr().out, rows["arm:wanda"]
    table = shown.split("zeros alone are not faster")[1]
    (line,) = [line for line in table.splitlines() if line.strip().startswith("wanda ‡ ")]
    sizes = [format_bytes(wanda[name]) for name in ("bytes_in_full", "bytes", "bytes_zipped")]
    assert line.split("‡")[1].split() == " ".join([*sizes, "100.0 %"]).split()
    assert "…" not in shown
    assert "time and its memory" in " ".join(table.split())
    page = comparison_page(summary).split("<body>")[1]
    for text in (page, markdown(summary)):
        assert "‡ magnitude and wanda set single weights to zero, which alone is not faster" in text
    assert "Of wanda ‡ and magnitude ‡ it is the size of sparse storage" in page


def test_a_comparison_without_zeros_says_nothing_of_them() -> None:
    summary = of_text({"mean": metrics(1.2), "arm:dense": metrics(1.0)})
    assert "sparse" not in comparison_page(summary).split("<body>")[1]
    assert "‡" not in markdown(summary)
    assert len(list(comparison_tables(summary))) == 2


def test_a_sweep_of_text_is_drawn_as_gains(scenario: Path) -> None:
    swept = comparison_page(of_text({"mean": metrics(1.2), "median": metrics(1.1, spread(0.92, 0.02))}, points=2))
    assert "Perplexity ratio over budget" in swept
    assert "Perplexity ratio, worst tenth over budget" in swept


def test_images_are_still_compared_by_accuracy(tmp_path: Path) -> None:
    summary = run_comparison(comparison("mean"), out=tmp_path / "out", engine=Serially(), command="x")
    assert summary["compared_by"] == "personal_accuracy"
    assert "perplexity_ratio" not in client_row(0, 0.5)
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == summary
