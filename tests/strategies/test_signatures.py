import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from hypothesis import given
from hypothesis import strategies as st

from personalization.wire.plan import PlanError
from strategies.protocol import MANIFEST, PIECES, PLAN, SIGNATURE
from strategies.signatures import plan_digest, signed_bytes

NUMBERS = st.integers(-(2**63), 2**63 - 1)
SCALARS = st.one_of(NUMBERS, st.floats(allow_nan=False), st.text(max_size=4), st.binary(max_size=4), st.booleans())
VALUES = st.one_of(SCALARS, st.lists(NUMBERS, max_size=3), st.lists(st.text(max_size=3), max_size=3))
RECORDS = st.dictionaries(st.text(min_size=1, max_size=3), VALUES, max_size=4)


def request(plan, manifest=None, data=None) -> RecordDict:
    content = RecordDict({PLAN: ConfigRecord(plan)})
    if manifest is not None:
        content[MANIFEST] = ConfigRecord(manifest)
    if data is not None:
        content[PIECES] = ArrayRecord({PIECES: Array("uint8", (len(data),), "safetensors", data)})
    return content


def typed(record):
    # 1, 1.0 and True are equal for Python, and so are the two zeros, but not for a signature.
    return {key: repr(value) for key, value in record.items()}


@given(RECORDS, RECORDS)
def test_the_same_bytes_mean_the_same_plan(one, other):
    same = signed_bytes(request(one)) == signed_bytes(request(other))
    assert same == (typed(one) == typed(other))
    assert same == (plan_digest(request(one)) == plan_digest(request(other)))


@given(RECORDS, RECORDS, st.binary(max_size=8))
def test_travelling_changes_nothing(plan, manifest, data):
    content = request(plan, manifest, data)
    arrived = recorddict_from_proto(recorddict_to_proto(content))
    assert signed_bytes(arrived) == signed_bytes(content)


def test_order_does_not_matter_and_the_signature_does_not_sign_itself():
    assert signed_bytes(request({"a": 1, "b": 2})) == signed_bytes(request({"b": 2, "a": 1, SIGNATURE: b"x"}))


def test_what_comes_with_a_plan_is_covered_but_does_not_make_it_another_plan():
    plan = {"version": 1}
    requests = [
        request(plan),
        request(plan, {}),
        request(plan, {"a": b"1"}),
        request(plan, None, b""),
        request(plan, None, b"1"),
        request(plan, {"a": b"1"}, b"1"),
    ]
    assert len({signed_bytes(content) for content in requests}) == len(requests)
    assert len({plan_digest(content) for content in requests}) == 1


def test_every_field_of_an_array_is_covered():
    def of(**changed):
        fields = {"dtype": "uint8", "shape": (2,), "stype": "safetensors", "data": b"12", **changed}
        return signed_bytes(RecordDict({PLAN: ConfigRecord({}), PIECES: ArrayRecord({PIECES: Array(**fields)})}))

    changes = [{}, {"dtype": "int8"}, {"shape": (1, 2)}, {"stype": "numpy.ndarray"}, {"data": b"13"}]
    assert len({of(**change) for change in changes}) == len(changes)


@pytest.mark.parametrize(
    "content",
    [
        RecordDict(),
        RecordDict({MANIFEST: ConfigRecord({})}),
        RecordDict({PLAN: ConfigRecord({}), "more": ConfigRecord({})}),
        RecordDict({PLAN: ConfigRecord({}), "more": MetricRecord({"a": 1})}),
        RecordDict({PLAN: ConfigRecord({}), MANIFEST: MetricRecord({"a": 1})}),
        RecordDict({PLAN: ConfigRecord({}), PIECES: ConfigRecord({"a": 1})}),
        RecordDict({PLAN: ConfigRecord({}), "more": ArrayRecord([np.zeros(2)])}),
    ],
)
def test_nothing_else_can_ride_along(content):
    with pytest.raises(PlanError):
        signed_bytes(content)
