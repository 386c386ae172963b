import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from personalization.model_files.backbone import load_backbone
from personalization.settings import PersonalizationSettings
from personalization.transformer.groups import unit_groups
from personalization.transformer.layers import find_layers
from personalization.wire.statistics import (
    LARGEST_NATS,
    SCALARS,
    ClientStatistics,
    StatisticsError,
    StatisticsLayout,
    check,
    decode,
    encode,
    fleet_prior,
    from_wire,
    to_vector,
    to_wire,
)
from simulations.pretrain import MODEL_FOLDER

LAYOUT = StatisticsLayout(layers=3, levels=2, groups=7)
layouts = st.builds(StatisticsLayout, layers=st.integers(1, 5), levels=st.integers(1, 3), groups=st.integers(1, 9))


def bundled_layout():
    model = load_backbone(str(MODEL_FOLDER)).model
    layers = find_layers(model)
    groups = sum(map(len, unit_groups(model, layers)))
    return StatisticsLayout(len(layers), len(PersonalizationSettings().levels), groups)


def statistics(layout=LAYOUT, seed=0):
    rng = np.random.default_rng(seed)
    return ClientStatistics(
        sensitivity=rng.exponential(0.5, layout.atoms),
        precision=rng.random(layout.atoms),
        level=rng.random(layout.layers),
        personalized=rng.random(layout.layers) < 0.5,
        group_kept=rng.random(layout.groups),
        agreement=0.9,
        entropy_increase=0.1,
        size_ratio=0.5,
        latency_ratio=0.75,
        fit_r2=0.6,
    )


@given(layout=layouts)
def test_fields_follow_each_other_and_fill_the_vector(layout):
    indices = np.arange(layout.size)
    parts = [indices[layout.field(name)] for name in layout.widths]
    np.testing.assert_array_equal(np.concatenate(parts), indices)
    assert [len(part) for part in parts] == list(layout.widths.values())
    assert layout.atoms == layout.layers * layout.levels
    with pytest.raises(KeyError):
        layout.field("labels")


@given(layout=layouts, data=st.data())
def test_bytes_round_trip_to_half_precision(layout, data):
    vector = data.draw(arrays.arrays(np.float64, layout.size, elements=st.floats(0, 1)))
    raw = encode(vector)
    assert len(raw) == 2 * layout.size
    decoded = decode(raw, layout)
    np.testing.assert_allclose(decoded, vector, atol=2.0**-12)
    assert encode(decoded) == raw


@given(raw=st.binary(max_size=2 * LAYOUT.size + 2))
def test_any_bytes_are_a_valid_vector_or_refused(raw):
    try:
        vector = decode(raw, LAYOUT)
    except StatisticsError:
        return
    assert vector.shape == (LAYOUT.size,)
    assert ((vector >= 0) & (vector <= 1)).all()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.25, 1.001, 2.0])
@pytest.mark.parametrize("position", [0, 11, LAYOUT.size - 1])
def test_an_entry_out_of_range_is_refused(value, position):
    vector = np.full(LAYOUT.size, 0.5)
    vector[position] = value
    with pytest.raises(StatisticsError):
        check(vector, LAYOUT)
    with pytest.raises(StatisticsError):
        decode(encode(vector), LAYOUT)


@pytest.mark.parametrize("length", [0, 1, 2 * LAYOUT.size - 2, 2 * LAYOUT.size - 1, 2 * LAYOUT.size + 2])
def test_another_length_is_refused(length):
    with pytest.raises(StatisticsError, match=f"{length} bytes, expected {2 * LAYOUT.size}"):
        decode(bytes(length), LAYOUT)


def test_another_shape_is_refused():
    with pytest.raises(StatisticsError, match="shape"):
        check(np.zeros((1, LAYOUT.size)), LAYOUT)


@given(nats=st.floats(0, LARGEST_NATS))
def test_the_wire_scale_is_inverted(nats):
    scaled = to_wire(np.array([nats]))
    assert 0.0 <= scaled[0] <= 1.0
    np.testing.assert_allclose(from_wire(scaled), [nats], rtol=1e-9, atol=1e-12)


@given(one=st.floats(-1, 100), other=st.floats(-1, 100))
def test_the_wire_scale_rises_and_is_clipped(one, other):
    low, high = to_wire(np.array(sorted((one, other))))
    assert 0.0 <= low <= high <= 1.0
    assert to_wire(np.array([0.0, LARGEST_NATS])).tolist() == [0.0, 1.0]


@given(nats=st.floats(1e-3, LARGEST_NATS))
def test_half_precision_keeps_sensitivities_to_two_percent(nats):
    assert from_wire(to_wire(np.array([nats])).astype(np.float16).astype(np.float64))[0] == pytest.approx(
        nats, rel=0.02
    )


@given(layout=layouts, seed=st.integers(0, 10**6))
def test_every_field_stands_where_the_layout_says(layout, seed):
    given_statistics = statistics(layout, seed)
    vector = to_vector(given_statistics, layout)
    np.testing.assert_array_equal(vector[layout.field("precision")], given_statistics.precision)
    np.testing.assert_array_equal(vector[layout.field("level")], given_statistics.level)
    np.testing.assert_array_equal(vector[layout.field("personalized")], given_statistics.personalized)
    np.testing.assert_array_equal(vector[layout.field("group_kept")], given_statistics.group_kept)
    np.testing.assert_allclose(
        vector[layout.field("weighted_sensitivity")],
        given_statistics.precision * to_wire(given_statistics.sensitivity),
    )
    scalars = dict(zip(SCALARS, vector[layout.field("scalars")], strict=True))
    assert scalars == pytest.approx(
        {
            "agreement": 0.9,
            "entropy_increase": to_wire(np.array([0.1]))[0],
            "size_ratio": 0.5,
            "latency_ratio": 0.75,
            "fit_r2": 0.6,
        }
    )


@given(layout=layouts, seed=st.integers(0, 10**6))
def test_one_client_s_vector_gives_its_sensitivities_back_as_the_prior(layout, seed):
    given_statistics = statistics(layout, seed)
    rising = np.sort(given_statistics.sensitivity.reshape(layout.layers, layout.levels), axis=1).ravel()
    given_statistics = replace(given_statistics, sensitivity=rising)
    prior = fleet_prior(to_vector(given_statistics, layout), layout)
    np.testing.assert_allclose(prior.sensitivity, given_statistics.sensitivity, rtol=1e-9)
    np.testing.assert_array_equal(prior.precision, given_statistics.precision)


def test_a_higher_level_is_never_known_to_cost_less_than_a_lower_one():
    layout = StatisticsLayout(layers=3, levels=2, groups=4)
    sensitivity = np.array([0.5, 0.0, 0.1, 0.3, 0.2, 0.0])
    precision = np.array([0.5, 0.5, 0.5, 0.5, 0.5, 0.0])
    vector = np.zeros(layout.size)
    vector[layout.field("precision")] = precision
    vector[layout.field("weighted_sensitivity")] = precision * to_wire(sensitivity)
    found = fleet_prior(vector, layout)
    np.testing.assert_allclose(found.sensitivity, [0.5, 0.5, 0.1, 0.3, 0.2, 0.0], rtol=1e-9)
    assert found.precision[5] == 0.0


def test_atoms_that_nobody_measured_are_unknown():
    nothing = replace(statistics(), precision=np.zeros(LAYOUT.atoms))
    prior = fleet_prior(to_vector(nothing, LAYOUT), LAYOUT)
    assert not prior.precision.any()
    assert not prior.sensitivity.any()


def test_what_exceeds_its_range_is_clipped_and_no_fit_is_a_fit_of_zero():
    wild = replace(
        statistics(),
        sensitivity=np.full(LAYOUT.atoms, 1e9),
        precision=np.full(LAYOUT.atoms, 7.0),
        entropy_increase=1e9,
        latency_ratio=1.4,
        fit_r2=-3.0,
    )
    vector = to_vector(wild, LAYOUT)
    assert vector[LAYOUT.field("weighted_sensitivity")].tolist() == [1.0] * LAYOUT.atoms
    assert vector[LAYOUT.field("scalars")].tolist() == [0.9, 1.0, 0.5, 1.0, 0.0]
    assert to_vector(replace(wild, fit_r2=None), LAYOUT).tolist() == vector.tolist()


@pytest.mark.parametrize("field", ["sensitivity", "precision", "level", "personalized", "group_kept"])
def test_fields_of_the_wrong_shape_are_refused(field):
    value = getattr(statistics(), field)
    with pytest.raises((StatisticsError, ValueError), match="shape"):
        to_vector(replace(statistics(), **{field: np.append(value, value[:1])}), LAYOUT)


@pytest.mark.parametrize("field", ["agreement", "entropy_increase", "size_ratio", "latency_ratio", "fit_r2"])
def test_a_measurement_that_is_no_number_never_leaves(field):
    with pytest.raises(StatisticsError, match="NaN"):
        to_vector(replace(statistics(), **{field: math.nan}), LAYOUT)


def test_errors_name_no_values():
    with pytest.raises(StatisticsError) as error:
        check(np.full(LAYOUT.size, 1.2345), LAYOUT)
    assert "1.23" not in str(error.value)


def test_the_bundled_model_s_vector_is_below_a_kilobyte():
    layout = bundled_layout()
    assert layout == StatisticsLayout(layers=12, levels=2, groups=6 * (4 + 16))
    assert len(encode(np.zeros(layout.size))) <= 1000
