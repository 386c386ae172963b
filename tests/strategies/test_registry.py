import pytest
from cohorts import SPECS

from personalization.errors import UserError
from strategies.krum import Krum
from strategies.mean import Mean
from strategies.registry import PRE_AGGREGATIONS, SERVER_OPTIMIZERS, STRATEGIES, canonical, make_strategy


@pytest.mark.parametrize("spec", SPECS)
def test_a_canonical_spec_is_its_own(spec):
    assert canonical(canonical(spec)) == canonical(spec) == make_strategy(spec).spec


@pytest.mark.parametrize(
    ("spec", "short"),
    [
        ("mean", "mean"),
        ("krum:attackers=0.2", "krum"),
        ("krum:attackers=2", "krum:attackers=2"),
        ("krum:attackers=2.0", "krum:attackers=2"),
        (" nnm:attackers=0.20 + krum:attackers=.3 ", "nnm+krum:attackers=0.3"),
        ("bucketing:seed=4:size=3+median+adam:rate=0.1", "bucketing:size=3:seed=4+median+adam"),
        ("clustered:groups=2:base=median", "clustered:base=median"),
        ("clustered:base=precision-weighted-mean", "clustered"),
    ],
)
def test_one_form_for_equal_strategies(spec, short):
    assert canonical(spec) == short


def test_names_and_settings_reach_the_strategy():
    assert isinstance(make_strategy("mean"), Mean)
    strategy = make_strategy("krum:attackers=3")
    assert isinstance(strategy, Krum)
    assert strategy.attackers == 3
    assert make_strategy("clustered:groups=4").groups == 4
    assert make_strategy("nnm+clustered:groups=4").groups == 4


def test_every_component_is_registered_under_its_name_and_documents_its_paper():
    for registry in (STRATEGIES, PRE_AGGREGATIONS, SERVER_OPTIMIZERS):
        for name, kind in registry.items():
            assert kind.name == name
            assert kind.__doc__
            assert any(year in kind.__doc__ for year in map(str, range(1930, 2030))), name


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("precision-weighted-meen", "did you mean precision-weighted-mean"),
        ("krumm:attackers=2", "did you mean krum"),
        ("median+adamm", "did you mean adam"),
        ("nmn+median", "did you mean nnm"),
        ("", "unknown"),
        ("krum:atackers=2", "did you mean attackers"),
        ("median:share=1", "it has no settings"),
        ("krum:attackers", "expected key=value"),
        ("krum:attackers=2:attackers=3", "twice"),
        ("krum:attackers=many", "expected a number"),
        ("krum:attackers=nan", "expected a number"),
        ("bucketing:size=1.5+median", "expected a whole number"),
        ("krum:attackers=0.5", "below 0.5"),
        ("krum:attackers=1.5", "whole number of clients"),
        ("krum:attackers=-1", "below 0.5"),
        ("bulyan:attackers=0.25", "below 0.25"),
        ("trimmed-mean:attackers=0.7", "below 0.5"),
        ("nnm:attackers=0.5+mean", "below 0.5"),
        ("bucketing:size=0+median", "size of 1 or more"),
        ("geometric-median:smoothing=0", "smoothing between"),
        ("centered-clipping:radius=0", "radius above 0"),
        ("quantile-consensus:share=0.3", "from 0.5 to 1"),
        ("clustered:groups=1", "expected 2 or more"),
        ("clustered:base=clustered", "makes no groups itself"),
        ("clustered:base=medain", "did you mean median"),
        ("clustered+adam", "one for each group"),
        ("median+momentum:rate=0", "rate above 0"),
        ("median+adam:beta1=1", "betas from 0"),
        ("nnm", "expected one of"),
        ("adam", "expected one of"),
        ("nnm+adam", "expected one of"),
        ("median+nnm", "expected one of"),
        ("adam+median", "expected one of"),
        ("median+krum", "expected one of"),
        ("nnm+bucketing+median", "expected one of"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_do(spec, message):
    with pytest.raises(UserError, match=message) as error:
        make_strategy(spec)
    assert "\n" not in str(error.value)
