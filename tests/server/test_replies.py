"""What comes in and is no reply to what was asked is dropped, and counted by reason."""

import numpy as np
import pytest
from conftest import make_tiny_vit
from flwr.app import ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode

from personalization.wire.plan import Plan
from server.backbone import GenericBackbone
from server.exchange import exchange
from strategies.protocol import STATISTICS, reply_content

pytestmark = pytest.mark.usefixtures("task_identity")
NODES = (11, 12, 13)


@pytest.fixture(scope="module")
def backbone():
    return GenericBackbone(make_tiny_vit(), {"identifier": "tiny", "labels": [], "preprocessing": None}, 2)


class Wire:
    """A grid of which `answers` makes what comes back from the messages that were sent."""

    def __init__(self, answers):
        self.answers = answers

    def send_and_receive(self, messages, *, timeout):
        for message in messages:
            message.metadata.__dict__["_message_id"] = f"id of {message.metadata.dst_node_id}"
        return self.answers(messages)


def asked(backbone, answers):
    plan = Plan(version=4, prior=None, dropped=np.zeros(backbone.layout.groups, dtype=bool), probes=1, budget=0.5)
    return exchange(Wire(answers), backbone, plan, NODES, believed={}, deadline=60.0)


def good(backbone, message, **facts):
    reply = Message(reply_content(np.full(backbone.layout.size, 0.5), 4), reply_to=message)
    reply.metadata.__dict__.update(facts)
    return reply


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"_src_node_id": 99}, "reply_not_asked"),
        ({}, "reply_twice"),
        ({"_reply_to_message_id": "id of 12"}, "reply_other_message"),
        ({"_created_at": 1e12}, "reply_late"),
    ],
)
def test_what_answers_nothing_that_was_asked_is_dropped_and_counted(backbone, facts, reason):
    def answers(messages):
        first, second, third = messages
        spare = good(backbone, second if reason == "reply_twice" else first, **facts)
        whole = [] if reason == "reply_late" else [good(backbone, first)]
        return [good(backbone, second), spare, *whole, good(backbone, third)]

    outcome = asked(backbone, answers)
    assert outcome.dropped == {reason: 1}
    late = reason == "reply_late"
    assert set(outcome.vectors) == (set(NODES[1:]) if late else set(NODES))
    assert outcome.failures == ({"no_reply": 1} if late else {}), "a client is counted once"


def test_what_flower_says_in_the_place_of_a_lost_node_counts_for_that_node(backbone):
    def answers(messages):
        lost = Message(Error(ErrorCode.NODE_UNAVAILABLE, ""), reply_to=messages[1])
        lost.metadata.__dict__["_src_node_id"] = SUPERLINK_NODE_ID
        return [good(backbone, messages[0]), lost, good(backbone, messages[2])]

    outcome = asked(backbone, answers)
    assert (outcome.errors, outcome.dropped) == ({12: 5}, {})


def test_replies_that_hold_something_wrong_are_counted_by_what_it_is(backbone):
    size = backbone.layout.size
    wrong = {
        "reply_length": reply_content(np.zeros(size - 1), 4),
        "reply_range": reply_content(np.full(size, 1.5), 4),
        "reply_not_finite": reply_content(np.full(size, np.nan), 4),
        "reply_version": reply_content(np.zeros(size), 5),
        "reply_keys": RecordDict({STATISTICS: ConfigRecord({"vector": b""})}),
        "reply_types": RecordDict({STATISTICS: ConfigRecord({"vector": "text", "version": 4})}),
        "reply_records": RecordDict({"other": MetricRecord({"a": 1})}),
    }
    for code, content in wrong.items():
        outcome = asked(backbone, lambda messages, content=content: [Message(content, reply_to=messages[0])])
        assert outcome.failures == {code: 1, "no_reply": 2}
        assert not outcome.vectors
