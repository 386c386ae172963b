"""What docs/scenarios.md says about attacks is so."""

import re
from pathlib import Path

import numpy as np

from personalization.wire.plan import Plan
from personalization.wire.statistics import StatisticsLayout, check
from simulations.attacks.base import AttackWithStrength
from simulations.attacks.fields import split
from simulations.attacks.registry import ATTACKS, make_attack

TEXT = (Path(__file__).parents[3] / "docs" / "scenarios.md").read_text()


def test_every_attack_stands_there_with_its_default_strength():
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| [^|]+ \| ([^|]+) \|$", TEXT, re.MULTILINE))
    for kind, attack in ATTACKS.items():
        if issubclass(attack, AttackWithStrength):
            assert rows[kind].endswith(f"({make_attack(kind).strength:g})")
        else:
            assert rows[kind] == "none"


def test_the_worked_example_works():
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names = {"__name__": "level"}
    exec(code, names)
    layout = StatisticsLayout(layers=3, levels=2, groups=4)
    plan = Plan(version=1, prior=None, dropped=np.zeros(4, dtype=bool), probes=1, budget=0.5)
    honest = np.full((2, layout.size), 0.5)
    honest[:, layout.field("weighted_sensitivity")] = np.linspace(0.0, 0.5, layout.atoms)
    rng = np.random.default_rng(0)
    for vector in names["Level"]().forge(honest, attackers=2, plan=plan, layout=layout, rng=rng):
        check(vector, layout)
        np.testing.assert_allclose(split(vector[None], layout).sensitivity, 0.5)
