import numpy as np
import pytest
from rich.console import Console
from tiny_text import VOCABULARY, write_language_model, write_speakers

from benchmarks import device_text
from benchmarks.device_text import candidates, measure, table, targets
from personalization.data.texts import text_files
from personalization.model_files.backbone import load_backbone


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[device_text.Record]:
    base = tmp_path_factory.mktemp("device-text")
    write_speakers(base / "speakers", speakers=1, words=600)
    backbone = load_backbone(str(write_language_model(base / "model")))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("WINDOW_TOKENS", 32), ("PROMPT", 12), ("STEPS", 4)):
            patch.setattr(device_text, name, value)
        models = candidates(backbone, text_files(base / "speakers" / "speaker-0"), [0.7, 0.5], 290)
        return measure(models, runs=2, console=Console(quiet=True))


def test_a_row_for_each_model_against_the_first(records: list[device_text.Record]) -> None:
    assert [(r["model"], r["precision"]) for r in records] == [
        ("dense", "fp32"),
        ("dense", "int8-dynamic"),
        ("personal, budget 0.7", "int8-dynamic"),
        ("personal, budget 0.5", "int8-dynamic"),
    ]
    dense, *others = records
    assert (dense["times_smaller"], dense["prompt_times_faster"], dense["steps_times_faster"]) == (1.0, 1.0, 1.0)
    assert dense["divergence"] == pytest.approx(0.0, abs=1e-6)
    assert [r["vocabulary"] for r in records[:2]] == [VOCABULARY] * 2
    assert max(r["vocabulary"] for r in records[2:]) < VOCABULARY
    assert np.diff([r["bytes"] for r in records]).max() < 0
    assert all(r["divergence"] > 0 for r in others)


def test_the_table_shows_every_row_and_target(records: list[device_text.Record]) -> None:
    good = [{**r, "times_smaller": 6.1, "prompt_times_faster": 2.6, "steps_times_faster": 2.4} for r in records]
    text = table(good)
    assert text.count("\n| dense, ") == 2
    assert text.count("\n| personal, budget ") == 2
    assert text.count(": reached") == 4
    assert text.count("one by one 2.5 times faster: NOT reached") == 2
    assert len(targets(good)) == 6


def test_without_the_model_nothing_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["device_text"])
    assert device_text.main() == 0
    said = capsys.readouterr().out
    assert said.startswith("not measured: ")
    assert said.count("\n") == 1
