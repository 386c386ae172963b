import re

from comparison_summary import make_summary

from simulations.report.comparison.markdown import markdown


def table(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]


def test_one_point_is_a_line_for_each_method_with_its_figures():
    summary = make_summary()
    head, _, *body = table(markdown(summary).split("\n\n")[0])
    assert [row[0] for row in body][: len(summary["methods"])][0] == summary["methods"][0]
    assert all(len(row) == len(head) for row in body)
    accuracy = summary["rows"][0]["metrics"]["personal_accuracy"]["mean"]
    assert body[0][head.index("accuracy, %")].startswith(f"{100 * accuracy:.1f} (")
    assert body[0][head.index("difference, points")] == "-"


def test_a_sweep_is_a_line_for_each_point_and_the_first_has_no_change():
    summary = make_summary(sweep={"attack.kind": ["none", "random", "mimic"]})
    text = markdown(summary)
    labels = re.findall(r"^\| (attack\.kind=\w+) ", text, flags=re.MULTILINE)
    values = [f"attack.kind={kind}" for kind in ("none", "random", "mimic")]
    assert labels == [*values, *values, *values[1:]]
