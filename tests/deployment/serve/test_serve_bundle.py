import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from client.settings import _KEYS
from deployment.serve.bundle import PACKAGES, build_bundle
from deployment.serve.settings import ServeSettings
from personalization.settings import PersonalizationSettings

ROOT = Path(__file__).parents[3]
CONFIG = {"num-rounds": 3, "extend": True, "quorum": 0.5, "model": '/a "b"\\c é'}


def contents(bundle: bytes) -> zipfile.ZipFile:
    return zipfile.ZipFile(BytesIO(bundle))


def test_the_bundle_holds_the_packages_that_a_run_needs_and_its_settings():
    archive = contents(build_bundle(CONFIG))
    names = archive.namelist()
    assert {"server/app.py", "client/app.py", "strategies/registry.py", "personalization/recovery/__init__.py"} <= {
        *names
    }
    code = {name.split("/")[0] for name in names if name.endswith(".py")}
    assert code == set(PACKAGES)
    project = tomllib.loads(archive.read("pyproject.toml").decode())
    assert project["tool"]["flwr"]["app"]["config"] == CONFIG
    assert project["tool"]["flwr"]["app"]["components"] == {
        "serverapp": "server.app:app",
        "clientapp": "client.app:app",
    }


def test_installed_packages_give_what_the_checkout_gives(tmp_path):
    for package in (*PACKAGES, "deployment"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    code = (
        "import sys, hashlib; from deployment.serve.bundle import build_bundle; import server; "
        f"print(server.__file__, hashlib.sha256(build_bundle({CONFIG!r})).hexdigest())"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    path, digest = done.stdout.split()
    assert Path(path).is_relative_to(tmp_path)
    assert digest == hashlib.sha256(build_bundle(CONFIG)).hexdigest()


def test_a_served_run_asks_of_devices_what_the_default_configuration_asks(tmp_path):
    defaults = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
    settings = PersonalizationSettings()
    for key in _KEYS:
        assert defaults[key] == getattr(settings, key.replace("-", "_")), key
    served = ServeSettings(
        fleet=tmp_path, state=tmp_path, model="m", host="::1", port=1, superlink_port=2, status=None
    ).run_config()
    assert set(served) <= set(defaults)
    for key in (
        "num-rounds",
        "quorum",
        "strategy",
        "seed",
        "budget",
        "budget-kind",
        "probes",
        "final-probes",
        "deadline",
        "recovery",
        "refit-samples",
        "tune-first",
        "training-steps",
        "adapters",
        "training-precision",
        "vocabulary",
        "windows",
        "window-tokens",
    ):
        assert served[key] == defaults[key], key


@pytest.mark.parametrize("value", [True, 0.25, 7, "a\nb"])
def test_every_kind_of_setting_survives(value):
    project = tomllib.loads(contents(build_bundle({"seed": value})).read("pyproject.toml").decode())
    assert project["tool"]["flwr"]["app"]["config"]["seed"] == value
