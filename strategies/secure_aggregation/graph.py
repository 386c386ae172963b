"""Who shares masks with whom: all pairs in a small cohort, a random Harary graph in a large one.

Bell et al. 2020, "Secure Single-Server Aggregation with (Poly)Logarithmic Overhead" (SecAgg+): clients stand on a ring
in random order, and each is joined to the nearest degree / 2 on either side.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from personalization.errors import UserError
from strategies.secure_aggregation.settings import LARGEST_COHORT, SecureAggregationSettings

ALL_PAIRS = 128
# Of all rounds, 2 ** -40 are less private than said, and 2 ** -20 fail though no more clients vanish than allowed.
_SECURITY, _CORRECTNESS = 40, 20
_WINDOW_DEVIATIONS = 6.5


@dataclass(frozen=True)
class GraphSize:
    """degree: peers of each client. threshold: how many of them must stay with it, and open its self mask."""

    degree: int
    threshold: int


@lru_cache(maxsize=16)
def graph_size(cohort: int, settings: SecureAggregationSettings) -> GraphSize:
    """Return degree and threshold for a cohort; both ends work them out for themselves.

    With t the threshold and k the degree, a server that tells clients different things about who vanished learns
    nothing about a client with fewer than 2 t - k corrupted peers (SecAgg+, semi-malicious server): an honest client
    gives up at most k - t masks of its own, and t peers have to hold it for alive. All pairs: t is what is left when
    the allowed share vanishes, whichever. Otherwise the smallest k for which, by union bounds over hypergeometric
    tails, fewer than t peers stay with probability 2 ** -20, and 2 t - k are corrupted, or the honest rest falls
    apart, with 2 ** -41 each. Raises UserError for a cohort that is too small or too large to
    protect anybody.
    """
    if not settings.smallest_cohort <= cohort <= LARGEST_COHORT:
        raise UserError(
            f"secure aggregation of {cohort} clients: expected {settings.smallest_cohort} to {LARGEST_COHORT}; "
            "ask more clients a round, or lower the smallest cohort"
        )
    gone, corrupted = math.floor(settings.dropout * cohort), math.floor(settings.corrupted * cohort)
    if cohort <= ALL_PAIRS:
        return _all_pairs(cohort, gone, corrupted)
    low, high = 1, (cohort - 1) // 2
    while low < high:
        half = (low + high) // 2
        if _threshold(cohort, 2 * half, gone, corrupted) is None:
            low = half + 1
        else:
            high = half
    threshold = _threshold(cohort, 2 * low, gone, corrupted)
    return _all_pairs(cohort, gone, corrupted) if threshold is None else GraphSize(2 * low, threshold)


def ring_position(place: bytes, fingerprint: bytes) -> int:
    """Return where a client stands on the ring of 2 ** 64: a hash of the round's place and of its enrolled key."""
    return int.from_bytes(hashlib.sha256(place + fingerprint).digest()[:8], "little")


def draw_graph(positions: Sequence[int], degree: int) -> NDArray[np.int64]:
    """Return the peers [clients, degree] of each client, rising. positions [clients]: places on the ring."""
    count = len(positions)
    if degree >= count - 1:
        others = np.arange(count - 1)
        return others + (others >= np.arange(count)[:, None])
    ring = np.array(sorted(range(count), key=lambda client: (positions[client], client)))
    half = degree // 2
    reach = np.delete(np.arange(-half, half + 1), half)
    peers = np.empty((count, degree), dtype=np.int64)
    peers[ring] = ring[(np.arange(count)[:, None] + reach) % count]
    return np.sort(peers, axis=1)


def reverse_places(peers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return [clients, degree] at which place each client stands in the list of each of its peers."""
    count, degree = peers.shape
    order = np.argsort((peers * count + np.arange(count)[:, None]).ravel())
    places = np.empty(count * degree, dtype=np.int64)
    places[order] = np.arange(count * degree) % degree
    return places.reshape(count, degree)


def is_plausible(own: int, peers: Sequence[int], cohort: int) -> bool:
    """Return whether ring positions of peers may be all of a cohort's nearest to `own`.

    A server can't move clients on the ring, but it can leave honest ones out to bring corrupted ones near: then the
    peers stand too far apart. The limit is exceeded by chance with less than 2 ** -30 (normal tail of a binomial).
    """
    if len(peers) >= cohort - 1:
        return True
    half = len(peers) // 2
    after = np.sort(np.array([(peer - own) % 2**64 for peer in peers], dtype=np.float64)) / 2.0**64
    root = (_WINDOW_DEVIATIONS + math.sqrt(_WINDOW_DEVIATIONS**2 + 4 * half)) / 2
    window = min(root**2 / (cohort - 1), 0.5)
    return bool(after[half - 1] <= window and 1.0 - after[half] <= window)


def _all_pairs(cohort: int, gone: int, corrupted: int) -> GraphSize:
    size = GraphSize(cohort - 1, cohort - 1 - gone)
    if 2 * size.threshold - size.degree <= corrupted:
        raise UserError(
            f"secure aggregation of {cohort} clients, of which {gone} may vanish and {corrupted} be corrupted: "
            "nobody would be protected; ask more clients a round, or allow less"
        )
    return size


def _threshold(cohort: int, degree: int, gone: int, corrupted: int) -> int | None:
    """Return the largest threshold that holds against vanishing, if it holds against corruption too; else None."""
    if _log_falls_apart(cohort, degree, gone + corrupted) > -(_SECURITY + 1) * math.log(2):
        return None
    lost = _log_tail(cohort - 1, gone, degree) <= -_CORRECTNESS * math.log(2) - math.log(cohort)
    # lost[i]: more than i - 1 peers vanish so rarely that it may be neglected.
    threshold = degree + 1 - int(np.argmax(lost))
    captured = _log_tail(cohort - 1, corrupted, degree)
    margin = 2 * threshold - degree
    safe = margin > 0 and captured[margin] <= -(_SECURITY + 1) * math.log(2) - math.log(cohort)
    return threshold if safe else None


def _log_tail(population: int, marked: int, drawn: int) -> NDArray[np.float64]:
    """Return log P[X >= i] for i = 0 to `drawn` + 1, X hypergeometric: how many of `drawn` are among the `marked`."""
    found = np.arange(drawn + 1)
    possible = (found <= marked) & (drawn - found <= population - marked)
    logs = np.full(drawn + 2, -np.inf)
    inside = found[possible]
    logs[:-1][possible] = (
        _log_choose(marked, inside) + _log_choose(population - marked, drawn - inside)
    ) - _log_choose(population, np.array([drawn]))
    return np.asarray(np.logaddexp.accumulate(logs[::-1])[::-1])


def _log_choose(total: int, chosen: NDArray[np.int_]) -> NDArray[np.float64]:
    table = _log_factorials()
    return np.asarray(table[total] - table[chosen] - table[total - chosen])


@lru_cache(maxsize=1)
def _log_factorials() -> NDArray[np.float64]:
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, LARGEST_COHORT + 1)))])


def _log_falls_apart(cohort: int, degree: int, removed: int) -> float:
    """Return a bound on log P[the ring falls apart]: two runs of degree / 2 neighbours would have to be removed."""
    if degree > removed:
        return -math.inf
    table = _log_factorials()
    pairs = math.log(cohort) + math.log(max(cohort - degree - 1, 1)) - math.log(2)
    return pairs + float(table[removed] + table[cohort - degree] - table[cohort] - table[removed - degree])
