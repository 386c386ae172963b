"""Bad text, tokenizers, prompts and models: one clear line and exit code 2 from every command that meets them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from tiny_text import (
    ordered_words,
    sentence,
    tiny_tokenizer,
    trained_language_model,
    write_language_model,
    write_speakers,
)
from tiny_text_export import save_tiny_speaker, write_text
from typer.testing import CliRunner

import fedsieve

GOOD = sentence(np.random.default_rng(1), 300)
BATCH = ("--windows", "10", "--window-tokens", "16")


def line(text: str) -> str:
    return json.dumps({"text": text}) + "\n"


# A device's text with something wrong in it: its files, and what the one line says.
TEXTS: dict[str, tuple[dict[str, bytes | str], str]] = {
    "latin-1": ({"a.txt": GOOD, "b.txt": "café".encode("latin-1")}, "b.txt: not UTF-8 (byte 3); convert it"),
    "UTF-16": ({"a.txt": GOOD.encode("utf-16"), "b.txt": GOOD}, "a.txt: not UTF-8 (byte 0)"),
    "latin-1 in JSON": ({"a.jsonl": b'{"text": "caf\xe9"}', "b.txt": GOOD}, "a.jsonl: not UTF-8"),
    "nothing": ({}, "no text in it; expected .txt files, or .jsonl files"),
    "other files": ({"a.pdf": GOOD, "b.md": GOOD}, "no text in it"),
    "empty files": ({"a.txt": "", "b.txt": " \n"}, "too little text, 0 tokens; expected"),
    "less than a window": ({"a.txt": "gold", "b.txt": "gold"}, "too little text"),
    "no text in a line": ({"a.jsonl": line(GOOD) + '{"body": "x"}\n', "b.txt": GOOD}, "a.jsonl, line 2: no text"),
    "null": ({"a.jsonl": '{"text": null}\n', "b.txt": GOOD}, "a.jsonl, line 1: no text; expected a JSON object"),
    "a list": ({"a.jsonl": '["text"]\n', "b.txt": GOOD}, "a.jsonl, line 1: no text"),
    "broken JSON": ({"a.jsonl": line(GOOD) + '{"text": "x\n', "b.txt": GOOD}, "a.jsonl, line 2: no text"),
    "half a character": ({"a.jsonl": line(GOOD + "\ud800"), "b.txt": GOOD}, "line 1: half of a surrogate pair"),
}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good ones of everything: a dense model, speakers, a device's text, a personal and an exported model."""
    folder = tmp_path_factory.mktemp("good")
    write_language_model(folder / "model")
    write_speakers(folder / "speakers")
    write_text(folder / "text")
    save_tiny_speaker(folder / "personal")
    done = run("export", folder / "personal", "--data", folder / "text", "--out", folder / "exported", "--int8", "none")
    assert done.exit_code == 0, done.output
    return folder


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(fedsieve.app, [str(argument) for argument in arguments])


def refused(result: Result, words: str) -> None:
    assert result.exit_code == 2, (result.output, result.exception)
    assert isinstance(result.exception, SystemExit)
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert words in result.stderr, result.stderr
    assert result.stdout == ""


def write(folder: Path, files: dict[str, bytes | str]) -> Path:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def personalize(model: Path, data: Path, out: Path, *more: str) -> Result:
    return run("personalize", "--model", model, "--data", data, "--out", out, *BATCH, *more)


def simulate(model: Path, data: Path, out: Path, *more: str) -> Result:
    fleet = ("--clients", "3", "--rounds", "1", "--partition", "natural")
    return run("simulate", "--model", model, "--data", data, "--out", out, *fleet, *(more or BATCH))


def compare(model: Path, data: Path, out: Path, **fleet: int) -> Result:
    own = {"clients": 3, "rounds": 1, "windows": 10, "window_tokens": 16, **fleet}
    places = {"model": str(model), "data": str(data), "partition": "natural"}
    scenario = out.with_suffix(".toml")
    scenario.write_text("[fleet]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in (places | own).items()))
    chosen = ("--strategies", "mean", "--arms", "wanda", "--seeds", "1")
    return run("compare", "--scenario", scenario, *chosen, "--out", out)


@pytest.mark.parametrize("kind", TEXTS)
def test_text_that_cannot_be_used_is_named_by_who_would_cut_or_export_a_model(
    kind: str, places: Path, tmp_path: Path
) -> None:
    files, words = TEXTS[kind]
    text, out = write(tmp_path / "own", files), tmp_path / "out"
    refused(personalize(places / "model", text, out), words)
    refused(run("export", places / "personal", "--data", text, "--out", out), words)
    assert not out.exists()


@pytest.mark.parametrize("kind", TEXTS)
def test_a_speaker_whose_text_cannot_be_used_is_named_before_a_fleet_begins(
    kind: str, places: Path, tmp_path: Path
) -> None:
    files, words = TEXTS[kind]
    fleet = tmp_path / "speakers"
    shutil.copytree(places / "speakers", fleet)
    shutil.rmtree(fleet / "speaker-1")
    write(fleet / "speaker-1", files)
    for result in (
        simulate(places / "model", fleet, tmp_path / "run"),
        compare(places / "model", fleet, tmp_path / "compared"),
    ):
        refused(result, words)
        assert "speaker-1" in result.stderr
    assert not (tmp_path / "compared" / "cells").exists()


@pytest.mark.parametrize("model", ["personal", "exported"])
def test_a_file_that_cannot_be_scored_is_named(model: str, places: Path, tmp_path: Path) -> None:
    scored = {**TEXTS, "empty files": (TEXTS["empty files"][0], "a.txt: 0 tokens; expected two or more to score")}
    for kind in ("nothing", "other files", "less than a window"):
        del scored[kind]
    for kind, (files, words) in scored.items():
        folder = write(tmp_path / kind, files)
        refused(run("predict", places / model, *sorted(folder.iterdir())), words)
    refused(run("predict", places / model, tmp_path / "a.txt"), "a.txt: No such file")
    refused(run("predict", places / model, tmp_path / "a.png"), "a language model; give it --prompt, or files of text")


@pytest.mark.parametrize("model", ["personal", "exported"])
@pytest.mark.parametrize(
    ("prompt", "more", "words"),
    [
        ("river " * 70, (), "a prompt of 71 tokens and 60 to go on for: expected 1 or more, and at most 64 together"),
        ("river", ("--tokens", "64"), "at most 64 together, which is what the model reads"),
        ("", (), "a prompt of 0 tokens"),
        ("river \udcff", (), "a prompt that is not UTF-8"),
        ("river", ("--tokens", "0"), "expected 1 or more tokens"),
        ("river", ("--temperature", "nan"), "0 tokens at temperature nan"),
        ("river", ("--temperature", "inf"), "0 tokens at temperature inf"),
    ],
)
def test_a_prompt_that_the_model_cannot_go_on_from_is_refused(
    model: str, prompt: str, more: tuple[str, ...], words: str, places: Path
) -> None:
    refused(run("predict", places / model, "--prompt", prompt, *more), words)


def broken_models(good: Path, folder: Path) -> dict[str, tuple[Path, str]]:
    """Dense models with something wrong, and what the one line says."""

    def copy(name: str) -> Path:
        shutil.copytree(good, folder / name)
        return folder / name

    def change(name: str, file: str, **fields: object) -> Path:
        path = copy(name) / file
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
        return path.parent

    def replace(name: str, content: bytes | None) -> Path:
        file = copy(name) / "tokenizer.json"
        file.unlink() if content is None else file.write_bytes(content)
        return file.parent

    tokens = json.loads((good / "tokenizer.json").read_text())["model"]
    more = {**tokens, "vocab": {**tokens["vocab"], "far away": 400}}
    return {
        "none": (replace("none", None), "its tokenizer.json"),
        "no JSON": (replace("no-json", b"{"), "no-json: the model's tokenizer.json can't be read"),
        "no tokenizer": (replace("no-tokenizer", b"{}"), "no-tokenizer: the model's tokenizer.json can't be read"),
        "not UTF-8": (replace("not-utf8", b"\xff\xfe"), "not-utf8: no tokenizer.json that can be read"),
        "another's": (change("anothers", "tokenizer.json", model=more), "makes 401 tokens, but the model has 320"),
        "end": (change("end", "config.json", eos_token_id=5000), "end: config.json ends texts with token 5000"),
        "piece": (
            change("piece", "config.json", eos_token_id=3),
            "token 3 ends texts in config.json, and here",
        ),
        "below 0": (change("below", "config.json", eos_token_id=-5), "ends texts with token -5, but the model has"),
        "one": (change("one", "config.json", max_position_embeddings=1), "one: a context of 1 tokens: expected 2"),
    }


def test_a_tokenizer_that_does_not_belong_to_the_model_is_refused(places: Path, tmp_path: Path) -> None:
    for model, words in broken_models(places / "model", tmp_path).values():
        out = tmp_path / f"out-{model.name}"
        refused(personalize(model, places / "text", out), words)
        refused(simulate(model, places / "speakers", out), words)
        refused(compare(model, places / "speakers", tmp_path / f"compared-{model.name}"), words)
        refused(run("export", model, "--data", places / "text", "--out", out), words)
        refused(run("export", model, "--format", "gguf", "--out", out), words)
        assert not out.exists() or not any(out.iterdir())


def test_a_tokenizer_of_the_same_size_with_other_numbers_is_found_out_by_the_text(tmp_path: Path) -> None:
    model, text = tmp_path / "model", write(tmp_path / "text", {"a.txt": ordered_words(60)})
    trained_language_model().save_pretrained(model)
    record = json.loads(tiny_tokenizer().to_str())
    (model / "tokenizer.json").write_text(json.dumps(record))
    assert personalize(model, text, tmp_path / "own", "--budget", "0.9").exit_code == 0
    pieces = record["model"]["vocab"]
    # The token that ends texts keeps its number.
    record["model"]["vocab"] = {piece: number and 1 + number * 7 % 319 for piece, number in pieces.items()}
    (model / "tokenizer.json").write_text(json.dumps(record))
    words = "the model's tokenizer does not seem to belong to it"
    refused(personalize(model, text, tmp_path / "others"), words)
    refused(run("predict", model, text / "a.txt"), words)
    refused(run("export", model, "--data", text, "--out", tmp_path / "exported"), words)
    fleet = tmp_path / "speakers"
    for name in ("a", "b", "c"):
        write(fleet / name, {f"{year}.txt": ordered_words(30) for year in range(1900, 1904)})
    refused(simulate(model, fleet, tmp_path / "fleet"), words)
    assert not any((tmp_path / name).exists() for name in ("others", "exported", "fleet"))


def test_a_token_beyond_the_model_has_no_place_in_gguf(places: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(places / "model", model)
    record = json.loads((model / "tokenizer.json").read_text())
    record["added_tokens"].append({**record["added_tokens"][0], "id": 999, "content": "<new>"})
    (model / "tokenizer.json").write_text(json.dumps(record))
    result = run("export", model, "--format", "gguf", "--out", tmp_path / "x.gguf")
    refused(result, "'<new>' is token 999, but the model has tokens 0 to 319")
    assert not (tmp_path / "x.gguf").exists()


def test_a_model_that_is_not_there_is_named(places: Path, tmp_path: Path) -> None:
    empty, file = tmp_path / "empty", tmp_path / "model.gguf"
    empty.mkdir()
    file.write_bytes(b"GGUF")
    for model, loaded, saved in (
        (tmp_path / "no" / "where", "no such folder; expected a model folder or a name", "no personal model here"),
        (empty, "no config.json in it; expected the folder of a model", "no personal model here"),
        (file, "a file; expected the folder that holds config.json", "no personal model here; expected a folder"),
    ):
        out = tmp_path / "out"
        refused(personalize(model, places / "text", out), loaded)
        refused(simulate(model, places / "speakers", out), loaded)
        refused(compare(model, places / "speakers", tmp_path / "compared"), loaded)
        refused(run("export", model, "--data", places / "text", "--out", out), saved)
        refused(run("predict", model, "--prompt", "river"), saved)
        shutil.rmtree(out, ignore_errors=True)


def test_windows_that_do_not_fit_the_model_are_refused(places: Path, tmp_path: Path) -> None:
    model, words = places / "model", "windows of 65 tokens: expected 2 to 64, which is what the model reads"
    long = ("--window-tokens", "65")
    refused(personalize(model, places / "text", tmp_path / "a", *long), words)
    refused(simulate(model, places / "speakers", tmp_path / "b", *long), words)
    refused(compare(model, places / "speakers", tmp_path / "c", window_tokens=65), words)
    few = "3 windows of 16 tokens: expected 8 or more"
    refused(compare(model, places / "speakers", tmp_path / "d", windows=3), few)
    refused(personalize(model, places / "text", tmp_path / "e", "--windows", "3"), few)


def test_images_and_files_are_no_folder_of_text(places: Path, tmp_path: Path) -> None:
    images, file = write(tmp_path / "images", {}), tmp_path / "speech.txt"
    Image.new("L", (8, 8)).save(images / "a.png")
    file.write_text(GOOD)
    folder_of_files = tmp_path / "folders"
    (folder_of_files / "a.txt").mkdir(parents=True)
    for data, words in (
        (images, "images, but the model reads text"),
        (file, "speech.txt: no such folder of text; expected a folder with .txt or .jsonl files"),
        (tmp_path / "missing", "missing: no such folder of text"),
        (folder_of_files, "no text in it"),
    ):
        refused(personalize(places / "model", data, tmp_path / "out"), words)
        refused(run("export", places / "personal", "--data", data, "--out", tmp_path / "out"), words)
