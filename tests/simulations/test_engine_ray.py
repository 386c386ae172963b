from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from simulations.fleet import FleetResult, run_fleet
from simulations.fleet_settings import FleetSettings
from tests.tiny_text import write_language_model, write_speakers

EVERYONE = {"clients": 3, "rounds": 2, "fraction": 1.0, "probes": 2}


def run_both(out: Path, settings: Mapping[str, Any]) -> tuple[FleetResult, FleetResult]:
    """Return what the engine in process and Ray report of the same fleet; every client is in every round."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as Ray's workers have; sums in another order would differ in the last digits
    try:
        in_process = run_fleet(FleetSettings(**EVERYONE, **settings, engine="in-process", out=out / "in-process"))
        ray = run_fleet(FleetSettings(**EVERYONE, **settings, engine="ray", out=out / "ray"))
    finally:
        torch.set_num_threads(threads)
    return in_process, ray


def untimed(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != "latency_ms"}


@pytest.mark.slow
@pytest.mark.parametrize("secure", ["off", "sum"])
def test_rays_fleet_ends_where_the_one_in_process_does(tiny_vit_folder, tiny_data, tmp_path, secure):
    """With every client in every round, node ids do not matter, and nothing else may differ between the engines."""
    images = {"classes_per_client": 2, "samples": 16, "model": str(tiny_vit_folder), "data": tiny_data}
    in_process, ray = run_both(tmp_path, {**images, "secure_aggregation": secure})
    for ours, rays in zip(in_process.clients, ray.clients, strict=True):
        assert untimed(ours) == untimed(rays)
    for ours, rays in zip(in_process.rounds, ray.rounds, strict=True):
        assert ours["fleet"] == rays["fleet"]
        assert ours.get("secure") == rays.get("secure")
        assert ("secure" in ours) == (secure == "sum")
        assert ours["clients_replied"] == rays["clients_replied"] == 3


@pytest.mark.slow
def test_rays_speakers_end_where_those_in_process_do(tmp_path):
    model, data = write_language_model(tmp_path / "model"), write_speakers(tmp_path / "speakers")
    text = {"windows": 10, "window_tokens": 16, "tolerance": 20.0, "budget": 0.7, "canaries": 1}
    in_process, ray = run_both(tmp_path, {**text, "model": str(model), "data": data})
    assert [client["name"] for client in ray.clients] == ["speaker-0", "speaker-1", "speaker-2"]
    for ours, rays in zip(in_process.clients, ray.clients, strict=True):
        assert untimed(ours) == untimed(rays)
    assert [done["fleet"] for done in in_process.rounds] == [done["fleet"] for done in ray.rounds]
