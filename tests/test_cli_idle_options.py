"""An option that would do nothing, with the others as they are, is refused and not passed over in silence."""

from pathlib import Path

import pytest
from tiny_text import write_language_model, write_speakers
from typer.testing import CliRunner

import fedsieve

TRAINING = "nothing is trained with --recovery ridge; choose distill, tune or distill-tune"
IMAGES, TEXT = "is about images; leave it out for text", "is about text; leave it out for images"


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    folder = tmp_path_factory.mktemp("text")
    model, data = write_language_model(folder / "model"), write_speakers(folder / "speakers")
    return "--model", str(model), "--data", str(data), "--windows", "10", "--window-tokens", "16"


def refused(out: Path, words: str, *arguments: str) -> None:
    result = CliRunner().invoke(fedsieve.app, [*arguments, "--out", str(out)])
    assert result.exit_code == 2, (result.output, result.exception)
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert words in result.stderr
    assert not out.exists()


@pytest.mark.parametrize("command", ["simulate", "personalize"])
@pytest.mark.parametrize(
    ("option", "words"),
    [
        (("--training-steps", "7"), f"--training-steps: {TRAINING}, or leave it out"),
        (("--adapters", "4"), f"--adapters: {TRAINING}, or --tune-first, or leave it out"),
        (("--training-precision", "bfloat16"), f"--training-precision: {TRAINING}, or --tune-first, or leave it out"),
        (("--training-steps", "7", "--tune-first", "3"), f"--training-steps: {TRAINING}, or leave it out"),
    ],
)
def test_how_to_train_is_refused_where_nothing_is_trained(
    command: str, option: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    refused(tmp_path / "out", words, command, "--data", str(tmp_path), *option)


@pytest.mark.parametrize(
    "option", [("--samples", "30"), ("--alpha", "0.1"), ("--classes-per-client", "2"), ("--reuse",)]
)
def test_what_shares_out_images_is_refused_for_text(
    option: tuple[str, ...], text: tuple[str, ...], tmp_path: Path
) -> None:
    refused(tmp_path / "out", f"{option[0]} {IMAGES}", "simulate", *text, *option)


@pytest.mark.parametrize("option", [("--windows", "30"), ("--window-tokens", "32")])
def test_windows_of_text_are_refused_for_images(option: tuple[str, ...], tiny_vit_folder: Path, tmp_path: Path) -> None:
    refused(tmp_path / "out", f"{option[0]} {TEXT}", "simulate", "--model", str(tiny_vit_folder), *option)
    alone = ("personalize", "--model", str(tiny_vit_folder), "--data", str(tmp_path), *option)
    refused(tmp_path / "out", "no windows of text; leave out --windows and --window-tokens", *alone)


def test_the_task_text_without_a_language_model_names_one(tmp_path: Path) -> None:
    refused(tmp_path / "out", "give a language model, such as --model smollm2 after `make llm`",
            "simulate", "--task", "text", "--data", str(tmp_path))  # fmt: skip


@pytest.mark.parametrize(
    "option", [("--tokens", "9"), ("--temperature", "0.5"), ("--top-k", "3"), ("--top-p", "0.5"), ("--seed", "1")]
)
def test_how_to_go_on_is_refused_without_a_prompt(option: tuple[str, ...], tmp_path: Path) -> None:
    result = CliRunner().invoke(fedsieve.app, ["predict", str(tmp_path), str(tmp_path / "a.txt"), *option])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: --prompt: missing; ")
