import pytest

from benchmarks.device import tables
from personalization.device.manifest import Precision


def record(client: int, kind: Precision, **changes: float | bool) -> dict[str, object]:
    figures = {"times_smaller": 9.0, "times_faster": 1.2, "accuracy_lost": 0.004, "agreement": 0.99, "passed": True}
    return {"client": client, "precision": kind, **figures, **changes}


KINDS: tuple[Precision, ...] = ("fp32", "int8-dynamic", "int8-static")
SMALL = [{"precision": kind, "times_smaller": 9.0, "times_faster": 3.6} for kind in KINDS]


def missed(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.endswith("NOT reached")]


def test_targets_are_those_of_the_worst_client() -> None:
    good = [record(client, kind) for client in range(3) for kind in KINDS]
    assert missed(tables(good, SMALL, 0.4)) == []
    for key, value, words in (
        ("times_smaller", 7.9, "8 times smaller"),
        ("times_faster", 0.99, "never slower"),
        ("accuracy_lost", 0.05, "within a point"),
        ("passed", False, "passes its check"),
    ):
        (line,) = missed(tables([*good, record(3, "int8-static", **{key: value})], SMALL, 0.4))
        assert line.startswith("- int8-static")
        assert words in line


def test_the_large_model_has_a_target_of_its_own() -> None:
    good = [record(0, kind) for kind in KINDS]
    slow = [row | {"times_faster": 3.4} if row["precision"] == "int8-dynamic" else row for row in SMALL]
    (line,) = missed(tables(good, slow, 0.4))
    assert "int8-dynamic: ViT-S" in line


@pytest.mark.parametrize("kind", KINDS)
def test_every_precision_has_a_row_in_both_tables(kind: str) -> None:
    text = tables([record(0, each) for each in KINDS], SMALL, 0.4)
    assert sum(line.startswith(f"| {kind} |") for line in text.splitlines()) == 2
