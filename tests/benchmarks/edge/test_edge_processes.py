"""The demonstration itself, smaller: three devices, two rounds, and the server killed in the second.

What it raises for is what is tested: a command that fails, a device without its model, a process that stays, and plans
or personal models that are not, bit for bit, the simulator's.
"""

from pathlib import Path

import pytest
from tiny_text import VOCABULARY, write_language_model, write_speakers

from benchmarks.edge.run import run_edge
from benchmarks.edge.settings import EdgeSettings
from client.entries import WINDOWS
from client.model import load_model
from deployment.join.layout import is_state
from deployment.join.stored import open_stored
from deployment.join.vault_choice import VaultChoice


@pytest.mark.proxy
@pytest.mark.slow
def test_a_deployed_fleet_survives_and_comes_to_the_plans_of_the_simulator(tmp_path: Path) -> None:
    settings = EdgeSettings(
        out=tmp_path / "edge", devices=3, rounds=2, samples=24, probes=2, kill_device_in=None, kill_server_in=2
    )
    lines: list[str] = []
    report = run_edge(settings, say=lines.append)
    assert report["same_as_simulated"]
    assert [row["plans"] for row in report["devices"]] == [[1, 2, 3]] * 3
    assert report["totals"]["failures"] == 0
    assert report["nodes_online"] == 3
    assert report["server"]["round_seconds"] > report["server"]["ready_seconds"] > 0
    assert any("kill -9 of the server" in line for line in lines)
    for row in report["devices"]:
        assert row["exported_bytes"] < row["bytes"] < report["dense_bytes"]
        assert row["personal_accuracy"] > 0.5
        assert is_state(settings.out / "devices" / row["device"] / "state")


@pytest.mark.proxy
@pytest.mark.slow
def test_a_deployed_fleet_of_speakers_that_cuts_vocabularies_and_trains_does_too(tmp_path: Path) -> None:
    settings = EdgeSettings(
        out=tmp_path / "edge", devices=3, rounds=2, data=write_speakers(tmp_path / "speakers"), windows=10,
        window_tokens=16, vocabulary=280, recovery="tune", training_steps=5, budget=0.7, probes=2, kill_device_in=2,
        kill_server_in=None,
    )  # fmt: skip
    report = run_edge(settings, model=write_language_model(tmp_path / "model"))
    assert report["same_as_simulated"]
    assert [row["plans"] for row in report["devices"][1:]] == [[1, 2, 3]] * 2
    written = set()
    for row in report["devices"]:
        assert row["samples"] == 10
        assert row["continuation"]
        assert 0 < row["weights_kept"] <= 1
        assert row["perplexity_ratio"] > 0
        assert row["peak_memory_bytes"] > 0
        folder = settings.out / "devices" / row["device"]
        state, _ = open_stored(folder / "state", VaultChoice(source="file", name=str(key_file(folder))), {})
        written.add(state.vault._index.entries[WINDOWS].generation)
        model = load_model(state).model
        assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
        assert len(model.get_input_embeddings().weight) <= 280 < VOCABULARY
    assert len(written) == 1  # with the first plan: the device that was killed wrote its windows no second time


def key_file(folder: Path) -> Path:
    (found,) = (folder / "home").rglob("*.key")
    return found
