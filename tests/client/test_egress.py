import json

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Error, Message, MessageType, MetricRecord, RecordDict

from client.egress import egress_guard
from personalization.errors import UserError
from personalization.model_files.pieces import PieceError
from personalization.wire.codes import ClientError, ClientFailure
from personalization.wire.plan import Plan
from personalization.wire.statistics import StatisticsLayout
from strategies.protocol import PLAN, plan_record, read_reply, reply_content

LAYOUT = StatisticsLayout(layers=2, levels=2, groups=5)
VECTOR = np.linspace(0, 1, LAYOUT.size)
SECRET = "the secret of image 17"

pytestmark = pytest.mark.usefixtures("task_identity")


def request() -> Message:
    plan = Plan(version=4, prior=None, dropped=np.zeros(5, dtype=bool), probes=2, budget=0.5)
    return Message(RecordDict({PLAN: plan_record(plan, LAYOUT, bytes(32))}), 7, MessageType.TRAIN)


def guard(tmp_path, app, message=None) -> Message:
    context = Context(1, 7, {"state-dir": str(tmp_path / "state")}, RecordDict(), {})
    return egress_guard(message or request(), context, lambda m, c: app(m))


def test_a_valid_reply_passes_and_is_built_anew(tmp_path):
    content = reply_content(VECTOR, 4)
    reply = guard(tmp_path, lambda m: Message(content, reply_to=m, ttl=123.0))
    assert reply.content is not content
    assert np.allclose(read_reply(reply.content, LAYOUT, 4), VECTOR, atol=1e-3)


@pytest.mark.parametrize(
    "content",
    [
        RecordDict(),
        RecordDict({**reply_content(VECTOR, 4), "m": MetricRecord({"x": 1.0})}),
        RecordDict({"statistics": ConfigRecord({"vector": SECRET.encode(), "version": 4})}),
        reply_content(VECTOR, 5),
        reply_content(VECTOR[:-1], 4),
        reply_content(2 * VECTOR, 4),
    ],
)
def test_anything_else_is_replaced_by_a_code(tmp_path, content):
    reply = guard(tmp_path, lambda m: Message(content, reply_to=m))
    assert reply.has_error()
    assert (reply.error.code, reply.error.reason) == (ClientFailure.EGRESS_REFUSED, "")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ClientError(ClientFailure.BACKBONE_MISSING, SECRET), ClientFailure.BACKBONE_MISSING),
        (PieceError(SECRET), ClientFailure.REQUEST_INVALID),
        (UserError(SECRET), ClientFailure.DATA_UNUSABLE),
        (OSError(SECRET), ClientFailure.STATE_UNWRITABLE),
        (RuntimeError(SECRET), ClientFailure.FAILED),
        (KeyError(SECRET), ClientFailure.FAILED),
    ],
)
def test_exceptions_become_codes_and_their_text_stays_on_the_device(tmp_path, error, code):
    def app(message):
        raise error

    reply = guard(tmp_path, app)
    assert (reply.error.code, reply.error.reason) == (code, "")
    path = tmp_path / "state" / "last_error.json"
    assert SECRET in json.loads(path.read_text())["message"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_error_text_of_the_application_does_not_pass(tmp_path):
    reply = guard(tmp_path, lambda m: Message(Error(2, SECRET), reply_to=m))
    assert (reply.error.code, reply.error.reason) == (ClientFailure.FAILED, "")


def test_a_request_without_plan_never_reaches_the_application(tmp_path):
    message = Message(RecordDict(), 7, MessageType.TRAIN)
    reply = guard(tmp_path, lambda m: pytest.fail("called"), message)
    assert reply.error.code == ClientFailure.REQUEST_INVALID


def test_without_a_place_for_its_state_a_client_still_answers_with_a_code():
    def app(message):
        raise RuntimeError(SECRET)

    reply = egress_guard(request(), Context(1, 7, {}, RecordDict(), {}), lambda m, c: app(m))
    assert (reply.error.code, reply.error.reason) == (ClientFailure.FAILED, "")
