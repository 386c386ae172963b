from collections.abc import Collection, Iterable
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.stats import chi2
from secure_fleet import Fleet, round_name, seeded

from strategies.secure_aggregation.errors import RefusalError, RoundFailedError
from strategies.secure_aggregation.fixed_point import FixedPoint
from strategies.secure_aggregation.graph import ALL_PAIRS, graph_size
from strategies.secure_aggregation.messages import PAIR_REQUEST, SHARE_REQUEST
from strategies.secure_aggregation.settings import SecureAggregationSettings

ENTRIES = 5


@cache
def made(clients: int, dropout: float = 0.3) -> Fleet:
    return Fleet(clients, settings=SecureAggregationSettings(dropout=dropout))


def fresh(clients: int, dropout: float = 0.3) -> Fleet:
    fleet = made(clients, dropout)
    fleet.reset()
    return fleet


def random_vectors(fleet: Fleet, seed: int) -> dict[int, NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    return {handle: rng.random(ENTRIES) for handle in fleet.adverts}


def losing(order: list[int], counts: Iterable[int]):  # type: ignore[no-untyped-def]
    """At each exchange the next so many clients in `order` do not answer."""
    remaining, planned = list(order), list(counts)

    def vanish(exchange: int, asked: Collection[int]) -> list[int]:
        count = planned[exchange] if exchange < len(planned) else 0
        lost = [remaining.pop() for _ in range(min(count, len(remaining)))]
        return lost

    return vanish


@hypothesis_settings(max_examples=40)
@given(st.integers(3, 16), st.data())
def test_the_secure_sum_is_the_plain_sum(clients: int, data: st.DataObject) -> None:
    fleet = fresh(clients)
    rows = data.draw(arrays(np.float64, (clients, ENTRIES), elements=st.floats(0.0, 1.0)))
    vectors = dict(zip(fleet.adverts, rows, strict=True))
    server = fleet.run(vectors, name=round_name())
    assert server.total is not None
    np.testing.assert_array_equal(server.total.words, fleet.plain_sum(vectors, fleet.adverts))
    assert all(device.stages == [SHARE_REQUEST] for device in fleet.devices.values()), "one more exchange than plain"


@hypothesis_settings(max_examples=60)
@given(st.integers(4, 24), st.integers(0, 2**32), st.data())
def test_any_thirty_percent_may_vanish_at_any_stage(clients: int, seed: int, data: st.DataObject) -> None:
    fleet = fresh(clients)
    vectors = random_vectors(fleet, seed)
    order = data.draw(st.permutations(sorted(fleet.adverts)))
    left, counts = int(0.3 * clients), []
    for _ in range(4):
        counts.append(data.draw(st.integers(0, left)))
        left -= counts[-1]
    server = fleet.run(vectors, name=round_name(), vanish=losing(order, counts))
    assert server.total is not None
    # Nobody who came through to the end is missing, and nobody is in the sum who never sent a vector.
    first = set(order[len(order) - counts[0] :]) if counts[0] else set()
    staying = set(order[: len(order) - sum(counts)])
    assert staying <= set(server.total.clients) <= set(fleet.adverts) - first
    np.testing.assert_array_equal(server.total.words, fleet.plain_sum(vectors, server.total.clients))


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_thirty_of_a_hundred_vanish(stage: int) -> None:
    fleet = fresh(100)
    vectors = random_vectors(fleet, stage)
    counts = [0, 0, 0]
    counts[0], counts[stage] = int(stage > 0), 30 - int(stage > 0)
    order = np.random.default_rng(stage).permutation(sorted(fleet.adverts)).tolist()
    server = fleet.run(vectors, name=round_name(), vanish=losing(order, counts))
    assert server.total is not None
    # Those who vanish while masks are told are out; those who vanish while shares are told are in.
    assert len(server.total.clients) == {0: 70, 1: 70, 2: 99}[stage]
    np.testing.assert_array_equal(server.total.words, fleet.plain_sum(vectors, server.total.clients))


def test_a_sparse_graph_sums_and_bears_losses_too() -> None:
    clients = ALL_PAIRS + 42
    fleet = fresh(clients)
    size = graph_size(clients, fleet.settings)
    assert size.degree < clients - 1
    vectors = random_vectors(fleet, 0)
    order = np.random.default_rng(0).permutation(sorted(fleet.adverts)).tolist()
    server = fleet.run(vectors, name=round_name(), vanish=losing(order, [20, 10, 21]))
    assert server.total is not None
    assert set(order[:119]) <= set(server.total.clients)
    np.testing.assert_array_equal(server.total.words, fleet.plain_sum(vectors, server.total.clients))


@hypothesis_settings(max_examples=30)
@given(st.integers(4, 14), st.sampled_from([0, 1, 2]), st.integers(0, 2**32))
def test_below_the_threshold_the_round_fails_and_nothing_was_told(clients: int, stage: int, seed: int) -> None:
    fleet = fresh(clients)
    vectors = random_vectors(fleet, seed)
    order = np.random.default_rng(seed).permutation(sorted(fleet.adverts)).tolist()
    needed = graph_size(clients, fleet.settings).threshold
    counts = [0, 0, 0]
    if stage > 0:
        counts[0] = int(0.3 * clients) and 1
    # So many stay that everybody has one peer fewer than needed; in the last exchange, so few that shares are short.
    counts[stage] += clients - sum(counts) - (needed if stage < 2 else needed - 1)
    with pytest.raises(RoundFailedError, match="Nothing was revealed"):
        fleet.run(vectors, name=round_name(), vanish=losing(order, counts))
    if stage == 0:
        assert all(not device.stages for device in fleet.devices.values())
    if stage == 1 and counts[0]:
        assert all(SHARE_REQUEST not in device.stages for device in fleet.devices.values())


def test_where_clients_vanish_one_more_exchange_is_needed_and_no_more() -> None:
    fleet = fresh(10)
    fleet.run(random_vectors(fleet, 0), name=round_name(), vanish=losing(sorted(fleet.adverts), [2]))
    stages = [device.stages for device in fleet.devices.values() if device.stages]
    assert stages == [[PAIR_REQUEST, SHARE_REQUEST]] * 8


def test_a_masked_vector_looks_uniform() -> None:
    """Chi-square over many runs of one client's masked vector of constants: lowest six bits, highest six, and pairs."""
    fleet, fixed, runs, bins = made(4), FixedPoint(16, 4), 400, 64
    vectors = {handle: np.full(64, 0.25) for handle in fleet.adverts}
    victim = min(fleet.adverts)
    seen = []
    for run in range(runs):
        fleet.reset()
        name = round_name(version=run, entries=64)
        server = fleet.server(name)
        raw = fleet.devices[victim].mask(
            fleet.invitations(server)[victim], vectors[victim], name, fleet.settings, seeded(run)
        )
        seen.append(fixed.unpack(raw[-fixed.packed_bytes(64) :], 64))
    words = np.concatenate(seen).astype(np.int64)
    for shift in (0, fixed.bits - 6):
        found = np.bincount(words >> shift & (bins - 1), minlength=bins)
        statistic = ((found - len(words) / bins) ** 2).sum() / (len(words) / bins)
        assert chi2(bins - 1).sf(statistic) > 1e-3
    # Neither does one entry give away another, nor a run the next.
    pairs = np.bincount((words[:-1] >> fixed.bits - 3) * 8 + (words[1:] >> fixed.bits - 3), minlength=64)
    assert chi2(63).sf(((pairs - pairs.mean()) ** 2).sum() / pairs.mean()) > 1e-3


def test_masks_of_clients_that_were_told_different_plans_do_not_cancel() -> None:
    fleet = fresh(5)
    vectors = random_vectors(fleet, 0)
    server = fleet.server(round_name())
    replies = {}
    for number, (handle, raw) in enumerate(fleet.invitations(server).items()):
        name = round_name(plan=bytes([number == 0]) * 32)
        replies[handle] = fleet.devices[handle].mask(raw, vectors[handle], name, fleet.settings, seeded(number))
    requests = server.advance(replies)
    deceived, *others = fleet.devices
    with pytest.raises(RefusalError, match="another round"):
        fleet.devices[deceived].answer(requests[deceived])
    with pytest.raises(RoundFailedError):
        server.advance({handle: fleet.devices[handle].answer(requests[handle]) for handle in others})


def test_wrong_shares_of_one_client_are_noticed_and_worked_around() -> None:
    fleet = fresh(10)
    vectors = random_vectors(fleet, 0)
    server, entropy = fleet.server(round_name()), seeded(0)
    invitations = fleet.invitations(server)
    requests = server.advance(
        {
            handle: device.mask(invitations[handle], vectors[handle], round_name(), fleet.settings, entropy)
            for handle, device in fleet.devices.items()
        }
    )
    replies = {handle: device.answer(requests[handle]) for handle, device in fleet.devices.items()}
    liar, silly, *_ = replies
    replies[liar] = replies[liar][:1] + bytes(len(replies[liar]) - 1)
    replies[silly] = b"?"
    assert server.advance(replies) == {}
    assert server.total is not None
    np.testing.assert_array_equal(server.total.words, fleet.plain_sum(vectors, fleet.adverts))
    assert server.rejected == {"length": 1}


def test_a_reply_that_fits_nothing_counts_as_none() -> None:
    fleet = fresh(10)
    vectors = random_vectors(fleet, 0)
    server, entropy = fleet.server(round_name()), seeded(0)
    invitations = fleet.invitations(server)
    replies = {
        handle: device.mask(invitations[handle], vectors[handle], round_name(), fleet.settings, entropy)
        for handle, device in fleet.devices.items()
    }
    bad = min(replies)
    replies[bad] += b"\0"
    requests = server.advance(replies)
    assert bad not in requests
    assert requests.keys() == replies.keys() - {bad}
    assert server.rejected == {"length": 1}


def test_a_round_of_a_vit_small_in_a_cohort_of_100_fits_six_kilobytes() -> None:
    fleet = fresh(100)
    name = round_name(entries=380)
    server, entropy = fleet.server(name), seeded(0)
    sent = dict.fromkeys(fleet.adverts, 0)
    requests = fleet.invitations(server)
    for exchange in range(2):
        replies = {}
        for handle, device in fleet.devices.items():
            if exchange == 0:
                replies[handle] = device.mask(requests[handle], np.zeros(380), name, fleet.settings, entropy)
            else:
                replies[handle] = device.answer(requests[handle])
            sent[handle] += len(requests[handle]) + len(replies[handle])
        requests = server.advance(replies)
    assert server.total is not None
    assert max(sent.values()) < 6000
