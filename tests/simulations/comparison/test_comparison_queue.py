from fake_cells import SCENARIO

from simulations.comparison.cells import Cell
from simulations.comparison.queue import CellQueue

CELLS = [Cell(method=method, scenario=SCENARIO, seed=seed) for method in "abc" for seed in range(3)]


def test_every_cell_is_taken_once() -> None:
    queue, taken = CellQueue(CELLS), []
    while (cell := queue.take(taken[-1] if taken else None)) is not None:
        taken.append(cell)
    assert sorted(cell.key for cell in taken) == sorted(cell.key for cell in CELLS)


def test_workers_stay_with_a_fleet_and_then_help_where_most_is_left() -> None:
    queue = CellQueue(CELLS)
    first, second = queue.take(None), queue.take(None)
    assert first is not None
    assert second is not None
    assert (first.seed, second.seed) == (0, 1)
    for _ in range(2):
        cell = queue.take(first)
        assert cell is not None
        assert cell.seed == 0
    third = queue.take(first)
    assert third is not None
    assert third.seed == 2  # a fleet that nobody has begun comes before one that another worker is at
    assert [cell.seed for cell in [queue.take(third), queue.take(third)] if cell] == [2, 2]
    helped = queue.take(third)
    assert helped is not None
    assert helped.seed == 1
