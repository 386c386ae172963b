import json
from pathlib import Path

import pytest
from click.testing import Result
from tiny_export import save_tiny_personal, write_images
from tiny_text import write_language_model
from tiny_text_export import save_tiny_speaker, write_text
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


@pytest.mark.parametrize(("int8", "precision"), [("none", "fp32"), ("dynamic", "int8-dynamic")])
def test_a_language_model_is_exported_and_speaks(int8: str, precision: str, tmp_path: Path) -> None:
    personal, text, out = save_tiny_speaker(tmp_path / "speaker"), write_text(tmp_path / "text"), tmp_path / "out"
    result = run("export", personal, "--data", text, "--out", out, "--int8", int8)
    assert result.exit_code == 0, result.output
    for words in (f"{precision} export", "tokens a second", "nats of divergence", "--prompt"):
        assert words in result.stdout
    file = text / "0.txt"
    said = json.loads(run("predict", out, file, "--prompt", "the river", "--tokens", "5", "--json").stdout)
    torch_said = json.loads(run("predict", personal, file, "--prompt", "the river", "--tokens", "5", "--json").stdout)
    assert said["scores"][0]["perplexity"] == pytest.approx(torch_said["scores"][0]["perplexity"], rel=0.1)
    if int8 == "none":
        assert said["continuation"] == torch_said["continuation"]
    drawn = ("--temperature", "1", "--top-k", "5", "--top-p", "0.9", "--seed", "3")
    first, again = (run("predict", out, "--prompt", "the river", *drawn).stdout for _ in range(2))
    assert first == again
    assert first.startswith("the river")


def test_mistakes_with_a_language_model_are_one_line(tmp_path: Path) -> None:
    personal, text, out = save_tiny_speaker(tmp_path / "speaker"), write_text(tmp_path / "text"), tmp_path / "out"
    assert run("export", personal, "--data", text, "--out", out, "--int8", "none").exit_code == 0
    for arguments, words in (
        (("export", personal, "--data", text, "--out", out, "--int8", "static"), "not static"),
        (("predict", out, "--prompt", "river " * 70), "which is what the model reads"),
        (("predict", out, "--prompt", "river", "--top-p", "0"), "top-p above 0"),
        (("predict", out, tmp_path / "a.png"), "a language model"),
    ):
        result = run(*arguments)
        assert result.exit_code == 2, result.output
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1
        assert words in result.stderr


def test_a_model_of_one_shape_becomes_gguf(tmp_path: Path) -> None:
    personal, out = save_tiny_speaker(tmp_path / "speaker", units=(2, 32, 2, 32)), tmp_path / "model.gguf"
    result = run("export", personal, "--out", out, "--format", "gguf")
    assert result.exit_code == 0, result.output
    assert "tensors read back" in result.stdout
    assert out.stat().st_mode & 0o777 == 0o600
    printed = json.loads(run("export", personal, "--out", out, "--format", "gguf", "--json").stdout)
    assert printed["bytes"] == out.stat().st_size
    uneven = save_tiny_speaker(tmp_path / "uneven")
    for arguments, words in (
        (("export", uneven, "--out", out, "--format", "gguf"), "layer 1.attention has another size"),
        (("export", personal, "--out", out, "--format", "gguf", "--int8", "static"), "dynamic or none"),
        (("export", personal, "--out", out, "--format", "gguf", "--data", tmp_path), "leave it out"),
        (("export", personal, "--out", tmp_path, "--format", "gguf"), "expected the name of a file"),
        (("export", personal, "--out", out), "--data: missing"),
    ):
        result = run(*arguments)
        assert result.exit_code == 2, result.output
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1
        assert words in result.stderr


def test_a_personal_model_of_equal_layers_becomes_gguf(tmp_path: Path) -> None:
    dense, text = write_language_model(tmp_path / "dense"), write_text(tmp_path / "text")
    asked = ("personalize", "--model", dense, "--data", text, "--window-tokens", "16", "--budget", "0.6")
    for name, more in (("free", ()), ("equal", ("--equal-layers", "--vocabulary", "300"))):
        found = run(*asked, "--out", tmp_path / name, *more, "--json")
        assert found.exit_code == 0, found.output
        report = json.loads(found.stdout)
        levels = [layer["level"] for layer in report["layers"]]
        assert 0.4 < report["weights_kept"] <= 0.6
        assert (levels[0] == levels[2] and levels[1] == levels[3]) == (name == "equal")
    out = tmp_path / "model.gguf"
    refused = run("export", tmp_path / "free", "--format", "gguf", "--out", out)
    assert refused.exit_code == 2
    assert "personalize with --equal-layers" in refused.stderr
    written = run("export", tmp_path / "equal", "--format", "gguf", "--out", out)
    assert written.exit_code == 0, written.output
    assert out.is_file()
