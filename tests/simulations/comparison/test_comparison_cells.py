import json
from pathlib import Path
from typing import Any

import pytest
from fake_cells import SCENARIO

from simulations.comparison import cells
from simulations.comparison.cells import Cell, method_kind


def cell(**changes: Any) -> Cell:
    return Cell(**{"method": "median", "scenario": SCENARIO, "seed": 3, **changes})


def test_a_cell_survives_its_record() -> None:
    record = json.loads(json.dumps(cell().to_record()))
    assert Cell.from_record(record) == cell()
    assert Cell.from_record(record).key == cell().key


@pytest.mark.parametrize("changes", [{"method": "mean"}, {"seed": 4}, {"scenario": {**SCENARIO, "target_loss": 0.02}}])
def test_whatever_decides_the_result_decides_the_key(changes: dict[str, Any]) -> None:
    assert cell(**changes).key != cell().key


def test_names_and_the_order_of_keys_do_not() -> None:
    renamed = {**SCENARIO, "name": "other", "description": "the same fleet"}
    assert cell(scenario=renamed).key == cell().key
    assert cell(scenario=dict(reversed(SCENARIO.items()))).key == cell().key


def test_versions_are_part_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = cell().key
    monkeypatch.setattr(cells, "CELL_FORMAT", cells.CELL_FORMAT + 1)
    other_format = cell().key
    monkeypatch.setattr(cells, "version", lambda name: "99")
    assert len({before, other_format, cell().key}) == 3


def test_methods_on_one_fleet_share_its_key_and_no_others_do() -> None:
    assert cell(method="arm:dense").fleet_key == cell().fleet_key
    assert cell(seed=4).fleet_key != cell().fleet_key


def test_arms_are_told_from_strategies() -> None:
    assert (method_kind("arm:dense"), method_kind("trimmed-mean:attackers=0.1")) == ("arm", "strategy")


def test_a_key_is_a_file_name() -> None:
    assert Path(cell().key).name == cell().key
    assert len(cell().key) == 64
