import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from personalization.model_files.pieces import PieceError
from personalization.sensing.prior import Prior
from personalization.wire.plan import Plan, PlanError
from personalization.wire.statistics import StatisticsError, StatisticsLayout
from strategies.protocol import (
    PIECES,
    PLAN,
    pieces_record,
    plan_record,
    read_pieces,
    read_plan,
    read_reply,
    reply_content,
)

LAYOUT = StatisticsLayout(layers=2, levels=2, groups=5)
PLAN_3 = Plan(version=3, prior=Prior(np.ones(4), np.ones(4)), dropped=np.eye(5, dtype=bool)[1], probes=2, budget=0.5)


def request() -> RecordDict:
    return RecordDict({PLAN: plan_record(PLAN_3, LAYOUT, bytes(32))})


def test_a_plan_survives_the_message():
    plan, layout, root = read_plan(request())
    assert (plan.version, plan.probes, plan.budget, layout, root) == (3, 2, 0.5, LAYOUT, bytes(32))
    assert np.array_equal(plan.dropped, PLAN_3.dropped)


@pytest.mark.parametrize(
    ("key", "value"), [("layers", 0), ("levels", "2"), ("groups", 1 << 30), ("root", b"short"), ("version", -1)]
)
def test_a_plan_that_makes_no_sense_is_refused(key, value):
    content = request()
    content.config_records[PLAN][key] = value
    with pytest.raises(PlanError):
        read_plan(content)


def test_a_message_without_plan_is_refused():
    with pytest.raises(PlanError):
        read_plan(RecordDict())


def test_tensors_survive_the_message_in_their_own_type():
    tensors = {"0": torch.arange(6.0).half().view(2, 3), "1": torch.tensor([1, 2])}
    found = read_pieces(RecordDict({PIECES: pieces_record(tensors)}))
    assert all(torch.equal(found[k], v) and found[k].dtype == v.dtype for k, v in tensors.items())


def test_broken_pieces_are_refused():
    record = pieces_record({"0": torch.ones(3)})
    record[PIECES].data = record[PIECES].data[:-1]
    with pytest.raises(PieceError):
        read_pieces(RecordDict({PIECES: record}))


def test_a_reply_holds_the_vector_and_nothing_else():
    vector = np.linspace(0, 1, LAYOUT.size)
    assert np.allclose(read_reply(reply_content(vector, 3), LAYOUT, 3), vector, atol=1e-3)


def _with(record: dict) -> RecordDict:
    content = reply_content(np.zeros(LAYOUT.size), 3)
    content.config_records["statistics"].update(record)
    return content


@pytest.mark.parametrize(
    "content",
    [
        RecordDict(),
        _with({"note": "hello"}),
        _with({"version": 4}),
        _with({"version": True}),
        _with({"vector": bytes(2 * LAYOUT.size + 2)}),
        _with({"vector": np.full(LAYOUT.size, np.nan, "<f2").tobytes()}),
        _with({"vector": np.full(LAYOUT.size, 1.5, "<f2").tobytes()}),
        _with({"vector": [1, 2]}),
        RecordDict({**reply_content(np.zeros(LAYOUT.size), 3), "more": ConfigRecord({"a": 1})}),
        RecordDict({**reply_content(np.zeros(LAYOUT.size), 3), "more": MetricRecord({"a": 1})}),
        RecordDict({**reply_content(np.zeros(LAYOUT.size), 3), "more": ArrayRecord([np.zeros(3)])}),
        RecordDict({"statistics": MetricRecord({"version": 3})}),
    ],
)
def test_any_other_reply_is_refused(content):
    with pytest.raises(StatisticsError):
        read_reply(content, LAYOUT, 3)
