import csv
import inspect
import io
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from fake_cells import RUN_CELL
from test_cli import ROOT, assert_refused, run

import fedsieve
from simulations.comparison import cells
from simulations.comparison.results import TIMING
from simulations.scenario import bundled_scenarios

FILES = {"cells", "compare.json", "report.html", "results.csv", "summary.json"}


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulations.comparison.command.RUN_CELL", RUN_CELL)


def compare(out: Path, *more: str, strategies: str = "mean,median") -> Result:
    return run("compare", "--strategies", strategies, "--out", out, "--jobs", "2", *more)


def without_times(out: Path) -> list[dict[str, str]]:
    rows = list(csv.DictReader(io.StringIO((out / "results.csv").read_text())))
    return [{key: value for key, value in row.items() if key not in TIMING} for row in rows]


def test_its_help_names_every_bundled_scenario() -> None:
    options = inspect.signature(fedsieve.compare).parameters["scenario"].annotation.__metadata__
    (about,) = [given for given in options if hasattr(given, "help")]
    assert all(re.search(rf"(?<![\w-]){name}\b", about.help) for name in bundled_scenarios())


def test_the_command_itself_loads_no_torch() -> None:
    """What needs torch runs in processes that share one loaded copy: loading it again would cost the cells' time."""
    code = (
        "import sys, simulations.comparison.command; print([n for n in ('torch', 'flwr', 'ray') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.usefixtures("faked")
def test_compare_writes_its_files_and_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = compare(out, "--arms", "dense", "--seeds", "2", "--sweep", "budget=0.3,0.5", "--json")
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed == {"out": str(out), "summary": json.loads((out / "summary.json").read_text())}
    summary = printed["summary"]
    assert summary["methods"] == ["mean", "median", "arm:dense"]
    assert summary["command"] == (
        "fedsieve compare --strategies mean,median --arms dense --scenario benign --sweep budget=0.3,0.5 "
        f"--seeds 2 --first-seed 0 --out {out}"
    )
    assert {path.name for path in out.iterdir()} == FILES
    assert len(list((out / "cells").iterdir())) == 12
    assert "cell 12 of 12" in result.stderr
    assert "there already" not in result.stderr

    more = compare(out, "--arms", "none", "--seeds", "2", "--sweep", "budget=0.3", strategies="mean,krum")
    assert more.exit_code == 0, more.output
    assert "2 of 4 cells are there already" in more.stderr
    assert len(list((out / "cells").iterdir())) == 14
    for word in ("krum", "95 % interval", "worst tenth", "up/round", "report.html"):
        assert word in more.stdout


@pytest.mark.usefixtures("faked")
def test_the_default_arms_are_those_without_weights_on_the_wire(tmp_path: Path) -> None:
    assert compare(tmp_path / "out", "--seeds", "1", strategies="mean").exit_code == 0
    methods = json.loads((tmp_path / "out" / "summary.json").read_text())["methods"]
    assert methods == ["mean", *(f"arm:{n}" for n in ("dense", "local-only", "one-cut", "uniform", "depth-linear"))]


@pytest.mark.usefixtures("faked")
def test_failed_cells_end_with_1_and_the_others_count(tmp_path: Path) -> None:
    result = compare(tmp_path, "--arms", "none", "--first-seed", "12", "--seeds", "2")
    assert result.exit_code == 1
    lines = result.stderr.strip().splitlines()
    assert lines[-1] == "2 cells failed; the same command tries them again, and only them"
    assert any("failed: median, benign, seed 13: an unlucky seed" in line for line in lines)
    assert {path.name for path in tmp_path.iterdir()} == FILES | {"failed"}
    assert {row["seed"] for row in without_times(tmp_path)} == {"12"}
    assert "mean (1 cell failed)" in result.stdout


@pytest.mark.usefixtures("faked")
def test_where_every_cell_fails_there_is_no_page(tmp_path: Path) -> None:
    result = compare(tmp_path, "--arms", "none", "--first-seed", "13", "--seeds", "1")
    assert result.exit_code == 1
    assert not (tmp_path / "report.html").exists()
    assert "report.html" not in result.stdout


@pytest.mark.usefixtures("faked")
def test_an_interrupt_says_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt
        yield

    assert compare(tmp_path, "--arms", "none", "--seeds", "1").exit_code == 0
    monkeypatch.setattr("simulations.comparison.run.run_in_processes", interrupted)
    result = compare(tmp_path, "--arms", "none", "--seeds", "2")
    assert result.exit_code == 130
    assert result.stderr.strip().splitlines()[-1] == (
        "interrupted: 2 of 4 cells are done and kept; the same command goes on from there"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--strategies", "medain"), ("medain", "median")),
        (("--strategies", "trimmed-mean:atackers=0.2"), ("atackers", "attackers")),
        (("--strategies", "krum:attackers=9"), ("krum", "10 clients")),
        (("--strategies", "mean,bulyan", "--sweep", "clients=20,2"), ("bulyan", "fleet.clients=2")),
        (("--strategies", ","), ("no strategies",)),
        (("--arms", "dens"), ("dens", "did you mean dense")),
        (("--scenario", "begnin"), ("begnin", "benign")),
        (("--scenario", "nowhere.toml"), ("nowhere.toml",)),
        (("--sweep", "budgte=0.5"), ("budgte", "budget")),
        (("--sweep", "budget=7"), ("budget", "at most 1")),
        (("--sweep", "budget=much"), ("budget", "number")),
        (("--sweep", "attack.kind=sign-flop"), ("sign-flop", "sign-flip")),
        (("--sweep", "budget"), ("setting=value",)),
        (("--sweep", "budget=0.5", "--sweep", "fleet.budget=0.6"), ("twice",)),
        (("--seeds", "0"), ("0 seeds",)),
        (("--jobs", "0"), ("jobs 0",)),
        (("--engine", "rya"), ("rya", "ray")),
    ],
)
def test_bad_input_is_one_line_before_anything_is_run(
    arguments: Sequence[str], words: Sequence[str], tmp_path: Path
) -> None:
    assert_refused(compare(tmp_path / "out", *arguments), *words)
    assert not (tmp_path / "out").exists()


def test_a_scenario_with_an_unknown_key_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[fleet]\nclinets = 4\n")
    assert_refused(compare(tmp_path / "out", "--scenario", str(file)), "mine.toml", "clinets", "clients")


@pytest.mark.usefixtures("faked")
def test_cells_of_another_version_are_refused_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert compare(tmp_path, "--arms", "none", "--seeds", "1").exit_code == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    monkeypatch.setattr(cells, "CELL_FORMAT", 99)
    monkeypatch.setattr("simulations.comparison.cache.CELL_FORMAT", 99)
    assert_refused(compare(tmp_path, "--arms", "none", "--seeds", "1"), "cell format", "kept")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


@pytest.mark.slow
def test_the_same_real_comparison_twice_has_the_same_results(
    tiny_vit_folder: Path, tiny_data: Path, tmp_path: Path
) -> None:
    scenario = tmp_path / "tiny.toml"
    scenario.write_text(
        f"[fleet]\nclients = 4\nrounds = 1\nfraction = 1.0\nclasses_per_client = 2\nsamples = 12\nprobes = 2\n"
        f'model = "{tiny_vit_folder}"\ndata = "{tiny_data}"\n[attack]\nkind = "random"\nshare = 0.25\n'
    )
    for name, jobs in (("one", "1"), ("two", "2")):
        more = ("--scenario", str(scenario), "--arms", "uniform", "--seeds", "2", "--jobs", jobs)
        result = compare(tmp_path / name, *more, strategies="median")
        assert result.exit_code == 0, result.output
    rows = without_times(tmp_path / "one")
    assert rows == without_times(tmp_path / "two")
    assert {row["method"] for row in rows} == {"median", "arm:uniform"}
    assert {row["status"] for row in rows if row["method"] == "median"} == {"replied", "attacker", "final"}
