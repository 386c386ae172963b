import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from strategies.weighted_quantile import weighted_median, weighted_quantile

columns = st.lists(
    st.tuples(st.integers(0, 20).map(lambda v: v / 20), st.integers(0, 5)), min_size=1, max_size=12
).filter(lambda pairs: any(weight for _, weight in pairs))


@given(columns, st.sampled_from([0.1, 0.25, 0.5, 0.75, 0.9, 1.0]))
def test_it_is_the_quantile_of_each_value_repeated_by_its_weight(pairs, share):
    values, weights = (np.array(column, dtype=float)[:, None] for column in zip(*pairs, strict=True))
    repeated = np.repeat(values[:, 0], weights[:, 0].astype(int))
    assert weighted_quantile(values, weights, share) == np.quantile(repeated, share, method="inverted_cdf")
    np.testing.assert_allclose(weighted_median(values, weights), [np.median(repeated)], atol=1e-15)


@given(st.integers(0, 10**6), st.floats(0.05, 1.0))
def test_numpys_weighted_quantile_says_the_same_column_by_column(seed, share):
    rng = np.random.default_rng(seed)
    values, weights = rng.random((9, 4)), rng.random((9, 4))
    expected = [
        np.quantile(values[:, k], share, weights=weights[:, k], method="inverted_cdf") for k in range(values.shape[1])
    ]
    assert np.array_equal(weighted_quantile(values, weights, share), expected)
