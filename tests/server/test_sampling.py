import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalization.errors import UserError
from server.sampling import quorum_size, sample_nodes, wait_for_nodes


@given(st.lists(st.integers(1, 2**63), min_size=1, max_size=40, unique=True), st.floats(0.01, 1.0), st.integers(0, 9))
def test_a_sample_depends_on_seed_and_round_alone(nodes, fraction, number):
    first = sample_nodes(nodes, fraction=fraction, seed=1, round_number=number)
    assert first == sample_nodes(sorted(nodes, reverse=True), fraction=fraction, seed=1, round_number=number)
    assert set(first) <= set(nodes)
    assert len(set(first)) == len(first) >= 1


def test_the_share_is_what_was_asked_for_and_rounds_differ():
    nodes = list(range(100))
    samples = [tuple(sample_nodes(nodes, fraction=0.3, seed=0, round_number=r)) for r in range(5)]
    assert {len(s) for s in samples} == {30}
    assert len(set(samples)) == 5
    assert sample_nodes(nodes, fraction=1.0, seed=0, round_number=1) == nodes


def test_a_quorum_is_at_least_one():
    assert [quorum_size(n, q) for n, q in ((10, 0.5), (9, 0.5), (1, 0.01), (10, 1.0))] == [5, 5, 1, 10]


class _Fleet:
    def __init__(self, counts):
        self.counts = list(counts)

    def get_node_ids(self):
        return range(self.counts.pop(0) if len(self.counts) > 1 else self.counts[0])


def test_waiting_ends_as_soon_as_enough_are_there():
    assert wait_for_nodes(_Fleet([0, 1, 3]), fewest=3, deadline=60) == [0, 1, 2]


def test_waiting_ends_with_a_clear_line():
    with pytest.raises(UserError, match="1 of 3 clients connected"):
        wait_for_nodes(_Fleet([1]), fewest=3, deadline=0.0)
