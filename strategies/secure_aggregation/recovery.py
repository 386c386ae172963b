"""The shares of all self masks of a cohort as the server collects them, and the secrets that follow."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from strategies.secure_aggregation.errors import RoundFailedError
from strategies.secure_aggregation.masks import commitment
from strategies.secure_aggregation.shamir import SHARE_BYTES, combine, from_bytes, to_bytes
from strategies.secure_aggregation.sharing import UNKNOWN_SHARE, points


class SelfMasks:
    """Clients go by index. peers, places [clients, degree]: as `draw_graph` and `reverse_places` return them."""

    def __init__(self, peers: NDArray[np.int64], places: NDArray[np.int64], threshold: int) -> None:
        """Begin with no shares."""
        count, degree = peers.shape
        self._peers, self._places, self._threshold = peers, places, threshold
        first = (peers < np.arange(count)[:, None]).sum(axis=1, keepdims=True)
        self._sent = (np.arange(degree) - first) % degree >= threshold - 1
        self._numbers = np.cumsum(self._sent, axis=1) - 1
        self._shares = np.full((count, degree, SHARE_BYTES), 0xFF, dtype=np.uint8)

    @property
    def explicit_count(self) -> int:
        """How many sealed shares each client sends."""
        return int(self._peers.shape[1] - self._threshold + 1)

    def sealed_for(self, client: int, alive: NDArray[np.bool_]) -> Iterator[tuple[int, int, int]]:
        """Yield for each alive peer that sealed a share for a client: its place, its index, the share's number."""
        peers, places = self._peers[client], self._places[client]
        for place in np.flatnonzero(alive & self._sent[peers, places]).tolist():
            yield place, int(peers[place]), int(self._numbers[peers[place], places[place]])

    def put(self, client: int, alive: NDArray[np.bool_], shares: Sequence[bytes]) -> None:
        """Take what a client tells: a share of each alive peer's secret, in order."""
        peers, places = self._peers[client][alive], self._places[client][alive]
        self._shares[peers, places] = np.frombuffer(b"".join(shares), np.uint8).reshape(-1, SHARE_BYTES)

    def secret(self, client: int, committed: bytes, session: bytes) -> bytes:
        """Return a client's secret [16 bytes].

        Wrong shares are noticed by the client's commitment, and others taken, as long as there are any. Raises
        RoundFailedError.
        """
        there = np.flatnonzero((self._shares[client] != np.frombuffer(UNKNOWN_SHARE, np.uint8)).any(axis=1)).tolist()
        values = {place: from_bytes(self._shares[client, place].tobytes()) for place in there}
        shares = {place: value for place, value in values.items() if value is not None}
        usable = list(shares)
        if len(usable) < self._threshold:
            raise RoundFailedError(
                f"secure sum: {len(usable)} shares of a self mask, {self._threshold} are needed; too many clients "
                "vanished. Nothing was revealed"
            )
        for start in range(len(usable) if len(usable) > self._threshold else 1):
            chosen = sorted(usable[(start + step) % len(usable)] for step in range(self._threshold))
            secret = to_bytes(combine(dict(zip(points(chosen), (shares[place] for place in chosen), strict=True))))
            if commitment(secret, session) == committed:
                return secret
        raise RoundFailedError("secure sum: the shares of a self mask do not fit; a client sent wrong ones")
