"""Who takes part in a round: drawn with a seed, never waited for without end."""

import math
import time

import numpy as np
from flwr.serverapp import Grid

from personalization.errors import UserError

_POLL_SECONDS = 0.2


def wait_for_nodes(grid: Grid, *, fewest: int, deadline: float) -> list[int]:
    """Return the sorted ids of the connected nodes as soon as there are `fewest`.

    deadline: seconds to wait. Raises UserError if fewer are connected by then.
    """
    end = time.monotonic() + deadline
    while True:
        nodes = sorted(grid.get_node_ids())
        if len(nodes) >= fewest:
            return nodes
        if time.monotonic() >= end:
            raise UserError(
                f"{len(nodes)} of {fewest} clients connected within {deadline:g} s; "
                "start more clients or lower min-nodes"
            )
        time.sleep(_POLL_SECONDS)


def sample_size(nodes: int, fraction: float) -> int:
    """Return how many of `nodes` clients a round asks: a share of them, at least one."""
    return min(nodes, max(1, math.ceil(fraction * nodes - 1e-9)))


def sample_nodes(nodes: list[int], *, fraction: float, seed: int, round_number: int) -> list[int]:
    """Return a sorted share of `nodes`, at least one; the same for the same seed, round and nodes."""
    count = sample_size(len(nodes), fraction)
    rng = np.random.default_rng([seed, round_number])
    return sorted(int(node) for node in rng.choice(np.array(sorted(nodes), dtype=np.uint64), count, replace=False))


def quorum_size(sampled: int, quorum: float) -> int:
    """Return how many of `sampled` clients must reply for a round to count; at least one."""
    return max(1, math.ceil(quorum * sampled - 1e-9))
