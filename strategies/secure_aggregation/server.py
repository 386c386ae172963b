"""The server's side of a secure sum: a machine that takes replies and gives the next requests until it has the sum.

In the common case there are two exchanges: masked vectors, then shares. Where clients vanish before their vectors are
here, those that stay are asked for the masks shared with them in between, until nobody vanishes at that.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from strategies.secure_aggregation.encoding import Encoding, Words
from strategies.secure_aggregation.errors import MessageError, RoundFailedError
from strategies.secure_aggregation.fixed_point import FixedPoint
from strategies.secure_aggregation.graph import draw_graph, graph_size, reverse_places, ring_position
from strategies.secure_aggregation.identity import advert_fingerprint
from strategies.secure_aggregation.masks import add_mask, self_mask_key, subtract_mask
from strategies.secure_aggregation.messages import (
    TAG_BYTES,
    Invitation,
    MaskedInput,
    PairReply,
    PairRequest,
    ShareReply,
    ShareRequest,
)
from strategies.secure_aggregation.recovery import SelfMasks
from strategies.secure_aggregation.settings import RoundName, SecureAggregationSettings


@dataclass(frozen=True, eq=False)
class SecureTotal:
    """words [entries]: the sum as encoded. vector [entries]: as numbers. clients: handles of those in it.

    cohort: how many were announced.
    """

    words: Words
    vector: NDArray[np.float64]
    clients: tuple[int, ...]
    cohort: int

    @property
    def mean(self) -> NDArray[np.float64]:
        """The mean vector [entries]: what `precision-weighted-mean` makes of the clients' vectors."""
        return self.vector / len(self.clients)


@dataclass
class _Progress:
    """What has come in. keys: of masks, by client that is in the sum, then by client that is gone; all by index."""

    inputs: dict[int, MaskedInput] = field(default_factory=dict)
    keys: dict[int, dict[int, bytes]] = field(default_factory=dict)
    asked: dict[int, list[int]] = field(default_factory=dict)


class SecureSum:
    """One sum of one cohort.

    members: the advertisement of each by its handle, verified when it came (see identity.py). rejected: how many
    replies were dropped, by the code of the reason (see `MessageError`). total: the result, once `advance` asks for
    nothing more. Raises UserError for a cohort that is too small or too large, MessageError for an advertisement that
    is none.
    """

    def __init__(
        self,
        members: Mapping[int, bytes],
        *,
        name: RoundName,
        settings: SecureAggregationSettings,
        encode: Callable[[int], Encoding] | None = None,
    ) -> None:
        """Draw the graph. encode: as for the clients, see `mask_input`."""
        self._handles = sorted(members)
        self._adverts = [members[handle] for handle in self._handles]
        self._prints = [advert_fingerprint(advert) for advert in self._adverts]
        count = len(self._handles)
        self._size = graph_size(count, settings)
        self._peers = draw_graph([ring_position(name.place, one) for one in self._prints], self._size.degree)
        self._session = name.session(settings, cohort=count, degree=self._size.degree, threshold=self._size.threshold)
        self._masks = SelfMasks(self._peers, reverse_places(self._peers), self._size.threshold)
        self._entries = name.entries
        self._encoding = FixedPoint(settings.fraction_bits, count) if encode is None else encode(count)
        self._alive = np.ones(count, dtype=np.bool_)
        self._progress, self._accept = _Progress(), self._accept_inputs
        self.rejected: Counter[str] = Counter()
        self.total: SecureTotal | None = None

    def invitations(self, known: Mapping[int, Collection[int]]) -> dict[int, bytes]:
        """Return the first request for each handle.

        known: for each the handles that were introduced to it before. A node that advertises a new key needs a new
        handle, so that everybody gets to know it again.
        """
        handles = np.array(self._handles, dtype=np.uint32)
        messages = {}
        for index, handle in enumerate(self._handles):
            familiar = known.get(handle, ())
            strangers = [peer for peer in self._peers[index].tolist() if self._handles[peer] not in familiar]
            introductions = {self._handles[peer]: self._adverts[peer] for peer in strangers}
            messages[handle] = Invitation(len(handles), handle, handles[self._peers[index]], introductions).encode()
        return messages

    def advance(self, replies: Mapping[int, bytes]) -> dict[int, bytes]:
        """Take the replies to the last requests, by handle; return the next ones, none when the sum is there.

        Who is not among the replies, or sent what does not fit, has vanished. Raises RoundFailedError.
        """
        return self._accept({index: replies[handle] for index, handle in enumerate(self._handles) if handle in replies})

    def _accept_inputs(self, replies: Mapping[int, bytes]) -> dict[int, bytes]:
        shares, size = self._masks.explicit_count, self._encoding.packed_bytes(self._entries)
        for index, raw in replies.items():
            try:
                self._progress.inputs[index] = MaskedInput.decode(raw, shares=shares, vector_bytes=size)
                self._encoding.unpack(self._progress.inputs[index].vector, self._entries)
            except MessageError as error:
                self._progress.inputs.pop(index, None)
                self.rejected[error.reason] += 1
        return self._without({index for index in range(len(self._handles)) if index not in self._progress.inputs})

    def _accept_pairs(self, replies: Mapping[int, bytes]) -> dict[int, bytes]:
        gone = set()
        for index, asked in self._progress.asked.items():
            try:
                keys = PairReply.decode(replies.get(index, b""), keys=len(asked)).keys
                self._progress.keys.setdefault(index, {}).update(zip(asked, keys, strict=True))
            except MessageError as error:
                if index in replies:
                    self.rejected[error.reason] += 1
                gone.add(index)
        return self._without(gone)

    def _accept_shares(self, replies: Mapping[int, bytes]) -> dict[int, bytes]:
        for index, raw in replies.items():
            alive = self._alive[self._peers[index]]
            try:
                shares = ShareReply.decode(raw, shares=int(alive.sum())).shares
            except MessageError as error:
                self.rejected[error.reason] += 1
                continue
            if self._alive[index]:
                self._masks.put(index, alive, shares)
        self.total = self._sum()
        return {}

    def _without(self, gone: set[int]) -> dict[int, bytes]:
        """Leave clients out; return what has to be asked next."""
        self._alive[list(gone)] = False
        # A client with too few peers left would refuse the next step: it is left out as well.
        while (lonely := self._alive & (self._alive[self._peers].sum(axis=1) < self._size.threshold)).any():
            self._alive &= ~lonely
        if not self._alive.any():
            raise RoundFailedError(
                f"secure sum of {len(self._handles)} clients: too many vanished; each needs {self._size.threshold} "
                f"of its {self._size.degree} peers. Nothing was revealed"
            )
        requests, self._progress.asked = {}, {}
        for index in np.flatnonzero(self._alive).tolist():
            told = self._progress.keys.get(index, {})
            dead = [p for p in self._peers[index][~self._alive[self._peers[index]]].tolist() if p not in told]
            if dead:
                self._progress.asked[index] = dead
                requests[index] = PairRequest(self._tag, np.isin(self._peers[index], dead)).encode()
        self._accept = self._accept_pairs if requests else self._accept_shares
        return self._by_handle(requests or self._share_requests())

    def _share_requests(self) -> dict[int, bytes]:
        requests = {}
        for index in np.flatnonzero(self._alive).tolist():
            alive = self._alive[self._peers[index]]
            sealed = {}
            for place, peer, number in self._masks.sealed_for(index, alive):
                message = self._progress.inputs[peer]
                sealed[place] = message.nonce, message.sealed[number]
            requests[index] = ShareRequest(self._tag, alive, sealed).encode()
        return requests

    def _sum(self) -> SecureTotal:
        members = np.flatnonzero(self._alive).tolist()
        total = np.zeros(self._entries, dtype=self._encoding.dtype)
        for index in members:
            message = self._progress.inputs[index]
            total += self._encoding.unpack(message.vector, self._entries)
            secret = self._masks.secret(index, message.commitment, self._session)
            subtract_mask(total, self_mask_key(secret, self._session))
            for gone, key in self._progress.keys.get(index, {}).items():
                (subtract_mask if self._prints[index] < self._prints[gone] else add_mask)(total, key)
        words = self._encoding.reduced(total)
        if not self._encoding.fits(words, len(members)):
            raise RoundFailedError("secure sum: the masks do not cancel; a client sent something else than it should")
        handles = tuple(self._handles[index] for index in members)
        return SecureTotal(words, self._encoding.to_sum(words), handles, len(self._handles))

    @property
    def _tag(self) -> bytes:
        return self._session[:TAG_BYTES]

    def _by_handle(self, requests: Mapping[int, bytes]) -> dict[int, bytes]:
        return {self._handles[index]: request for index, request in requests.items()}
