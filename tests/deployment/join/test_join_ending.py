import pytest
from joining import any_node

from deployment.join.backoff import Backoff
from deployment.join.connection import Answer, own_flower
from deployment.join.ending import STILL_ONLINE_SECONDS, Admission, explain_end, has_left
from deployment.join.flower_log import LastWords, Said, Sign
from personalization.errors import UserError

REFUSED = LastWords([Said(Sign.EXIT_CODE, "305"), Said(Sign.SERVER_CODE, "2004")])


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def node(tmp_path):
    return any_node(tmp_path, 9)  # where nothing listens


def test_a_node_that_the_server_does_not_know_is_told_so_at_once(node):
    with pytest.raises(UserError, match=r"does not admit hall .*not registered there, or revoked"):
        explain_end(REFUSED, 1, node=node, online=False, admission=Admission())


def test_a_node_that_vanished_waits_until_the_server_has_noticed(node):
    clock = Clock()
    admission = Admission(clock)
    for seconds in (0, 30, STILL_ONLINE_SECONDS - 31):
        clock.now += seconds
        line = explain_end(REFUSED, 1, node=node, online=True, admission=admission)
        assert "still takes this device for connected" in line
    clock.now += 2
    with pytest.raises(UserError, match="does not admit"):
        explain_end(REFUSED, 1, node=node, online=True, admission=admission)
    admission.reset()
    assert explain_end(REFUSED, 1, node=node, online=True, admission=admission)


def test_another_version_of_flower_is_told(node):
    words = LastWords([Said(Sign.EXIT_CODE, "606")])
    with pytest.raises(UserError, match=r"Flower .* do not fit"):
        explain_end(words, 1, node=node, online=False, admission=Admission())


def test_any_other_end_is_no_reason_to_give_up(node):
    for words, code in ((LastWords([]), -9), (LastWords([]), 0), (LastWords([Said(Sign.EXIT_CODE, "305")]), 1)):
        assert explain_end(words, code, node=node, online=True, admission=Admission())


def test_a_goodbye_counts_only_where_the_server_can_have_taken_it(node, monkeypatch):
    assert not has_left(0, node), "nobody answers there"
    for seconds, left in ((0.0, True), (600.0, False), (-600.0, False)):
        answer = Answer(clock_ahead=seconds, flower=own_flower())
        monkeypatch.setattr("deployment.join.ending.ask_server", lambda node, found=answer: found)
        assert has_left(0, node) is left
        assert not has_left(1, node), "it had no time to say goodbye"


def test_waits_double_are_bounded_and_jittered():
    longest = Backoff(uniform=lambda: 0.0)
    assert [longest.next() for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    longest.reset()
    assert longest.next() == 1
    shortest = Backoff(uniform=lambda: 1.0)
    assert [shortest.next() for _ in range(3)] == [0.5, 1, 2]
    drawn = {Backoff().next() for _ in range(20)}
    assert len(drawn) > 1
    assert all(0.5 < wait <= 1 for wait in drawn)


def test_one_wait_can_be_kept_short_and_the_next_goes_on_from_there():
    waits = Backoff(uniform=lambda: 0.0)
    assert [waits.next(longest=6.0) for _ in range(5)] == [1.0, 2.0, 4.0, 6.0, 6.0]
    assert [waits.next() for _ in range(3)] == [12.0, 24.0, 48.0]
