import re
from pathlib import Path

import numpy as np
import pytest
from cohorts import LAYOUT, make_cohort
from scipy.stats.mstats import winsorize

from strategies import registry
from strategies.registry import PRE_AGGREGATIONS, SERVER_OPTIMIZERS, STRATEGIES, make_strategy

GUIDE = (Path(__file__).parents[2] / "docs" / "strategies.md").read_text()


def test_the_guide_names_every_component_with_every_setting():
    for kinds in (STRATEGIES, PRE_AGGREGATIONS, SERVER_OPTIMIZERS):
        for name, kind in kinds.items():
            row = re.search(rf"^\| `{name}` .*$", GUIDE, flags=re.MULTILINE)
            assert row, name
            assert all(f"`{setting}`" in row.group() for setting in kind.settings()), name


def test_every_spec_of_the_guide_is_valid():
    specs = GUIDE.split("```")[1].split()
    assert len(specs) > 3
    assert [make_strategy(spec).spec for spec in specs]


def test_the_worked_example_works(monkeypatch):
    source = GUIDE.split("```python\n")[1].split("```")[0]
    namespace: dict = {"__name__": "strategies.winsorized_mean"}
    exec(source, namespace)
    monkeypatch.setitem(registry.STRATEGIES, "winsorized-mean", namespace["WinsorizedMean"])
    rows = make_cohort(np.random.default_rng(0), 10)
    strategy = make_strategy("winsorized-mean:attackers=0.2")
    expected = winsorize(rows, limits=(0.2, 0.2), axis=0).mean(axis=0)
    np.testing.assert_allclose(strategy.reduce(rows, np.ones_like(rows)), expected, atol=1e-12)
    for spec in ("winsorized-mean", "nnm+winsorized-mean:attackers=2", "winsorized-mean+adam"):
        assert make_strategy(spec)(list(rows), LAYOUT).shape == (LAYOUT.size,)
    with pytest.raises(Exception, match="needs 5 clients"):
        make_strategy("winsorized-mean:attackers=2").check_cohort(4)
