"""What may leave a device that was asked for a part of a secure sum: that part in its exact form, and no vector."""

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, MessageType, MetricRecord, RecordDict

from client.egress import egress_guard
from personalization.wire.codes import ClientFailure
from personalization.wire.plan import Plan
from personalization.wire.statistics import StatisticsLayout
from strategies.protocol import PLAN, SECURE, plan_record, reply_content
from strategies.secure_aggregation.fixed_point import FixedPoint
from strategies.secure_aggregation.graph import graph_size
from strategies.secure_aggregation.identity import ADVERT_BYTES
from strategies.secure_aggregation.messages import (
    PAIR_REPLY,
    SHARE_REPLY,
    Invitation,
    MaskedInput,
    PairRequest,
    ShareRequest,
)
from strategies.secure_aggregation.settings import SecureAggregationSettings
from strategies.secure_protocol import SecureRequest, Step, read_secure_reply, secure_reply

LAYOUT = StatisticsLayout(layers=2, levels=2, groups=5)
VECTOR = np.linspace(0, 1, LAYOUT.size)
COHORT, PEERS = 10, 9
SIZE = graph_size(COHORT, SecureAggregationSettings())
SHARES = SIZE.degree - SIZE.threshold + 1
WIDTH = FixedPoint(16, COHORT).packed_bytes(LAYOUT.size)
SOME = np.arange(PEERS) < 4
INVITATION = Invitation(COHORT, 1, np.arange(2, 11, dtype=np.uint32))
MASKED = MaskedInput(b"c" * 16, b"n" * 8, [b"s" * 32] * SHARES, b"v" * WIDTH).encode()
# For each request what its reply has to look like.
ASKED = {
    "advertise": (Step.ADVERTISE, b"", b"a" * ADVERT_BYTES),
    "mask": (Step.MASK, INVITATION.encode(), MASKED),
    "withhold": (Step.WITHHOLD, b"", b""),
    "pairs": (Step.REVEAL, PairRequest(b"t" * 8, SOME).encode(), bytes([PAIR_REPLY]) + b"k" * (4 * 32)),
    "shares": (Step.REVEAL, ShareRequest(b"t" * 8, ~SOME, {}).encode(), bytes([SHARE_REPLY]) + b"s" * (5 * 16)),
}

pytestmark = pytest.mark.usefixtures("task_identity")


def reply_to(tmp_path, name: str, content: RecordDict) -> Message:
    step, message, _ = ASKED[name]
    record = SecureRequest(step=step, fleet="f" * 16, series=1, round=1, message=message).to_record()
    plan = Plan(version=4, prior=None, dropped=np.zeros(5, dtype=bool), probes=2, budget=0.5)
    planned = {PLAN: plan_record(plan, LAYOUT, bytes(32))} if step in (Step.MASK, Step.WITHHOLD) else {}
    request = Message(RecordDict({**planned, SECURE: record}), 7, MessageType.TRAIN)
    context = Context(1, 7, {"state-dir": str(tmp_path / "state")}, RecordDict(), {})
    return egress_guard(request, context, lambda asked, _: Message(content, reply_to=asked))


@pytest.mark.parametrize("name", ASKED)
def test_the_part_that_was_asked_for_passes_and_is_built_anew(tmp_path, name):
    content = secure_reply(ASKED[name][2])
    reply = reply_to(tmp_path, name, content)
    assert reply.content is not content
    assert read_secure_reply(reply.content) == ASKED[name][2]


@pytest.mark.parametrize("name", ASKED)
def test_no_vector_passes_where_a_part_of_a_sum_was_asked_for(tmp_path, name):
    part = secure_reply(ASKED[name][2])
    raw = reply_content(VECTOR, 4).config_records["statistics"]["vector"]
    for content in (
        reply_content(VECTOR, 4),
        RecordDict({**part, **reply_content(VECTOR, 4)}),
        RecordDict({SECURE: ConfigRecord({"message": raw})}),
        RecordDict({SECURE: ConfigRecord({"message": ASKED[name][2] + raw})}),
        RecordDict({SECURE: ConfigRecord({"message": ASKED[name][2], "vector": raw})}),
    ):
        reply = reply_to(tmp_path, name, content)
        assert reply.has_error()
        assert (reply.error.code, reply.error.reason) == (ClientFailure.EGRESS_REFUSED, "")


@pytest.mark.parametrize("name", ASKED)
@pytest.mark.parametrize("other", ASKED)
def test_no_reply_passes_for_another_request(tmp_path, name, other):
    if name != other:
        assert reply_to(tmp_path, name, secure_reply(ASKED[other][2])).error.code == ClientFailure.EGRESS_REFUSED


@pytest.mark.parametrize("name", ASKED)
def test_nothing_rides_along(tmp_path, name):
    message = ASKED[name][2]
    for content in (
        secure_reply(message + b"!"),
        secure_reply(message[:-1] if message else b"!"),
        RecordDict({**secure_reply(message), "m": MetricRecord({"x": 1.0})}),
        RecordDict({SECURE: ConfigRecord({"message": message, "more": 1})}),
        RecordDict(),
    ):
        assert reply_to(tmp_path, name, content).error.code == ClientFailure.EGRESS_REFUSED


def test_no_more_keys_or_shares_pass_than_there_are_peers(tmp_path):
    for name, size, most in (("pairs", 32, 4), ("shares", 16, 4 * 4)):
        kind = ASKED[name][2][:1]
        assert not reply_to(tmp_path, name, secure_reply(kind + b"k" * (most * size))).has_error()
        reply = reply_to(tmp_path, name, secure_reply(kind + b"k" * ((most + 1) * size)))
        assert reply.error.code == ClientFailure.EGRESS_REFUSED
