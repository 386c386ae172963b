import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from comparison_summary import ARMS, STRATEGIES, make_summary, spread, without_metrics

from simulations.report.comparison import figures
from simulations.report.comparison.headline import headline, worst_case
from simulations.report.comparison.marks import method_marks
from simulations.report.comparison.metrics import (
    format_estimate,
    format_value,
    method_label,
    metrics_of,
    ordered_methods,
)
from simulations.report.comparison.page import comparison_page, write_comparison
from simulations.report.comparison.picture import comparison_picture
from simulations.report.comparison.quality import IMAGES
from simulations.report.comparison.sweeps import differences_over, lines_over, reference_value, slices

ATTACKS = ["random", "none", "mimic"]


def own_html(page: str) -> str:
    """The page without Plotly's own script."""
    return re.sub(r"<script>/\*\*.*?</script>", "", page, count=1, flags=re.DOTALL)


def payload(page: str) -> list[dict[str, Any]]:
    """The figures as the page's script reads them."""
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, flags=re.DOTALL)
    assert found is not None
    return list(json.loads(found[1]))


def test_page_holds_everything_and_loads_nothing(tmp_path: Path) -> None:
    summary = make_summary(sweep={"budget": [0.2, 0.4], "attack.kind": ATTACKS})
    write_comparison(summary, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    own = own_html(page)
    assert len(own) < len(page) / 2, "Plotly's script is part of the page"
    assert not re.search(r"<link|@import|url\(|https?://|\s(src|href)\s*=", own)
    assert "default-src 'none'" in own
    assert "width=device-width" in own
    for text in [summary["command"], "2.13.0", "Every number on this page is made up.", "scenario.<wbr>conditions."]:
        assert text in own
    assert all(label in own for _, label, _ in metrics_of(IMAGES))
    assert own.count('<option value="') == len(summary["points"]) == 6


def test_one_point_needs_no_selector_and_no_sweep() -> None:
    own = own_html(comparison_page(make_summary()))
    assert "<select" not in own
    assert "Accuracy over" not in own
    assert own.count('type="checkbox"') == len(STRATEGIES + ARMS)


def test_page_escapes_what_others_named() -> None:
    evil = "</script><img src=x onerror=alert(1)>"
    summary = make_summary(sweep={"attack.kind": ["none", evil]})
    summary["scenario"].update(name=evil, description=evil)
    summary["rows"][0].update(failed=[{"seed": 0, "error": evil}], failures={evil: 1}, settings={evil: evil})
    summary["command"] = summary["points"][0]["label"] = evil
    assert "<img" not in own_html(comparison_page(summary))


@pytest.mark.parametrize("sweep", [{}, {"budget": [0.2, 0.4]}, {"attack.kind": ATTACKS}])
def test_nothing_measured_is_still_a_page(sweep: dict[str, list[Any]]) -> None:
    own = own_html(comparison_page(without_metrics(make_summary(sweep=sweep))))
    assert "Nothing was measured here" in own
    assert "a folder &lt;could&gt; not be written" in own
    drawn = [trace for figure in payload(own) for trace in figure["data"]]
    assert not any(trace.get("mode") == "markers" for trace in drawn)


@pytest.mark.parametrize("name", [name for name, _, _ in metrics_of(IMAGES)])
def test_any_metric_may_be_missing(name: str) -> None:
    summary = make_summary(("median", "arm:dense"), sweep={"budget": [0.2, 0.4]})
    for row in summary["rows"][::2]:
        row["metrics"][name] = None
    for row in summary["rows"][1::2]:
        row["metrics"][name] = {"mean": 1.0, "low": None, "high": None}
    assert payload(comparison_page(summary))


def test_every_trace_says_whose_it_is() -> None:
    summary = make_summary(sweep={"budget": [0.2, 0.4], "attack.kind": ATTACKS})
    for figure in payload(comparison_page(summary)):
        for trace in figure["data"]:
            assert trace["meta"]["method"] in summary["methods"]
            assert set(trace["meta"]["points"]) <= set(range(6))


def test_accuracy_is_drawn_with_its_interval() -> None:
    summary = make_summary()
    main = [trace for trace in figures.quality_by_method(summary).data if trace.marker.size == 11]
    assert [trace.meta["method"] for trace in main] == list(STRATEGIES + ARMS)
    for trace, row in zip(main, summary["rows"], strict=True):
        found = row["metrics"]["personal_accuracy"]
        (centre,), (above,), (below,) = trace.x, trace.error_x.array, trace.error_x.arrayminus
        assert [centre - below, centre, centre + above] == pytest.approx(
            [100 * found[end] for end in ("low", "mean", "high")]
        )


def test_who_sends_nothing_stands_left_of_all_others() -> None:
    figure = figures.quality_against_uplink(make_summary())
    none, *ticks = figure.layout.xaxis.tickvals
    sent = {trace.meta["method"]: trace.x[0] for trace in figure.data}
    assert sent["arm:dense"] == sent["arm:local-only"] == none
    assert all(10 * none <= count for method, count in sent.items() if method not in ("arm:dense", "arm:local-only"))
    assert figure.layout.xaxis.ticktext[0] == "none"
    assert none < min(ticks)


def test_a_target_that_is_never_reached_says_so() -> None:
    texts = {trace.meta["method"]: trace.text[0].strip() for trace in figures.rounds_to_target(make_summary()).data}
    assert texts["arm:dense"] == "never"
    assert texts["median"] == "80 %"


def test_arms_follow_strategies_and_are_marked_apart() -> None:
    methods = ("arm:dense", *(f"s{number}" for number in range(9)), "arm:fedavg")
    summary = make_summary(methods)
    marks = method_marks(summary)
    assert ordered_methods(summary) == [*methods[1:-1], "arm:dense", "arm:fedavg"]
    assert len(set(marks.values())) == len(methods)
    assert {method for method, mark in marks.items() if mark.symbol.endswith("-open")} == {"arm:dense", "arm:fedavg"}
    assert method_label("arm:fedavg") == "fedavg †"
    assert "† fedavg and fedavg-finetune train on the clients' labels" in comparison_page(summary)


def test_slices_keep_the_other_settings() -> None:
    summary = make_summary(sweep={"budget": [0.2, 0.4], "attack.kind": ATTACKS})
    for key, count in (("budget", 3), ("attack.kind", 2)):
        found = slices(summary, key)
        assert len(found) == count
        assert sorted(point for points in found for point in points) == list(range(6))
        for points in found:
            others = [{**summary["points"][point]["settings"], key: None} for point in points]
            assert all(other == others[0] for other in others)


def test_a_line_and_its_band_go_through_the_numbers() -> None:
    summary = make_summary(("median",), sweep={"budget": [0.4, 0.2, 0.6]})
    band, line = lines_over(summary, "budget", "personal_accuracy", "accuracy").data
    metrics = {p["settings"]["budget"]: r["metrics"] for p, r in zip(summary["points"], summary["rows"], strict=True)}
    assert list(line.x) == [0.2, 0.4, 0.6]
    assert list(line.y) == pytest.approx([100 * metrics[x]["personal_accuracy"]["mean"] for x in line.x])
    assert list(band.x) == [0.2, 0.4, 0.6, 0.6, 0.4, 0.2]
    assert band.y[0] > line.y[0] > band.y[-1]


def test_a_heat_map_shows_the_loss_against_the_run_without() -> None:
    summary = make_summary(("median",), sweep={"attack.kind": ATTACKS})
    for row, accuracy in zip(summary["rows"], (0.8, 0.9, 0.95), strict=True):
        row["metrics"]["personal_accuracy"] = spread(accuracy, 0.01)
    (strip,) = differences_over(summary, "attack.kind").data
    assert list(strip.z[0]) == pytest.approx([-10, 0, 5])
    assert list(strip.text[0]) == ["-10.0", "90.0 %", "+5.0"]


def test_the_first_value_is_held_against_where_none_means_without() -> None:
    assert reference_value(["random", "mimic"]) == "random"
    assert reference_value(["random", "benign"]) == "benign"


def with_accuracies(*rows: tuple[str, float, dict[str, float] | None]) -> dict[str, Any]:
    summary = make_summary(tuple(method for method, _, _ in rows))
    for row, (_, accuracy, difference) in zip(summary["rows"], rows, strict=True):
        row["metrics"].update(personal_accuracy=spread(accuracy, 0.01), difference=difference)
    return summary


def test_headline_tells_a_lead_from_chance() -> None:
    clear = with_accuracies(("mean", 0.9, None), ("krum", 0.92, spread(0.02, 0.01)))
    assert "krum is the most accurate: 92.0 % (91.0 to 93.0)" in headline(clear, 0)
    assert "it beats mean, the reference, by 2.0 points (1.0 to 3.0)" in headline(clear, 0)
    chance = with_accuracies(("mean", 0.9, None), ("krum", 0.92, spread(0.02, 0.03)))
    assert "+2.0 points (-1.0 to +5.0): no more than chance can do" in headline(chance, 0)


def test_headline_of_a_winning_reference() -> None:
    behind = with_accuracies(("mean", 0.9, None), ("krum", 0.88, spread(-0.02, 0.01)), ("arm:dense", 0.95, None))
    said = headline(behind, 0)
    assert "mean is the most accurate" in said
    assert "It is the reference; krum comes next, -2.0 points (-3.0 to -1.0)" in said
    assert "clearly behind" in said
    assert "The best reference arm, dense, reaches 95.0 %" in said


def test_the_worst_case_is_over_all_settings() -> None:
    summary = make_summary(("mean", "krum"), sweep={"attack.kind": ["none", "random"]})
    for row, accuracy in zip(summary["rows"], (0.95, 0.90, 0.5, 0.85), strict=True):
        row["metrics"]["personal_accuracy"] = spread(accuracy, 0.0)
    assert worst_case(summary) == ("Over all 2 settings krum has the best worst case: 85.0 %, at attack.kind=random.")
    assert worst_case(make_summary()) == ""


def test_estimates_are_written_with_their_intervals() -> None:
    assert format_estimate(spread(0.5, 0.1), "share") == "50.0 % (40.0 to 60.0)"
    assert format_estimate(spread(0.01, 0.02), "points") == "+1.0 (-1.0 to +3.0)"
    assert format_estimate({"mean": 1500.0, "low": 999.0, "high": 2e6}, "bytes") == "1.5 kB (999 B to 2 MB)"
    assert format_estimate({"mean": 2.0, "low": None, "high": None}, "seconds") == "2.0 s"
    assert format_estimate(None, "share") == format_value(None, "points") == "-"


@pytest.mark.parametrize("point", [None, "attack.kind=random"])
def test_picture_has_a_mark_and_an_interval_for_each_method(tmp_path: Path, point: str | None) -> None:
    summary = make_summary(sweep={"attack.kind": ["none", "random"]})
    source, out = tmp_path / "summary.json", tmp_path / "picture.svg"
    source.write_text(json.dumps(summary))
    command = [sys.executable, "-m", "simulations.report.comparison.picture", source, out]
    subprocess.run([*command, *([] if point is None else ["--point", point])], check=True, capture_output=True)
    assert out.read_text() == comparison_picture(summary, point=0 if point is None else 1)
    root = ElementTree.fromstring(out.read_text())
    lines = root.findall("{http://www.w3.org/2000/svg}line")
    assert sum(line.get("class") == "interval" for line in lines) == 2 * len(STRATEGIES + ARMS)
    words = [text.text for text in root.findall("{http://www.w3.org/2000/svg}text")]
    assert all(method_label(method) in words for method in STRATEGIES + ARMS)


def test_picture_has_a_line_for_each_footnote() -> None:
    root = ElementTree.fromstring(comparison_picture(make_summary((*STRATEGIES, *ARMS, "arm:wanda"))))
    words = {text.text: text.get("y") for text in root.findall("{http://www.w3.org/2000/svg}text")}
    notes = {words["† uses labels, sends weights up"], words["‡ zeros: sparse size, dense speed"]}
    assert len(notes) == 2
    assert all(float(y) < float(root.get("height")) for y in notes)


def test_picture_of_nothing_is_wellformed() -> None:
    assert ElementTree.fromstring(comparison_picture(without_metrics(make_summary()))) is not None


def test_an_unknown_point_names_the_ones_there_are(tmp_path: Path) -> None:
    source = tmp_path / "summary.json"
    source.write_text(json.dumps(make_summary(sweep={"budget": [0.2, 0.4]})))
    command = [sys.executable, "-m", "simulations.report.comparison.picture", source, tmp_path / "x.svg"]
    run = subprocess.run([*command, "--point", "budget=0.3"], capture_output=True, text=True)
    assert run.returncode == 2
    assert "budget=0.2, budget=0.4" in run.stderr
