import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from personalization.wire.statistics import StatisticsLayout
from strategies.precision_weighted_mean import PrecisionWeightedMean
from strategies.secure_aggregation.errors import MessageError
from strategies.secure_aggregation.fixed_point import FixedPoint

UNIT = st.floats(0.0, 1.0)


@given(st.integers(1, 32), st.integers(1, 10_000))
def test_the_largest_sum_fits_and_half_the_modulus_would_not(fraction_bits: int, cohort: int) -> None:
    fixed = FixedPoint(fraction_bits, cohort)
    assert 2 ** (fixed.bits - 1) <= fixed.one * cohort < 2**fixed.bits <= 2 ** (8 * fixed.dtype.itemsize)


@given(st.integers(1, 32), st.integers(1, 500), st.integers(1, 40), st.integers(0, 2**32))
def test_words_survive_packing(fraction_bits: int, cohort: int, entries: int, seed: int) -> None:
    fixed = FixedPoint(fraction_bits, cohort)
    words = np.random.default_rng(seed).integers(0, 2**fixed.bits, entries, dtype=np.uint64).astype(fixed.dtype)
    raw = fixed.pack(words)
    assert len(raw) == fixed.packed_bytes(entries) == -(-entries * fixed.bits // 8)
    np.testing.assert_array_equal(fixed.unpack(raw, entries), words)


@given(arrays(np.float64, st.tuples(st.integers(1, 9), st.just(6)), elements=UNIT), st.integers(8, 30))
def test_a_sum_of_words_is_the_sum_to_half_a_step_each(rows: np.ndarray, fraction_bits: int) -> None:
    fixed = FixedPoint(fraction_bits, len(rows))
    total = np.sum([fixed.to_words(row) for row in rows], axis=0, dtype=fixed.dtype)
    assert np.abs(fixed.to_sum(total) - rows.sum(axis=0)).max() <= len(rows) * (0.5 / fixed.one + 1e-12)


def test_everybody_at_one_sums_to_the_number_of_clients() -> None:
    for cohort in (1, 2, 3, 100, 127, 128, 129, 65_537):
        fixed = FixedPoint(16, cohort)
        total = fixed.to_words(np.ones(1)) * fixed.dtype.type(cohort)
        assert fixed.to_sum(fixed.unpack(fixed.pack(total), 1)).tolist() == [cohort]


@given(st.integers(1, 12), st.integers(0, 2**32))
def test_the_mean_of_a_sum_is_the_precision_weighted_mean(clients: int, seed: int) -> None:
    layout, rng = StatisticsLayout(layers=3, levels=2, groups=4), np.random.default_rng(seed)
    rows = rng.random((clients, layout.size))
    precision = rows[:, layout.field("precision")]
    rows[:, layout.field("weighted_sensitivity")] *= precision
    fixed = FixedPoint(16, clients)
    total = np.sum([fixed.to_words(row) for row in rows], axis=0, dtype=fixed.dtype)
    expected = PrecisionWeightedMean()(list(rows), layout)
    np.testing.assert_allclose(fixed.to_sum(total) / clients, expected, atol=1.0 / fixed.one)


@pytest.mark.parametrize("bad", [[-0.1], [1.1], [np.nan], [np.inf]])
def test_entries_out_of_range_are_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match=r"finite and in \[0, 1\]"):
        FixedPoint(16, 3).to_words(np.array(bad))


def test_bits_beyond_the_last_entry_are_refused() -> None:
    fixed = FixedPoint(2, 1)
    assert fixed.pack(np.array([3], dtype=fixed.dtype)) == b"\x03"
    with pytest.raises(MessageError, match="more than its entries"):
        fixed.unpack(b"\x07", 1)
