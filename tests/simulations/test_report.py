import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from simulations.report.figures import bytes_by_round, layer_names, personal_cells, quality_against_size
from simulations.report.page import page, write_report
from simulations.report.picture import picture, round_step
from simulations.report.progress import RoundProgress, round_line
from simulations.report.quality import IMAGES
from simulations.report.tables import clients_table, extreme_clients, summary_table
from simulations.report.units import format_bytes, format_figure, summary_figures

LAYERS = [f"{block}.{kind}" for block in range(3) for kind in ("attention", "mlp")]


def client(number: int, dense: float, personal: float, **changes: Any) -> dict[str, Any]:
    return {
        "client": number,
        "samples": 200,
        "dense_accuracy": dense,
        "dense_fitted_accuracy": dense,
        "personal_accuracy": personal,
        "agreement": 0.95,
        "weights_kept": 0.5,
        "bytes": 1_400_000 + 1000 * number,
        "latency_ms": 1.25,
        "personalized_layers": [LAYERS[number % 6], LAYERS[5]],
        "evaluations": 6,
        "fit_r2": None,
        **changes,
    }


@pytest.fixture
def report() -> dict[str, Any]:
    clients = [client(n, 0.9, 0.85 + 0.01 * n) for n in range(8)]
    return {
        "model": {"id": "0f3a", "weights": 678_730, "units": 900, "layers": 6, "layer_names": LAYERS},
        "settings": {"clients": 8, "budget": 0.5, "data": None},
        "versions": {"torch": "2.13.0"},
        "rounds": [
            {
                "round": n,
                "clients_sampled": 4,
                "clients_replied": 4 - n,
                "evaluations_per_client": 6.0 - n,
                "dropped_units": 3 * n,
                "uplink_bytes": 1200 * (4 - n),
                "downlink_bytes": 4 * (2_700_000 if n == 0 else 2000),
                "seconds": 4.0,
            }
            for n in range(3)
        ],
        "final": {
            "round": 3,
            "clients_sampled": 8,
            "clients_replied": 8,
            "evaluations_per_client": 0.0,
            "dropped_units": 9,
            "uplink_bytes": 9600,
            "downlink_bytes": 16_000,
            "seconds": 4.0,
        },
        "clients": clients,
        "summary": {
            "dense_accuracy_mean": 0.9,
            "dense_fitted_accuracy_mean": 0.9,
            "personal_accuracy_mean": 0.885,
            "personal_accuracy_worst_decile": 0.85,
            "agreement_mean": 0.95,
            "weights_kept_mean": 0.5,
            "bytes_mean": 1_403_500,
            "bytes_dense": 2_714_920,
            "latency_ms_mean": 1.25,
            "latency_ms_dense": 2.0,
            "uplink_bytes_per_client_round_mean": 1200.0,
            "downlink_bytes_first_contact_mean": 2_700_000.0,
            "downlink_bytes_later_mean": 2000.0,
            "evaluations_per_client_mean": 6.0,
            "wall_seconds": 61.0,
            "cpu_seconds": 100.0,
            "peak_memory_bytes": 900_000_000,
        },
    }


def own_html(text: str) -> str:
    """The page without Plotly's own script."""
    return re.sub(r"<script>/\*\*.*?</script>", "", text, count=1, flags=re.DOTALL)


def test_page_holds_everything_and_loads_nothing(report: dict[str, Any], tmp_path: Path) -> None:
    write_report(report, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    own = own_html(text)
    assert len(own) < len(text) / 20, "Plotly's script is part of the page"
    assert not re.search(r"(src|href)\s*=|<link|@import|url\(|https?://", own)
    assert "default-src 'none'" in own
    assert "width=device-width" in own
    for word in (
        "Accuracy against size",
        "Which layers are personal",
        "Bytes by round",
        "Evaluations by round",
        "2.13.0",
    ):
        assert word in own


def test_page_escapes_names(report: dict[str, Any]) -> None:
    report["settings"]["data"] = "<img src=x onerror=alert(1)>"
    report["model"]["id"] = "</title><script>alert(1)</script>"
    own = own_html(page(report))
    assert "<img" not in own
    assert "<script>alert" not in own


def test_each_client_is_drawn_dense_and_personal(report: dict[str, Any]) -> None:
    figure = quality_against_size(report)
    drawn = {trace.name: trace for trace in figure.data if trace.mode == "markers"}
    assert list(drawn["personal"].y) == [100 * c["personal_accuracy"] for c in report["clients"]]
    assert list(drawn["personal"].x) == [c["bytes"] / 1e6 for c in report["clients"]]
    assert set(drawn[IMAGES.dense_name].x) == {report["summary"]["bytes_dense"] / 1e6}


def test_personal_cells_are_exactly_the_personalized_layers(report: dict[str, Any]) -> None:
    names = layer_names(report)
    for row, c in zip(personal_cells(report), report["clients"], strict=True):
        assert {name for name, cell in zip(names, row, strict=True) if cell} == set(c["personalized_layers"])


def test_a_round_without_replies_leaves_a_gap(report: dict[str, Any]) -> None:
    report["rounds"][1].update(clients_replied=0, uplink_bytes=0)
    up = next(trace for trace in bytes_by_round(report).data if trace.name == "up")
    assert [value is None for value in up.y] == [False, True, False, False]


def test_picture_is_wellformed_and_has_every_client(report: dict[str, Any], tmp_path: Path) -> None:
    from xml.etree import ElementTree

    source, out = tmp_path / "report.json", tmp_path / "picture.svg"
    source.write_text(json.dumps(report))
    subprocess.run([sys.executable, "-m", "simulations.report.picture", source, out], check=True, capture_output=True)
    assert out.read_text() == picture(report)
    root = ElementTree.fromstring(out.read_text())
    space = "{http://www.w3.org/2000/svg}"
    assert len(root.findall(f"{space}circle")) == 2 * len(report["clients"]) + 2
    assert len(root.findall(f"{space}rect")) == 1 + len(report["clients"]) * len(LAYERS)


def test_tables_show_the_worst_and_the_best(report: dict[str, Any]) -> None:
    shown = [c["client"] for c in extreme_clients(report["clients"], 2)]
    assert shown == [0, 1, 6, 7]
    console = Console(width=100, file=None, record=True, quiet=False)
    with console.capture() as captured:
        console.print(summary_table(report), clients_table(report))
    assert "88.5 %" in captured.get()
    assert "1.4 MB" in captured.get()


def test_summary_shows_every_key_of_the_report(report: dict[str, Any]) -> None:
    assert len(summary_figures(report["summary"])) == len(report["summary"])


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (2_714_920, "2.71 MB"), (5e9, "5 GB")]
)
def test_bytes_are_written_with_decimal_prefixes(count: float, text: str) -> None:
    assert format_bytes(count) == text


def test_what_was_not_measured_is_a_dash() -> None:
    assert format_figure(None, "share") == "-"


@pytest.mark.parametrize(("least", "step"), [(0.271, 0.5), (1, 1), (1.1, 2), (17, 20), (51, 100)])
def test_ticks_are_round(least: float, step: float) -> None:
    assert round_step(least) == pytest.approx(step)


def test_the_bar_follows_answers_and_each_round_has_a_line():
    record = {
        "round": 1,
        "clients_sampled": 2,
        "clients_replied": 1,
        "downlink_bytes": 1000,
        "uplink_bytes": 10,
        "seconds": 1.0,
    }
    console = Console(record=True, width=100, file=io.StringIO())
    progress = RoundProgress(console, rounds=2, answers=6)
    with progress:
        progress.answered()
        assert progress.done == 1
        progress.show(record)
        assert progress.done == 2
        progress.show({**record, "round": 2, "clients_sampled": 4})
    assert progress.done == 6
    text = console.export_text()
    assert "round 1: 1 of 2 clients replied" in text
    assert "final pass" in text


@pytest.mark.parametrize(
    ("terminal", "lines"), [(False, ["2 of 9 answers of clients", "4 of 9 answers of clients"]), (True, [])]
)
def test_a_long_round_tells_of_its_clients_where_there_is_no_bar(terminal, lines):
    seconds = iter([0.0, 10.0, 31.0, 31.0, 45.0, 70.0, 70.0])
    console = Console(record=True, width=100, file=io.StringIO(), force_terminal=terminal)
    progress = RoundProgress(console, rounds=2, answers=9, clock=lambda: next(seconds))
    for _ in range(4):
        progress.answered()
    assert console.export_text().splitlines() == lines


def test_judging_is_told_of_after_the_last_round():
    seconds = iter([0.0, 31.0, 31.0, 40.0])
    console = Console(record=True, width=100, file=io.StringIO())
    progress = RoundProgress(console, rounds=2, answers=9, clock=lambda: next(seconds))
    for _ in range(2):
        progress.judged()
    assert console.export_text().splitlines() == ["personal models judged: 1"]


def test_the_line_of_a_round_says_what_went_wrong(report):
    record = {**report["rounds"][1], "failures": {"invalid_reply": 2, "no_reply": 1}, "not_learned": "too few"}
    assert round_line(record, 9).endswith("4.0 s (2 invalid_reply; 1 no_reply; not learned: too few)")
    assert round_line(report["rounds"][1], 9).endswith("4.0 s")
