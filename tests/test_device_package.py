"""`fedsieve predict` on an exported model where there is neither torch nor transformers nor Flower."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_export import save_tiny_personal, write_images
from tiny_text_export import save_tiny_speaker, write_text

from personalization.export.export_model import export_folder
from personalization.prediction.continuation import Generation
from simulations.device import predict_files, predict_text

ROOT = Path(__file__).parents[1]
# What of the Python packages on this machine a device may need: the three, what they need, and the command line's.
RUNTIME = {"PIL", "google", "flatbuffers", "numpy", "onnxruntime"}
TEXT = RUNTIME | {"tokenizers"}
COMMAND_LINE = {"annotated_doc", "click", "markdown_it", "mdurl", "pygments", "rich", "shellingham", "typer"}

# Hides every installed package that is not in the list, and names what was asked for.
HIDE = """
import sys, sysconfig, pathlib, importlib.machinery
allowed = set(sys.argv[1].split(","))
class Hidden:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        spec = None if path else importlib.machinery.PathFinder.find_spec(name)
        installed = spec is not None and "site-packages" in str(spec.origin or spec.submodule_search_locations)
        if installed and top not in allowed | {"typing_extensions", "fedsieve"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hidden())
"""


def python(code: str, allowed: set[str], *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", HIDE + code, ",".join(sorted(allowed)), *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def fedsieve(*arguments: str | Path, allowed: set[str] = RUNTIME) -> subprocess.CompletedProcess[str]:
    code = "del sys.argv[1]\nimport fedsieve\nfedsieve.main()"
    return python(code, allowed | COMMAND_LINE, *arguments)


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("device")
    save_tiny_personal(base / "personal")
    write_images(base / "images", 8)
    export_folder(base / "personal", base / "images", base / "out", precision="int8-static")
    return base


@pytest.mark.parametrize("name", ["torch", "transformers", "flwr", "safetensors", "plotly", "onnx"])
def test_the_packages_are_hidden(name: str) -> None:
    done = python(f"import {name}", RUNTIME | COMMAND_LINE)
    assert done.returncode == 1
    assert f"No module named '{name}'" in done.stderr


def test_predict_needs_numpy_onnxruntime_and_pillow_alone(device: Path) -> None:
    code = """
import json
from personalization.device.predict import predict_files
print(json.dumps(predict_files(pathlib.Path(sys.argv[2]), list(map(pathlib.Path, sys.argv[3:])))))
"""
    images = sorted((device / "images").iterdir())
    done = python(code, RUNTIME, device / "out", *images)
    assert done.returncode == 0, done.stderr
    ours, theirs = json.loads(done.stdout), predict_files(device / "personal", images)
    assert [p["file"] for p in ours] == [p["file"] for p in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert a["probability"] == pytest.approx(b["probability"], abs=0.1)


def test_the_command_runs_without_torch(device: Path) -> None:
    images = sorted((device / "images").iterdir())[:2]
    done = fedsieve("predict", device / "out", *images, "--json")
    assert done.returncode == 0, done.stderr
    assert [p["file"] for p in json.loads(done.stdout)] == [str(path) for path in images]
    shown = fedsieve("predict", device / "out", images[0])
    assert "probability" in shown.stdout, shown.stderr
    assert "Usage" in fedsieve("--help").stdout


def test_a_command_that_needs_more_says_what_to_install(device: Path) -> None:
    done = fedsieve("predict", device / "personal", device / "images" / "000.png")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert "pip install '.[fleet]'" in done.stderr


def test_a_language_model_needs_tokenizers_beside_it(tmp_path: Path) -> None:
    personal, text = save_tiny_speaker(tmp_path / "speaker"), write_text(tmp_path / "text")
    export_folder(personal, text, tmp_path / "out", precision="fp32")
    arguments = ("predict", tmp_path / "out", text / "0.txt", "--prompt", "the river", "--tokens", "5", "--json")
    done = fedsieve(*arguments, allowed=TEXT)
    assert done.returncode == 0, done.stderr
    ours = json.loads(done.stdout)
    settings = Generation(tokens=5)
    theirs = predict_text(personal, prompt="the river", files=[text / "0.txt"], settings=settings)
    assert ours["continuation"] == theirs["continuation"]
    assert ours["scores"][0]["nats"] == pytest.approx(theirs["scores"][0]["nats"], rel=1e-4)
    without = fedsieve(*arguments)
    assert without.returncode == 2
    assert without.stderr.count("\n") == 1
    assert "pip install '.[device-text]'" in without.stderr
