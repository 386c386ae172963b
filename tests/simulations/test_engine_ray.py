import pytest
import torch

from simulations.fleet import run_fleet
from simulations.fleet_settings import FleetSettings


@pytest.mark.slow
@pytest.mark.parametrize("secure", ["off", "sum"])
def test_rays_fleet_ends_where_the_one_in_process_does(tiny_vit_folder, tiny_data, tmp_path, secure):
    """With every client in every round, node ids do not matter, and nothing else may differ between the engines."""
    reports = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as Ray's workers have; sums in another order would differ in the last digits
    try:
        for engine in ("in-process", "ray"):
            settings = FleetSettings(
                clients=3,
                rounds=2,
                fraction=1.0,
                classes_per_client=2,
                samples=16,
                probes=2,
                model=str(tiny_vit_folder),
                data=tiny_data,
                engine=engine,
                secure_aggregation=secure,
                out=tmp_path / engine,
            )
            reports[engine] = run_fleet(settings)
    finally:
        torch.set_num_threads(threads)
    for ours, rays in zip(reports["in-process"].clients, reports["ray"].clients, strict=True):
        assert {k: v for k, v in ours.items() if k != "latency_ms"} == {
            k: v for k, v in rays.items() if k != "latency_ms"
        }
    for ours, rays in zip(reports["in-process"].rounds, reports["ray"].rounds, strict=True):
        assert ours["fleet"] == rays["fleet"]
        assert ours.get("secure") == rays.get("secure")
        assert ("secure" in ours) == (secure == "sum")
        assert ours["clients_replied"] == rays["clients_replied"] == 3
