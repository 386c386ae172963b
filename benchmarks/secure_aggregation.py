"""Secure sums beside Flower's SecAgg+: `python -m benchmarks.secure_aggregation [--clients N ...] [--json]`.

CPU seconds of a client and of the server, and bytes of a client, for a round of 380 numbers in which nobody vanishes;
Flower's primitives do the same work on the same vectors, graph degree and threshold in the same run. Cohorts up to
1,000 run whole; of larger ones, and of Flower's clients always, a sample is run and the server's work for it scaled up.
Fails if ours is not faster, or takes more than 6 kB in a cohort of 100, Flower's envelopes included and the plan left
out, which travels in either case, or more than two messages more than a round in the open.
"""

import argparse
import json
import os
import time
from dataclasses import asdict, dataclass

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.secure_aggregation_flower import flower_round
from benchmarks.secure_envelope import VIT_SMALL, Envelope, measure_envelope
from strategies.secure_aggregation.client import mask_input, reveal_shares
from strategies.secure_aggregation.fixed_point import FixedPoint
from strategies.secure_aggregation.graph import draw_graph, graph_size, reverse_places, ring_position
from strategies.secure_aggregation.identity import certify
from strategies.secure_aggregation.keyring import Keyring, KnownPeer
from strategies.secure_aggregation.masks import commitment, pair_key, self_mask_key, subtract_mask
from strategies.secure_aggregation.participation import Participation
from strategies.secure_aggregation.recovery import SelfMasks
from strategies.secure_aggregation.server import SecureSum
from strategies.secure_aggregation.settings import RoundName, SecureAggregationSettings
from strategies.secure_aggregation.shamir import extend, to_bytes

ENTRIES, LIMIT, MOST_MESSAGES, WHOLE = 380, 6000, 2, 1000
_INTRODUCTION = 249  # bytes of one in an invitation
SETTINGS = SecureAggregationSettings()
NAME = RoundName(fleet="0" * 16, series=1, version=1, plan=bytes(32), entries=ENTRIES)


@dataclass
class Row:
    """One cohort. Client: CPU seconds of one. Server: CPU seconds for all. First contact: getting to know all peers,
    once in an epoch. sampled: how many clients were run, ours and Flower's. envelopes: of whole messages, for vectors
    of 380 numbers and as long as a ViT-S's.
    """

    clients: int
    degree: int
    threshold: int
    client_seconds: float
    flower_client_seconds: float
    server_seconds: float
    flower_server_seconds: float
    bytes: int
    flower_bytes: int
    first_contact_seconds: float
    first_contact_bytes: int
    sampled: tuple[int, int]
    envelopes: list[Envelope]


class Cohort:
    """A cohort of enrolled clients, of which a sample is run."""

    def __init__(self, clients: int, sample: int) -> None:
        """Enrol everybody, and let the sample get to know its peers."""
        self.authority, self.clients, self.client_seconds = Ed25519PrivateKey.generate(), clients, 0.0
        self.rings = [self._enrol() for _ in range(clients)]
        self.size = graph_size(clients, SETTINGS)
        self.peers = draw_graph([ring_position(NAME.place, ring.fingerprint) for ring in self.rings], self.size.degree)
        self.vectors = np.random.default_rng(0).random((clients, ENTRIES))
        self.sample = range(clients) if clients <= WHOLE else range(0, clients, clients // sample)
        timed = self.sample[:sample]
        started = time.process_time()
        for client in timed:
            self._introduce(client)
        self.first_contact = (time.process_time() - started) / len(timed)
        for client in self.sample[sample:]:
            self._introduce_unchecked(client)

    def mask(self, requests: dict[int, bytes]) -> tuple[dict[int, bytes], dict[int, Participation]]:
        """Let the sample mask its vectors."""
        replies, states = {}, {}
        started = time.process_time()
        for client in self.sample:
            replies[client], states[client] = mask_input(
                self.rings[client],
                requests[client],
                self.vectors[client],
                name=NAME,
                settings=SETTINGS,
                authority=self.authority.public_key(),
            )
        self.client_seconds += (time.process_time() - started) / len(self.sample)
        return replies, states

    def share(self, requests: dict[int, bytes], states: dict[int, Participation]) -> dict[int, bytes]:
        """Let the sample tell its shares."""
        started = time.process_time()
        replies = {client: reveal_shares(self.rings[client], states[client], requests[client])[0] for client in states}
        self.client_seconds += (time.process_time() - started) / len(self.sample)
        return replies

    def _enrol(self) -> Keyring:
        key = generate_private_key(SECP384R1())
        certificate = certify(self.authority, NAME.fleet, key.public_key())
        return Keyring.new(key, certificate, fleet=NAME.fleet, epoch=1)

    def _introduce(self, client: int) -> None:
        for peer in self.peers[client].tolist():
            self.rings[client].introduce(peer, self.rings[peer].advert, self.authority.public_key())

    def _introduce_unchecked(self, client: int) -> None:
        """The same, without the time that the signatures take."""
        own = X25519PrivateKey.from_private_bytes(self.rings[client].private)
        for peer in self.peers[client].tolist():
            public = X25519PrivateKey.from_private_bytes(self.rings[peer].private).public_key().public_bytes_raw()
            key = pair_key(own, public, fleet=NAME.fleet, epoch=1)
            self.rings[client].peers[peer] = KnownPeer(self.rings[peer].fingerprint, key)


def measure(clients: int, *, sample: int, flower_sample: int) -> Row:
    """Run both on a cohort. Raises RuntimeError if a sum is wrong."""
    cohort = Cohort(clients, sample)
    started = time.process_time()
    server = SecureSum(dict(enumerate(ring.advert for ring in cohort.rings)), name=NAME, settings=SETTINGS)
    requests = server.invitations(dict.fromkeys(range(clients), range(clients)))
    server_seconds = time.process_time() - started
    replies, states = cohort.mask(requests)
    first, whole = cohort.sample[0], len(cohort.sample) == clients
    # Where only a sample was run, its messages stand for the others': as long, and as much work to take apart.
    filled = replies if whole else dict.fromkeys(range(clients), replies[first])
    started = time.process_time()
    share_requests = server.advance(filled)
    server_seconds += time.process_time() - started
    shares = cohort.share(share_requests, states)
    if whole:
        started = time.process_time()
        server.advance(shares)
        server_seconds += time.process_time() - started
        _check(server, cohort.vectors)
    else:
        server_seconds += clients * _finish_seconds(cohort.peers, cohort.size.threshold, repeat=sample)
    exchanged = (requests[first], replies[first], share_requests[first], shares[first])
    flower = [
        flower_round(cohort.vectors[number], degree=cohort.size.degree, threshold=cohort.size.threshold)
        for number in range(flower_sample)
    ]
    return Row(
        clients=clients,
        degree=cohort.size.degree,
        threshold=cohort.size.threshold,
        client_seconds=cohort.client_seconds,
        flower_client_seconds=float(np.mean([cost.client for cost in flower])),
        server_seconds=server_seconds,
        flower_server_seconds=clients * float(np.mean([cost.server for cost in flower])),
        bytes=sum(map(len, exchanged)),
        flower_bytes=flower[0].bytes,
        first_contact_seconds=cohort.first_contact,
        first_contact_bytes=_INTRODUCTION * cohort.size.degree,
        sampled=(len(cohort.sample), flower_sample),
        envelopes=[_envelope(exchanged, clients, entries) for entries in (ENTRIES, VIT_SMALL.size)],
    )


def _envelope(exchanged: tuple[bytes, ...], clients: int, entries: int) -> Envelope:
    """Return the envelope of an exchange whose masked vector is of `entries` numbers instead."""
    fixed = FixedPoint(SETTINGS.fraction_bits, clients)
    invitation, masked, *shares = exchanged
    longer = bytes(fixed.packed_bytes(entries) - fixed.packed_bytes(ENTRIES))
    return measure_envelope([invitation, masked + longer, *shares], entries=entries)


def _finish_seconds(peers: NDArray[np.int64], threshold: int, *, repeat: int) -> float:
    """Return CPU seconds for what the server does at the end for one client: take its shares, open its self mask."""
    masks, degree = SelfMasks(peers, reverse_places(peers), threshold), peers.shape[1]
    fixed, secret, session = FixedPoint(SETTINGS.fraction_bits, len(peers)), os.urandom(15) + b"\0", bytes(32)
    known = {0: int.from_bytes(secret, "little"), **{point: point for point in range(1, threshold)}}
    values = [*range(1, threshold), *extend(known, range(threshold, degree + 1))]
    alive = np.ones(degree, dtype=np.bool_)
    for place, peer in enumerate(peers[0].tolist()):
        masks.put(peer, alive, [to_bytes(values[place])] * degree)
    packed = fixed.pack(np.zeros(ENTRIES, dtype=fixed.dtype))
    started = time.process_time()
    for _ in range(repeat):
        masks.put(int(peers[0][0]), alive, [to_bytes(values[0])] * degree)
        recovered = masks.secret(0, commitment(secret, session), session)
        subtract_mask(fixed.unpack(packed, ENTRIES).copy(), self_mask_key(recovered, session))
    return (time.process_time() - started) / repeat


def _check(server: SecureSum, vectors: NDArray[np.float64]) -> None:
    fixed = FixedPoint(SETTINGS.fraction_bits, len(vectors))
    plain = np.sum([fixed.to_words(vector).astype(np.uint64) for vector in vectors], axis=0)
    if server.total is None or (server.total.words != plain).any():
        raise RuntimeError("the secure sum is not the plain sum")


def main() -> None:
    """Print the table; end with 1 if ours is slower or too large."""
    parser = argparse.ArgumentParser(description="Secure sums of 380 numbers, beside Flower's SecAgg+ primitives.")
    parser.add_argument("--clients", type=int, nargs="+", default=[100, 1000, 10_000], help="sizes of cohorts")
    parser.add_argument("--sample", type=int, default=20, help="clients that are run of a cohort above 1,000")
    parser.add_argument("--flower-sample", type=int, default=1, help="clients of Flower's that are run")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    given = parser.parse_args()
    rows = [measure(clients, sample=given.sample, flower_sample=given.flower_sample) for clients in given.clients]
    if given.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
    else:
        Console().print(_table(rows), _envelope_table(rows))
    slower = any(
        row.client_seconds >= row.flower_client_seconds or row.server_seconds >= row.flower_server_seconds
        for row in rows
    )
    whole = [envelope for row in rows if row.clients <= 100 for envelope in row.envelopes]
    large = any(one.own > LIMIT or one.extra_messages > MOST_MESSAGES for one in whole)
    raise SystemExit(slower or large)


def _envelope_table(rows: list[Row]) -> Table:
    table = Table(
        "clients", "numbers", "round in the open", "round of sums", "of it the sum", "more messages",
        title="Bytes of a client in whole, signed Flower messages",
    )  # fmt: skip
    for row in rows:
        for one in row.envelopes:
            sizes = (one.plain, one.secure, one.own, one.extra_messages)
            table.add_row(f"{row.clients:,}", str(one.entries), *(f"{size:,}" for size in sizes))
    return table


def _table(rows: list[Row]) -> Table:
    table = Table(
        "clients", "peers", "threshold", "client ms", "Flower's", "server s", "Flower's", "client bytes", "Flower's",
        "first contact ms", "bytes", "run: ours, Flower's", title="A round of 380 numbers, nobody vanishes (CPU time)",
    )  # fmt: skip
    for row in rows:
        table.add_row(
            f"{row.clients:,}",
            str(row.degree),
            str(row.threshold),
            f"{1000 * row.client_seconds:,.1f}",
            f"{1000 * row.flower_client_seconds:,.0f}",
            f"{row.server_seconds:,.2f}",
            f"{row.flower_server_seconds:,.0f}",
            f"{row.bytes:,}",
            f"{row.flower_bytes:,}",
            f"{1000 * row.first_contact_seconds:,.0f}",
            f"{row.first_contact_bytes:,}",
            f"{row.sampled[0]:,}, {row.sampled[1]:,}",
        )
    return table


if __name__ == "__main__":
    main()
