import json
from pathlib import Path

import pytest
from click.testing import Result
from tiny_export import save_tiny_personal, write_images
from typer.testing import CliRunner

import fedsieve


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(fedsieve.app, [str(argument) for argument in arguments])


@pytest.fixture
def personal(tmp_path: Path) -> Path:
    return save_tiny_personal(tmp_path / "personal")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images", 8)


@pytest.mark.parametrize(("int8", "precision"), [("none", "fp32"), ("static", "int8-static")])
def test_export_then_predict(int8: str, precision: str, personal: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run("export", personal, "--data", images, "--out", out, "--int8", int8, "--json")
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed == json.loads((out / "device.json").read_text())
    assert printed["precision"] == precision
    files = sorted(images.iterdir())
    predictions = json.loads(run("predict", out, *files, "--json").stdout)
    assert [p["file"] for p in predictions] == [str(file) for file in files]
    assert all(p["class"] in "abc" and 1 / 3 <= p["probability"] <= 1 for p in predictions)


def test_export_prints_what_it_costs_and_how_it_was_checked(personal: Path, images: Path, tmp_path: Path) -> None:
    result = run("export", personal, "--data", images, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    for words in ("int8-dynamic export", "peak memory", "of 8 images", "fedsieve predict"):
        assert words in result.stdout


def test_mistakes_are_one_line_and_exit_code_2(personal: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for model, data, words in (
        (images, images, "no personal model"),
        (personal, tmp_path / "empty", "no images"),
        (personal, tmp_path / "nowhere", "no such data"),
    ):
        result = run("export", model, "--data", data, "--out", tmp_path / "out")
        assert result.exit_code == 2, result.output
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1
        assert words in result.stderr
        assert not (tmp_path / "out").exists()
