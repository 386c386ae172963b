from collections.abc import Iterator
from pathlib import Path

import pytest

from personalization.errors import UserError
from simulations.comparison import cell as cells
from simulations.comparison.cell import run_cell
from simulations.comparison.cells import Cell
from simulations.comparison.worlds import check_fleets
from simulations.scenario import Scenario


@pytest.fixture(autouse=True)
def fresh_worlds() -> Iterator[None]:
    cells._worlds.cache_clear()
    yield
    cells._worlds.cache_clear()


@pytest.fixture
def record(tiny_vit_folder, tiny_data):
    fleet = {
        "clients": 6, "rounds": 2, "fraction": 1.0, "classes_per_client": 2, "samples": 12, "probes": 2, "budget": 0.6,
        "model": str(tiny_vit_folder), "data": str(tiny_data),
    }  # fmt: skip
    return {"name": "tiny", "fleet": fleet}


def run(folder: Path, record: dict, method: str = "median", seed: int = 0) -> dict:
    folder.mkdir()
    return run_cell(Cell(method=method, scenario=Scenario.from_dict(record).to_dict(), seed=seed), folder)


def without_timing(result: dict) -> dict:
    seconds = [{key: value for key, value in entry.items() if key != "seconds"} for entry in result["fleet"]]
    return {**result, "timing": None, "fleet": seconds}


def test_what_a_cell_finds_does_not_depend_on_what_its_process_did_before(record, tmp_path):
    run(tmp_path / "a", record, "mean")
    after = run(tmp_path / "b", record, "median")
    assert after["timing"]["reused_seconds"] > 0
    cells._worlds.cache_clear()
    alone = run(tmp_path / "c", record, "median")
    assert alone["timing"]["reused_seconds"] == 0
    assert without_timing(after) == without_timing(alone)


def test_attackers_have_no_rows_and_their_lies_are_in_the_rounds(record, tmp_path):
    record["attack"] = {"kind": "sign-flip", "share": 0.34}
    result = run(tmp_path / "a", record)
    attackers = {row["client"] for row in result["rounds"] if row["status"] == "attacker"}
    assert len(attackers) == 2
    assert {row["client"] for row in result["clients"]} == set(range(6)) - attackers
    for row in result["rounds"]:
        assert (row["personal_accuracy"] is None) == (row["status"] == "attacker")
        assert (row["evaluations"] is None) == (row["status"] == "attacker")


def test_what_attackers_send_that_is_invalid_is_counted_and_never_learned(record, tmp_path):
    benign = run(tmp_path / "a", {**record, "attack": {"kind": "none", "share": 0.34}})
    attacked = run(tmp_path / "b", {**record, "attack": {"kind": "invalid", "share": 0.34}})
    assert [entry["failures"] for entry in attacked["fleet"]] == [{"reply_not_finite": 2}] * 3
    assert [entry["failures"] for entry in benign["fleet"]] == [{}] * 3
    assert [row["client"] for row in attacked["clients"]] == [row["client"] for row in benign["clients"]]


def test_late_joiners_take_part_from_their_round_on(record, tmp_path):
    result = run(tmp_path / "a", {**record, "late": {"share": 0.34, "after_round": 2}})
    late = {row["client"] for row in result["clients"] if row["late"]}
    assert len(late) == 2
    assert not late & {row["client"] for row in result["rounds"]}
    assert len(result["clients"]) == 6


def test_a_client_whose_data_change_is_judged_on_what_it_holds_then(record, tmp_path):
    plain = {row["client"]: row for row in run(tmp_path / "a", record)["clients"]}
    result = run(tmp_path / "b", {**record, "drift": {"share": 0.5, "at_round": 2}})
    drifted = {row["client"]: row for row in result["clients"] if row["drifted"]}
    assert len(drifted) == 3
    assert any(row["classes"] != plain[client]["classes"] for client, row in drifted.items())
    assert all(row["classes"] == plain[row["client"]]["classes"] for row in result["clients"] if not row["drifted"])


def test_a_device_class_keeps_to_its_own_budget(record, tmp_path):
    record["devices"] = [{"name": "phone", "share": 0.5, "budget": 0.4}]
    for method in ("median", "arm:uniform"):
        rows = run(tmp_path / method.replace(":", "-"), record, method)["clients"]
        budgets = {"phone": 0.4, "standard": 0.6}
        assert sorted(row["device"] for row in rows) == ["phone"] * 3 + ["standard"] * 3
        assert all(row["weights_kept"] <= budgets[row["device"]] + 1e-9 for row in rows)
        assert max(row["weights_kept"] for row in rows) > 0.4


def test_products_go_with_units_and_not_with_zeros(record, tmp_path):
    for method in ("median", "arm:uniform", "arm:one-cut"):
        for row in run(tmp_path / method.replace(":", "-"), record, method)["clients"]:
            assert row["products_kept"] == pytest.approx(row["weights_kept"])
            assert row["products_kept"] < 0.7
    for row in run(tmp_path / "wanda", record, "arm:wanda")["clients"]:
        assert row["weights_kept"] == pytest.approx(0.6, abs=0.05)
        assert row["products_kept"] == 1.0


def test_dropouts_and_stragglers_are_told_apart(record, tmp_path):
    record["conditions"] = {"dropout": 0.4, "stragglers": 0.3}
    result = run(tmp_path / "a", record)
    status = {"replied", "dropped", "straggler"}
    assert {row["status"] for row in result["rounds"]} == status
    for row in result["rounds"]:
        assert (row["evaluations"] is None) == (row["status"] == "dropped")
    lost = sum(row["status"] != "replied" for row in result["rounds"])
    assert sum(entry["failures"].get("no_reply", 0) for entry in result["fleet"]) == lost


def test_a_strategy_that_the_fleet_is_too_small_for_is_refused(record, tmp_path):
    with pytest.raises(UserError, match=r"a round asks 6 clients; .*bulyan"):
        run(tmp_path / "a", record, "bulyan:attackers=2")


def test_data_that_can_not_be_shared_out_are_found_before_any_cell(record):
    check_fleets([Scenario.from_dict(record)], arms=[])
    record["fleet"]["samples"] = 5000
    with pytest.raises(UserError, match="5000"):
        check_fleets([Scenario.from_dict(record)], arms=[])
    record["fleet"]["data"] = "nowhere.npz"
    with pytest.raises(UserError, match=r"nowhere\.npz"):
        check_fleets([Scenario.from_dict(record)], arms=[])
