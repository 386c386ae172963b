"""`fedsieve join`, `vault` and `predict` on the command line: what is refused, and a state with and without a key."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from conftest import make_tiny_vit
from PIL import Image
from tiny_text import write_language_model, write_speakers
from typer.testing import CliRunner

import fedsieve
from client.model import keep_model
from client.state import ClientState
from deployment.command import Enrolment, enroll
from deployment.join.settings import JoinSettings
from deployment.join.vault_choice import VaultChoice, make_missing_key, open_state
from personalization.cutting.cut_model import cut_model
from personalization.data.images import ImagePreprocessing
from personalization.model_files.backbone import load_backbone
from personalization.model_files.storage import pack_personal_model, write_personal_model
from personalization.transformer.layers import find_layers

GREY = ImagePreprocessing(channels=1, height=8, width=8, mean=(0.5,), std=(0.5,))


def run(*arguments: str | Path, **environment: str) -> Result:
    return CliRunner().invoke(fedsieve.app, [str(argument) for argument in arguments], env=environment)


def assert_refused(result: Result, *words: str) -> None:
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.strip().splitlines()
    for word in ("error: ", *words):
        assert word in line


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "FEDSIEVE_VAULT_KEY", "FEDSIEVE_VAULT_KEY_OLD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def node(tmp_path: Path) -> Path:
    enroll(tmp_path / "fleet", Enrolment(server="127.0.0.1:9", nodes=["hall"]))
    return tmp_path / "fleet" / "nodes" / "hall.json"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        pixels = rng.integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    return tmp_path / "images"


def packed(seed: int):
    model = make_tiny_vit(seed)
    layers = find_layers(model)
    kept = [np.arange(layer.units) for layer in layers]
    return pack_personal_model(
        cut_model(model, layers, kept),
        layers=layers,
        kept=kept,
        labels=("a", "b", "c"),
        preprocessing=GREY.to_dict(),
        extra={"plan": seed},
    )


def encrypted(tmp_path: Path) -> tuple[Path, ClientState, Path]:
    """A state with a personal model in its vault, opened, and its key."""
    choice = VaultChoice(source="file", name=str(tmp_path / "keys" / "key"))
    make_missing_key(tmp_path / "state", choice)
    state = open_state(tmp_path / "state", choice, {})
    keep_model(state, 1, packed(1))
    return tmp_path / "state", state, Path(choice.name)


def test_a_state_predicts_as_its_model_does_even_while_a_client_works(tmp_path, images):
    folder, state, key = encrypted(tmp_path)
    write_personal_model(tmp_path / "model", packed(1))
    expected = run("predict", tmp_path / "model", *images.iterdir(), "--json").stdout
    with state.exclusive():
        found = run("predict", folder, *images.iterdir(), "--vault-key-file", key, "--json")
        assert found.stdout == expected != ""
        keep_model(state, 2, packed(2))
    newest = run("predict", folder, *images.iterdir(), "--vault-env", "--json", FEDSIEVE_VAULT_KEY=key.read_text())
    assert json.loads(newest.stdout) != json.loads(expected)
    assert_refused(run("predict", folder, images / "0.png"), "no key was given", "--vault-key-file")
    assert_refused(run("predict", tmp_path / "model", images / "0.png", "--vault-key-file", key), "no key")


def test_a_plain_state_predicts_too(tmp_path, images):
    keep_model(ClientState(tmp_path / "state"), 1, packed(1))
    ClientState(tmp_path / "state").add_record(1, {})
    write_personal_model(tmp_path / "model", packed(1))
    expected = run("predict", tmp_path / "model", images / "0.png", "--json").stdout
    assert run("predict", tmp_path / "state", images / "0.png", "--json").stdout == expected != ""


def test_the_vault_is_shown_and_its_key_changed(tmp_path, images):
    folder, state, key = encrypted(tmp_path)
    before = key.read_text()
    shown = run("vault", folder, "--vault-key-file", key, "--json")
    found = json.loads(shown.stdout)
    assert (found["encrypted"], found["plans"], found["rotated"]) == (True, [1], False)
    assert before.strip() not in shown.stdout
    with state.exclusive():
        pass  # of this process: it keeps no other out afterwards
    assert json.loads(run("vault", folder, "--rotate", "--vault-key-file", key, "--json").stdout)["rotated"]
    assert key.read_text() != before
    assert key.stat().st_mode & 0o777 == 0o600
    assert run("predict", folder, images / "0.png", "--vault-key-file", key).exit_code == 0
    old = tmp_path / "keys" / "old"
    old.write_text(before)
    old.chmod(0o600)
    assert_refused(run("vault", folder, "--vault-key-file", old), "is not this vault's key")
    assert_refused(run("vault", images), "not the state of a node")


def test_a_plain_state_has_no_key_to_change(tmp_path):
    ClientState(tmp_path / "state").add_record(1, {})
    assert "not encrypted" in run("vault", tmp_path / "state").stdout
    assert_refused(run("vault", tmp_path / "state", "--rotate"), "no key is configured")


def test_join_refuses_what_it_is_given(node, images, tmp_path, home):
    assert_refused(run("join", tmp_path / "none.json", "--data", images), "none.json", "no such file")
    assert_refused(run("join", node, "--data", tmp_path / "none"), "no such data folder")
    assert_refused(run("join", node, "--data", images, "--budget", "2"), "--budget 2", "above 0 to 1")
    assert_refused(run("join", node, "--data", images, "--vault-env"), "FEDSIEVE_VAULT_KEY is not set")
    assert_refused(run("join", node, "--data", images, "--vault-env", "--no-vault"), "choose one")
    (tmp_path / "key").write_text("ab" * 32)
    (tmp_path / "key").chmod(0o644)
    assert_refused(run("join", node, "--data", images, "--vault-key-file", tmp_path / "key"), "others can read")
    os.chmod(node, 0o644)
    assert_refused(run("join", node, "--data", images), "node file", "chmod 600")
    node.chmod(0o600)
    node.write_text("{}")
    assert_refused(run("join", node, "--data", images), "not a node file")
    assert not (home / ".config").exists()


def test_join_refuses_the_state_of_another_fleet_and_a_lost_key(node, images, tmp_path):
    state = tmp_path / "state"
    asked = ("--data", images, "--state", state)
    enroll(tmp_path / "other", Enrolment(server="127.0.0.1:9", nodes=["hall"]))
    record = json.loads(node.read_text())
    owner = {name: record[name] for name in ("fleet", "name", "node")}
    state.mkdir()
    (state / "join.json").write_text(json.dumps(owner))
    assert_refused(run("join", tmp_path / "other" / "nodes" / "hall.json", *asked), "state of hall in fleet")
    choice = VaultChoice(source="file", name=str(tmp_path / "keys" / "key"))
    make_missing_key(state, choice)
    open_state(state, choice, {}).write("record.json", b"{}")
    assert_refused(run("join", node, *asked, "--no-vault"), "encrypted, but no key was given")
    Path(choice.name).unlink()
    assert_refused(run("join", node, *asked, "--vault-key-file", choice.name), "key is missing; put it back")


def test_a_state_is_exported_with_the_key_that_it_was_joined_with(tmp_path, images):
    state, _, key = encrypted(tmp_path)
    arguments = ("export", state, "--data", images, "--out", tmp_path / "out")
    assert_refused(run(*arguments), "no key was given")
    result = run(*arguments, "--vault-key-file", key, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["check"]["samples"] == 3
    files = sorted(images.iterdir())
    exported = json.loads(run("predict", tmp_path / "out", *files, "--json").stdout)
    stored = json.loads(run("predict", state, *files, "--vault-key-file", key, "--json").stdout)
    assert [p["class"] for p in exported] == [p["class"] for p in stored]


def test_a_model_folder_has_no_key_to_export_it_with(tmp_path, images):
    folder = tmp_path / "model"
    folder.mkdir()
    assert_refused(
        run("export", folder, "--data", images, "--out", tmp_path / "out", "--vault-env"), "not the state of a node"
    )


@pytest.fixture
def text(tmp_path: Path) -> Path:
    return write_speakers(tmp_path / "speakers", speakers=1) / "speaker-0"


def test_join_refuses_text_that_no_plan_could_be_answered_with(node, images, text, tmp_path, home):
    assert_refused(run("join", node, "--data", images, "--windows", "16"), "images, so there are no windows of text")
    assert_refused(run("join", node, "--data", text, "--windows", "7"), "7 windows of 128 tokens: expected 8 or more")
    assert_refused(run("join", node, "--data", text, "--window-tokens", "1"), "16 windows of 1 tokens")
    assert run("join", node, "--data", text, "--recovery", "none").exit_code == 2
    assert_refused(run("join", node, "--data", images, "--vocabulary", "300"), "images, so the model has no vocabulary")
    assert_refused(run("join", node, "--data", images, "--refit-samples", "64"), "images, and a cut is made on all")
    assert_refused(run("join", node, "--data", text, "--vocabulary", "-2"), "a vocabulary of -2 tokens: expected 0")
    assert_refused(run("join", node, "--data", text, "--training-steps", "-1"), "training_steps -1: expected 0 or more")
    (text / "1900.txt").write_bytes(b"gold \xe4")
    assert_refused(run("join", node, "--data", text), "1900.txt: not UTF-8 (byte 5)")
    (tmp_path / "empty").mkdir()
    assert_refused(run("join", node, "--data", tmp_path / "empty"), "no images in it and no text")
    assert not (home / ".config").exists()


def test_join_refuses_adapters_that_this_device_cannot_make(node, text, home, monkeypatch):
    monkeypatch.setattr("personalization.system.extras.importlib.util.find_spec", lambda name: None)
    refused = run("join", node, "--data", text, "--adapters", "2")
    assert_refused(refused, "adapters need the library peft: pip install '.[adapters]'")
    assert not (home / ".config").exists()


def test_what_an_owner_sets_is_in_the_node_configuration_and_nothing_else(text):
    given = JoinSettings(node_file=text, data=text, vocabulary=0, training_steps=0, adapters=0, windows=9)
    assert given.own() == {"vocabulary": 0, "training-steps": 0, "adapters": 0, "windows": 9}
    assert JoinSettings(node_file=text, data=text).own() == {}


def test_a_state_speaks_with_the_key_that_it_was_joined_with(tmp_path, text):
    folder = write_language_model(tmp_path / "dense")
    backbone = load_backbone(str(folder))
    layers = find_layers(backbone.model)
    kept = [np.arange(layer.units) for layer in layers]
    own = pack_personal_model(
        cut_model(backbone.model, layers, kept),
        layers=layers,
        kept=kept,
        preprocessing=backbone.preprocessing.to_dict(),
        extra={"plan": 1},
    )
    state, opened, key = encrypted(tmp_path)
    keep_model(opened, 2, own)
    write_personal_model(tmp_path / "model", own)
    asked = (text / "1903.txt", "--prompt", "the river", "--tokens", "5", "--json")
    expected = run("predict", tmp_path / "model", *asked)
    assert expected.exit_code == 0, expected.output
    with opened.exclusive():
        assert run("predict", state, *asked, "--vault-key-file", key).stdout == expected.stdout != ""
        written = run("export", state, "--format", "gguf", "--out", tmp_path / "own.gguf", "--vault-key-file", key)
        assert written.exit_code == 0, written.output
    assert run("export", tmp_path / "model", "--format", "gguf", "--out", tmp_path / "same.gguf").exit_code == 0
    assert (tmp_path / "own.gguf").read_bytes() == (tmp_path / "same.gguf").read_bytes() != b""
    assert_refused(run("export", state, "--format", "gguf", "--out", tmp_path / "x.gguf"), "no key was given")
    assert_refused(run("predict", state, *asked), "no key was given")
    assert_refused(run("predict", tmp_path / "model", *asked, "--vault-env"), "not the state of a node")
