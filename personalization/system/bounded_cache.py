"""Values that took work to make, as many as have room."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class BoundedCache(Generic[Value]):
    """The values that were asked for last: together of at most `room` bytes, and the last one whatever its size."""

    def __init__(self, room: int) -> None:
        """Keep `room` bytes."""
        self._room = room
        self._kept: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()

    def get(self, key: Hashable, size: int, make: Callable[[], Value]) -> Value:
        """Return the value of `key`. If it is not kept it is made, after others have left `size` bytes for it."""
        if key not in self._kept:
            while self._kept and size + sum(taken for _, taken in self._kept.values()) > self._room:
                self._kept.popitem(last=False)
            self._kept[key] = make(), size
        self._kept.move_to_end(key)
        return self._kept[key][0]
