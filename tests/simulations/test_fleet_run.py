import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import fake_personalize

from personalization.errors import UserError
from simulations.evaluation import DenseFigures, summarize
from simulations.fleet import run_fleet, working_threads
from simulations.fleet_settings import FleetSettings

TIMES = {"seconds", "latency_ms", "latency_ms_mean", "latency_ms_dense", "wall_seconds", "cpu_seconds"}
TIMES |= {"peak_memory_bytes"}
ROUND = {
    "round", "clients_sampled", "clients_replied", "evaluations_per_client", "dropped_units", "uplink_bytes",
    "downlink_bytes", "seconds",
}  # fmt: skip
CLIENT = {
    "client", "samples", "dense_accuracy", "dense_fitted_accuracy",
    "personal_accuracy", "agreement", "weights_kept", "bytes", "latency_ms",
    "personalized_layers", "evaluations", "fit_r2",
}  # fmt: skip
SUMMARY = {
    "dense_accuracy_mean", "dense_fitted_accuracy_mean",
    "personal_accuracy_mean", "personal_accuracy_worst_decile", "weights_kept_mean",
    "bytes_mean", "bytes_dense", "latency_ms_mean", "latency_ms_dense", "uplink_bytes_per_client_round_mean",
    "downlink_bytes_first_contact_mean", "downlink_bytes_later_mean", "evaluations_per_client_mean", "wall_seconds",
    "cpu_seconds", "peak_memory_bytes",
}  # fmt: skip


def settings(model, data, out, **changes):
    chosen = {
        "clients": 4, "rounds": 2, "fraction": 0.5, "classes_per_client": 2, "samples": 12, "probes": 2,
        "model": str(model), "data": data, "out": out,
    }  # fmt: skip
    return FleetSettings(**{**chosen, **changes})


def without_times(value):
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in TIMES}
    return [without_times(v) for v in value] if isinstance(value, list) else value


@pytest.fixture
def faked(monkeypatch):
    monkeypatch.setattr("client.work.own_personalize", fake_personalize)


@pytest.mark.usefixtures("faked")
def test_the_report_has_what_was_promised_for_all_clients(tiny_vit_folder, tiny_data, tmp_path):
    seen = []
    report = run_fleet(settings(tiny_vit_folder, tiny_data, tmp_path / "out"), on_round=seen.append).to_report()
    assert json.loads(json.dumps(report)) == report
    assert [record["round"] for record in seen] == [1, 2, 3]
    assert [record["round"] for record in report["rounds"]] == [1, 2]
    assert [row["client"] for row in report["clients"]] == [0, 1, 2, 3]
    assert set(report["rounds"][0]) >= ROUND
    assert set(report["clients"][0]) >= CLIENT
    assert set(report["summary"]) >= SUMMARY
    assert set(report["model"]) >= {"id", "weights", "units", "layers"}
    assert all(record["evaluations_per_client"] == 2 for record in report["rounds"])
    assert report["final"]["evaluations_per_client"] == 0
    assert sum(row["evaluations"] for row in report["clients"]) == 2 * 2 * 2


@pytest.mark.usefixtures("faked")
def test_the_same_seed_gives_the_same_report(tiny_vit_folder, tiny_data, tmp_path):
    reports = [
        run_fleet(settings(tiny_vit_folder, tiny_data, tmp_path / str(seed_run), seed=seed)).to_report()
        for seed_run, seed in enumerate((1, 1, 2))
    ]
    assert without_times(reports[0]) == without_times(reports[1])
    assert without_times(reports[0]["rounds"]) != without_times(reports[2]["rounds"]) or (
        reports[0]["clients"] != reports[2]["clients"]
    )


@pytest.mark.usefixtures("faked")
def test_who_has_spent_its_budget_sits_out_and_the_report_says_so(tiny_vit_folder, tiny_data, tmp_path):
    """Every client is asked twice and can pay once; without noise, none can."""
    chosen = {"fraction": 1.0, "dp": "central", "epsilon": 4.0, "epsilon_budget": 3.2}
    report = run_fleet(settings(tiny_vit_folder, tiny_data, tmp_path / "out", **chosen)).to_report()
    assert [record["failures"] for record in report["rounds"]] == [{}, {"budget_spent": 4}]
    assert report["final"]["clients_replied"] == 4
    assert report["summary"]["clients_sat_out"] == 4
    assert report["settings"]["epsilon-budget"] == 3.2
    chosen["epsilon_budget"] = 8.0
    enough = run_fleet(settings(tiny_vit_folder, tiny_data, tmp_path / "enough", **chosen)).to_report()
    assert [record["failures"] for record in enough["rounds"]] == [{}, {}]
    assert enough["summary"]["clients_sat_out"] == 0


def test_a_run_that_fails_before_its_first_round_leaves_nothing(tiny_vit_folder, tiny_data, tmp_path, monkeypatch):
    def fails(*_, **__):
        raise UserError("12 samples are fewer than the probes need")

    monkeypatch.setattr("client.work.own_personalize", fails)
    with pytest.raises(UserError, match="12 samples are fewer than the probes need"):
        run_fleet(settings(tiny_vit_folder, tiny_data, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "bad",
    [
        {"clients": 0},
        {"rounds": -1},
        {"fraction": 0.0},
        {"engine": "x"},
        {"budget": 1.5},
        {"solver": "x"},
        {"seed": -1},
        {"epsilon_budget": 0.0},
        {"epsilon_budget": 1.0, "engine": "ray"},
    ],
)
def test_settings_that_make_no_sense_are_refused_before_anything_is_written(bad, tmp_path):
    with pytest.raises(UserError):
        FleetSettings(out=tmp_path / "out", **bad)
    assert not (tmp_path / "out").exists()


def test_more_classes_than_there_are_is_one_clear_line(tiny_vit_folder, tiny_data, tmp_path):
    with pytest.raises(UserError, match="4 classes per client"):
        run_fleet(settings(tiny_vit_folder, tiny_data, tmp_path / "out", classes_per_client=4))
    assert not (tmp_path / "out").exists()


def test_every_setting_of_a_fleet_can_be_given_to_flwr_run():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    known = set(project["tool"]["flwr"]["app"]["config"])
    only_simulated = {"engine"}  # and clients, which become min-nodes
    assert set(FleetSettings(out=Path("x")).run_config()) - only_simulated <= known


def test_the_worst_decile_is_the_mean_of_the_worst_tenth():
    keys = (
        "dense_accuracy",
        "dense_fitted_accuracy",
        "agreement",
        "weights_kept",
        "bytes",
        "latency_ms",
        "evaluations",
    )
    rows = [{**dict.fromkeys(keys, 1.0), "personal_accuracy": i / 20} for i in np.random.default_rng(0).permutation(20)]
    record = dict.fromkeys(
        ("uplink_bytes", "replies", "first_contact_bytes", "first_contacts", "later_bytes", "later_messages"), 0
    )
    summary = summarize(rows, [], record, DenseFigures({}, 1, 1.0))
    assert summary["personal_accuracy_worst_decile"] == pytest.approx((0 + 1 / 20) / 2)
    assert summary["downlink_bytes_later_mean"] == 0.0


_CHILD = """
import json, sys
from pathlib import Path
import client.work
from conftest import fake_personalize
client.work.own_personalize = fake_personalize
from simulations.fleet import run_fleet
from simulations.fleet_settings import FleetSettings
arguments = json.loads(sys.argv[1])
arguments.update(out=Path(arguments["out"]), data=Path(arguments["data"]))
mark = lambda record: Path(arguments["out"], f"done-{record['round']}").touch()
result = run_fleet(FleetSettings(**arguments), on_round=mark)
Path(arguments["out"], "result.json").write_text(json.dumps(result.to_report()))
"""


def start(arguments) -> subprocess.Popen:
    root = Path(__file__).parents[2]
    path = os.pathsep.join([str(root), str(root / "tests"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", _CHILD, json.dumps(arguments)], env=environment)


@pytest.mark.slow
def test_a_run_killed_after_a_round_and_resumed_ends_like_one_never_killed(tiny_vit_folder, tiny_data, tmp_path):
    def arguments(out, **changes):
        own = {
            "clients": 20, "rounds": 8, "fraction": 1.0, "classes_per_client": 1, "samples": 2, "probes": 2,
            "model": str(tiny_vit_folder), "data": str(tiny_data), "out": str(out),
        }  # fmt: skip
        return {**own, **changes}

    assert start(arguments(tmp_path / "whole")).wait(300) == 0
    killed = tmp_path / "killed"
    process = start(arguments(killed))
    while not (killed / "done-3").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    assert not (killed / "done-9").exists()
    assert start(arguments(killed, resume=True)).wait(300) == 0
    reports = [json.loads((out / "result.json").read_text()) for out in (tmp_path / "whole", killed)]
    assert without_times(reports[0]) == without_times(reports[1])


@pytest.mark.parametrize(("weights", "threads"), [(1_000_000, 1), (22_000_000, 1), (135_000_000, 6)])
def test_only_large_models_are_worked_on_with_all_threads(weights, threads):
    with torch.device("meta"):
        model = torch.nn.Linear(1000, weights // 1000)
    assert working_threads(model, 6) == threads
