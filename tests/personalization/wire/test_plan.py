import math

import numpy as np
import pytest
from flwr.app import ConfigRecord
from flwr.common.serde import config_record_to_proto
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from personalization.sensing.prior import Prior
from personalization.wire.plan import Plan, PlanError
from personalization.wire.statistics import LARGEST_NATS, StatisticsLayout

LAYOUT = StatisticsLayout(layers=3, levels=2, groups=11)
BUNDLED = StatisticsLayout(layers=12, levels=2, groups=6 * (4 + 16))


def make_plan(layout=LAYOUT, prior=True, seed=0):
    rng = np.random.default_rng(seed)
    known = Prior(rng.random(layout.atoms), 3 * rng.random(layout.atoms)) if prior else None
    return Plan(version=7, prior=known, dropped=rng.random(layout.groups) < 0.3, probes=6, budget=0.5)


@st.composite
def plans(draw):
    layout = draw(st.builds(StatisticsLayout, st.integers(1, 5), st.integers(1, 3), st.integers(1, 20)))
    values = st.floats(0, LARGEST_NATS)
    prior = None
    if draw(st.booleans()):
        prior = Prior(*(draw(arrays.arrays(np.float64, layout.atoms, elements=values)) for _ in range(2)))
    return layout, Plan(
        version=draw(st.integers(0, 2**40)),
        prior=prior,
        dropped=draw(arrays.arrays(np.bool_, layout.groups)),
        probes=draw(st.integers(0, 1000)),
        budget=draw(st.floats(0, 1, exclude_min=True)),
    )


@given(pair=plans())
def test_a_plan_comes_back_from_its_record(pair):
    layout, plan = pair
    found = Plan.from_record(plan.to_record(), layout)
    assert (found.version, found.probes, found.budget) == (plan.version, plan.probes, plan.budget)
    np.testing.assert_array_equal(found.dropped, plan.dropped)
    assert (found.prior is None) == (plan.prior is None)
    if plan.prior is not None and found.prior is not None:
        np.testing.assert_allclose(found.prior.sensitivity, plan.prior.sensitivity, rtol=0.02, atol=1e-6)
        np.testing.assert_allclose(found.prior.precision, plan.prior.precision, rtol=1e-3, atol=1e-7)


@given(pair=plans())
def test_a_plan_survives_flower_s_record(pair):
    layout, plan = pair
    record = ConfigRecord(plan.to_record())
    assert Plan.from_record(dict(record), layout).to_record() == Plan.from_record(plan.to_record(), layout).to_record()


def test_a_budget_of_one_is_a_number_however_it_was_written():
    record = Plan(version=0, prior=None, dropped=np.zeros(11, dtype=np.bool_), probes=0, budget=1).to_record()
    assert Plan.from_record(record, LAYOUT).budget == 1.0


def test_keys_of_others_are_ignored():
    record = make_plan().to_record() | {"message": "anything"}
    assert Plan.from_record(record, LAYOUT).version == 7


@pytest.mark.parametrize("key", ["version", "dropped", "probes", "budget"])
def test_a_missing_key_is_named(key):
    record = make_plan().to_record()
    del record[key]
    with pytest.raises(PlanError, match=key):
        Plan.from_record(record, LAYOUT)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("version", "7"),
        ("version", -1),
        ("version", 7.0),
        ("version", True),
        ("probes", -1),
        ("probes", None),
        ("budget", 0.0),
        ("budget", 1.1),
        ("budget", math.nan),
        ("budget", math.inf),
        ("budget", "0.5"),
        ("dropped", b""),
        ("dropped", bytes(3)),
        ("dropped", "ab"),
        ("prior-sensitivity", bytes(2)),
        ("prior-sensitivity", np.full(6, math.nan, "<f2").tobytes()),
        ("prior-sensitivity", np.full(6, 1.5, "<f2").tobytes()),
        ("prior-sensitivity", np.full(6, -0.5, "<f2").tobytes()),
        ("prior-precision", np.full(6, math.inf, "<f2").tobytes()),
        ("prior-precision", np.full(6, -1.0, "<f2").tobytes()),
        ("prior-precision", bytes(14)),
        ("prior-precision", [0.0] * 6),
    ],
)
def test_values_out_of_range_or_of_the_wrong_type_are_refused(key, value):
    with pytest.raises(PlanError, match=r"plan|dropped|prior"):
        Plan.from_record(make_plan().to_record() | {key: value}, LAYOUT)


def test_half_a_prior_is_refused():
    record = make_plan().to_record()
    del record["prior-precision"]
    with pytest.raises(PlanError, match="prior-precision"):
        Plan.from_record(record, LAYOUT)


def test_a_precision_beyond_half_precision_is_the_largest_there_is():
    plan = Plan(1, Prior(np.zeros(6), np.full(6, 1e9)), np.zeros(11, dtype=np.bool_), 0, 0.5)
    found = Plan.from_record(plan.to_record(), LAYOUT)
    assert found.prior is not None
    assert found.prior.precision.tolist() == [float(np.finfo(np.float16).max)] * 6


def test_the_bundled_model_s_plan_is_below_one_and_a_half_kilobytes():
    record = ConfigRecord(make_plan(BUNDLED).to_record())
    assert config_record_to_proto(record).ByteSize() <= 1500
