import errno
import inspect
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

import fedsieve
from personalization.data.image_data import read_images
from personalization.data.images import ImagePreprocessing, to_pixel_values
from personalization.errors import UserError
from personalization.model_files.backbone import load_backbone
from simulations.fleet_settings import FleetSettings

ROOT = Path(__file__).parents[1]
COMMANDS: dict[str, Any] = typer.main.get_command(fedsieve.app).commands
SMALL = ("--clients", "3", "--rounds", "1", "--fraction", "1", "--samples", "24", "--classes-per-client", "2")


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(fedsieve.app, [str(argument) for argument in arguments])


def assert_refused(result: Result, *words: str) -> None:
    """One line on standard error that holds `words`, exit code 2, no traceback and nothing on standard output."""
    assert result.exit_code == 2, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert result.stdout == ""
    for word in words:
        assert word in lines[0]


def write_images(folder: Path, count: int, seed: int = 0) -> Path:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for number in range(count):
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / f"{number:03}.png")
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images", 40)


def simulate(model: Path, data: Path, out: Path, *more: str) -> Result:
    return run("simulate", *SMALL, "--model", model, "--data", data, "--out", out, *more)


def personalize(model: Path, data: Path, out: Path, *more: str | Path) -> Result:
    return run("personalize", "--model", model, "--data", data, "--out", out, *more)


def test_help_is_quick_to_import() -> None:
    heavy = ("torch", "transformers", "flwr", "plotly", "ray")
    code = f"import sys, fedsieve; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_argument_and_option_shows_its_help(command: str) -> None:
    result = CliRunner().invoke(fedsieve.app, [command, "--help"], env={"COLUMNS": "200"})
    shown = _words(result.output)
    for parameter in COMMANDS[command].params:
        assert parameter.help, parameter.name
        assert _words(parameter.help) in shown, parameter.name


def _words(text: str) -> str:
    """Return `text` without the boxes around it, with single spaces between its words."""
    return " ".join(re.sub("[│*]", " ", text).split())


def test_defaults_are_those_of_the_fleet() -> None:
    own = {name: p.default for name, p in inspect.signature(fedsieve.simulate).parameters.items()}
    fleet = {name: field.default for name, field in FleetSettings.__dataclass_fields__.items()}
    for name in set(own) & set(fleet) - {"out"}:
        assert own[name] == fleet[name], name


def test_simulate_writes_a_report_and_refuses_to_overwrite_it(
    tiny_vit_folder: Path, tiny_data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    result = simulate(tiny_vit_folder, tiny_data, out, "--json")
    assert result.exit_code == 0, result.output
    printed, report = json.loads(result.stdout), json.loads((out / "report.json").read_text())
    assert printed == {"out": str(out), "summary": report["summary"]}
    assert len(report["clients"]) == 3
    assert "final pass: 3 of 3 clients replied" in result.stderr
    assert "Accuracy against size" in (out / "report.html").read_text()
    before = (out / "report.json").read_bytes()
    assert_refused(simulate(tiny_vit_folder, tiny_data, out), str(out), "holds another run", "--resume")
    assert_refused(simulate(tiny_vit_folder, tiny_data, out, "--resume", "--seed", "5"), "different settings", "seed")
    assert (out / "report.json").read_bytes() == before
    again = simulate(tiny_vit_folder, tiny_data, out, "--resume")
    assert again.exit_code == 0
    assert "personal accuracy" in again.stdout

    prior = out / "report.json"
    device = personalize(tiny_vit_folder, write_images(tmp_path / "own", 40), tmp_path / "m", "--prior", prior)
    assert device.exit_code == 0, device.output


def test_personalize_then_predict(tiny_vit_folder: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "personal"
    result = personalize(tiny_vit_folder, images, out, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert [layer["layer"] for layer in report["layers"]] == ["0.attention", "0.mlp", "1.attention", "1.mlp"]
    assert report["footprint"]["personal"]["weights"] < report["footprint"]["dense"]["weights"]

    files = sorted(images.iterdir())[:3]
    predictions = json.loads(run("predict", out, *files, "--json").stdout)
    assert [p["file"] for p in predictions] == [str(file) for file in files]
    assert all(p["class"] in "abc" and 1 / 3 <= p["probability"] <= 1 for p in predictions)
    assert "probability" in run("predict", out, files[0]).stdout


def test_personalize_prints_tables(tiny_vit_folder: Path, images: Path, tmp_path: Path) -> None:
    result = personalize(tiny_vit_folder, images, tmp_path / "personal")
    assert result.exit_code == 0, result.output
    for word in ("1.mlp", "footprint", "agrees", "fedsieve predict"):
        assert word in result.stdout


def test_predict_asks_a_dense_model_too(tiny_vit_folder: Path, images: Path) -> None:
    backbone = load_backbone(str(tiny_vit_folder))
    assert isinstance(backbone.preprocessing, ImagePreprocessing)
    files = sorted(images.iterdir())[:3]
    pixels = to_pixel_values(read_images(files, backbone.preprocessing), backbone.preprocessing)
    with torch.inference_mode():
        expected = backbone.model(pixel_values=pixels).logits.softmax(-1)
    predictions = json.loads(run("predict", tiny_vit_folder, *files, "--json").stdout)
    assert [p["class"] for p in predictions] == [backbone.labels[int(i)] for i in expected.argmax(-1)]
    assert [p["probability"] for p in predictions] == pytest.approx(expected.amax(-1).tolist())


def test_predict_reads_many_files_in_batches(tiny_vit_folder: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "personal"
    assert personalize(tiny_vit_folder, images, out).exit_code == 0
    files = sorted(images.iterdir()) * 2
    predictions = json.loads(run("predict", out, *files, "--json").stdout)
    assert [p["file"] for p in predictions] == [str(file) for file in files]
    assert predictions[:40] == predictions[40:]


@pytest.mark.parametrize("budget", ["0", "1.5", "-1", "nan"])
@pytest.mark.parametrize("command", ["simulate", "personalize"])
def test_refuses_a_budget_outside_0_to_1(command: str, budget: str, images: Path, tmp_path: Path) -> None:
    result = run(command, "--data", images, "--out", tmp_path / "out", "--budget", budget)
    assert_refused(result, "budget", "above 0 and at most 1")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["missing", "empty"])
@pytest.mark.parametrize("command", [simulate, personalize])
def test_refuses_a_missing_or_empty_data_folder(command: Any, name: str, tiny_vit_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert_refused(command(tiny_vit_folder, tmp_path / name, tmp_path / "out"), name)
    assert not (tmp_path / "out").exists()


def test_refuses_an_image_that_cannot_be_decoded(tiny_vit_folder: Path, images: Path, tmp_path: Path) -> None:
    (images / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n but no more")
    assert_refused(personalize(tiny_vit_folder, images, tmp_path / "out"), "broken.png", "decoded")
    assert not (tmp_path / "out").exists()


def test_predict_refuses_an_image_that_cannot_be_decoded(tiny_vit_folder: Path, images: Path, tmp_path: Path) -> None:
    assert personalize(tiny_vit_folder, images, tmp_path / "out").exit_code == 0
    (images / "broken.png").write_text("not an image")
    assert_refused(run("predict", tmp_path / "out", *sorted(images.iterdir())), "broken.png", "decoded")
    assert_refused(run("predict", tmp_path / "out", images / "none.png"), "none.png", "no such image")


def test_refuses_labels_that_the_model_does_not_know(tiny_vit_folder: Path, tmp_path: Path) -> None:
    for label in ("a", "zebra"):
        write_images(tmp_path / "data" / label, 20)
    for command in (simulate, personalize):
        assert_refused(command(tiny_vit_folder, tmp_path / "data", tmp_path / "out"), "zebra", "a, b, c")
    assert not (tmp_path / "out").exists()


def test_refuses_the_loss_signal_without_labels(tiny_vit_folder: Path, images: Path, tmp_path: Path) -> None:
    assert_refused(personalize(tiny_vit_folder, images, tmp_path / "out", "--signal", "loss"), "labels", "entropy")


def test_refuses_too_few_private_samples(tiny_vit_folder: Path, tiny_data: Path, tmp_path: Path) -> None:
    data = write_images(tmp_path / "one", 1)
    assert_refused(personalize(tiny_vit_folder, data, tmp_path / "out"), "1 private samples", "probes need")
    result = simulate(tiny_vit_folder, tiny_data, tmp_path / "out", "--samples", "3")
    assert_refused(result, "3 private samples", "probes need")
    assert not (tmp_path / "out").exists()


def test_refuses_a_model_that_is_not_supported(images: Path, tmp_path: Path) -> None:
    folder = tmp_path / "resnet"
    folder.mkdir()
    (folder / "config.json").write_text('{"architectures": ["NoSuchModel"], "model_type": "none"}')
    shutil.copy(ROOT / "simulations/assets/vit_fashion_mnist/model.safetensors", folder)
    assert_refused(personalize(folder, images, tmp_path / "out"), "NoSuchModel")
    assert_refused(personalize(tmp_path / "nowhere", images, tmp_path / "out"), "nowhere", "no such folder")


def test_refuses_a_truncated_model(tiny_vit_folder: Path, images: Path, tmp_path: Path) -> None:
    weights = tiny_vit_folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    for command in (simulate, personalize):
        assert_refused(command(tiny_vit_folder, images, tmp_path / "out"), "model.safetensors", "truncated")
    assert not (tmp_path / "out").exists()


def test_predict_refuses_a_changed_personal_model(tiny_vit_folder: Path, images: Path, tmp_path: Path) -> None:
    out, image = tmp_path / "out", images / "000.png"
    assert_refused(run("predict", out, image), "no personal model")
    assert personalize(tiny_vit_folder, images, out).exit_code == 0
    (weights,) = out.glob("*.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert_refused(run("predict", out, image), "hash")
    weights.write_bytes(content[:-1])
    assert_refused(run("predict", out, image), "truncated")


def test_refuses_more_classes_per_client_than_classes(tiny_vit_folder: Path, tiny_data: Path, tmp_path: Path) -> None:
    result = simulate(tiny_vit_folder, tiny_data, tmp_path / "out", "--classes-per-client", "7")
    assert_refused(result, "7 classes per client", "3")
    assert not (tmp_path / "out").exists()


def test_refuses_to_resume_nothing(tiny_vit_folder: Path, tiny_data: Path, tmp_path: Path) -> None:
    assert_refused(run("simulate", "--resume"), "--out")
    assert_refused(simulate(tiny_vit_folder, tiny_data, tmp_path / "out", "--resume"), "no run to resume")
    assert not (tmp_path / "out").exists()


def test_refuses_to_write_a_model_among_other_files(tiny_vit_folder: Path, images: Path) -> None:
    before = sorted(images.iterdir())
    assert_refused(personalize(tiny_vit_folder, images, images), str(images), "something else")
    assert sorted(images.iterdir()) == before


@pytest.mark.parametrize("text", ["", "[]", '{"prior": null}', '{"prior": {"sensitivity": [1], "precision": [-1]}}'])
def test_refuses_a_file_without_a_prior(text: str, tiny_vit_folder: Path, images: Path, tmp_path: Path) -> None:
    prior = tmp_path / "report.json"
    prior.write_text(text)
    assert_refused(personalize(tiny_vit_folder, images, tmp_path / "out", "--prior", prior), "holds no prior")


def test_refuses_the_prior_of_another_model(tiny_vit_folder: Path, images: Path, tmp_path: Path) -> None:
    prior = tmp_path / "report.json"
    prior.write_text('{"prior": {"sensitivity": [1, 2], "precision": [1, 1]}}')
    assert_refused(personalize(tiny_vit_folder, images, tmp_path / "out", "--prior", prior), "2 entries")


def _limited(arguments: Sequence[str | Path], limit: int) -> subprocess.CompletedProcess[str]:
    """Run the command line where no file can grow beyond `limit` bytes: what a full disk does to a write."""

    def small_disk() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "-m", "fedsieve", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, preexec_fn=small_disk)


def test_a_disk_that_fills_keeps_the_old_model(tiny_vit_folder: Path, images: Path, tmp_path: Path) -> None:
    out, image = tmp_path / "out", images / "000.png"
    assert personalize(tiny_vit_folder, images, out).exit_code == 0
    before = run("predict", out, image, "--json").stdout
    arguments = ("personalize", "--model", tiny_vit_folder, "--data", images, "--out", out, "--budget", "0.9")
    done = _limited(arguments, limit=4096)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")
    assert run("predict", out, image, "--json").stdout == before


def test_a_disk_that_fills_during_a_run_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "journal.json")

    monkeypatch.setattr("simulations.fleet.run_fleet", full)
    assert_refused(run("simulate", "--out", tmp_path / "out"), "journal.json", "No space left")


def test_other_faults_are_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr("simulations.fleet.run_fleet", broken)
    assert isinstance(run("simulate", "--out", tmp_path / "out").exception, RuntimeError)


def test_an_interrupt_is_one_line_and_130(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("simulations.fleet.run_fleet", interrupted)
    result = run("simulate", "--out", tmp_path / "out")
    assert result.exit_code == 130
    assert result.stderr.strip() == "interrupted"


def test_a_message_of_several_lines_becomes_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise UserError("[red]first\n  second " + "x" * 300)

    monkeypatch.setattr("simulations.fleet.run_fleet", refused)
    assert_refused(run("simulate", "--out", tmp_path / "out"), "[red]first second")


@pytest.mark.parametrize("arguments", [("--nonsense",), ("simulate", "--clients", "many"), ("nonsense",)])
def test_usage_errors_exit_with_2(arguments: Sequence[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.output
