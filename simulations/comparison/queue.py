"""Which cell a free worker takes next."""

from collections import deque
from collections.abc import Iterable

from simulations.comparison.cells import Cell


class CellQueue:
    """Hands out cells so that a worker stays with one fleet: what it has loaded and computed for it serves again."""

    def __init__(self, cells: Iterable[Cell]) -> None:
        """Take the cells, in the order in which they are wanted."""
        self._waiting: dict[str, deque[Cell]] = {}
        self._begun: set[str] = set()
        for cell in cells:
            self._waiting.setdefault(cell.fleet_key, deque()).append(cell)

    def take(self, last: Cell | None) -> Cell | None:
        """Return the next cell for a worker whose last one was `last`; None if there are no more.

        It is one of the same fleet; else of the first fleet that nobody has begun; else of that with most cells left.
        """
        left = [key for key, cells in self._waiting.items() if cells]
        if not left:
            return None
        new = [key for key in left if key not in self._begun]
        if last is not None and last.fleet_key in left:
            key = last.fleet_key
        elif new:
            key = new[0]
        else:
            key = max(left, key=lambda k: len(self._waiting[k]))
        self._begun.add(key)
        return self._waiting[key].popleft()
