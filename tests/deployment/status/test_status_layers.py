import numpy as np
import pytest
from conftest import make_tiny_vit
from status_state import run_journal

from deployment.status.layers import MLP_GROUPS, layer_records
from personalization.sensing.probes import personalized_layers
from personalization.settings import PersonalizationSettings
from personalization.transformer import groups
from personalization.wire.statistics import StatisticsLayout
from server.backbone import GenericBackbone
from server.planning import FleetKnowledge

FEWEST = 3
LEVELS = len(PersonalizationSettings().levels)


def make_knowledge(seed=0, *, blocks=4, heads=3, precision=(3.0, 8.0)):
    rng = np.random.default_rng(seed)
    layout = StatisticsLayout(layers=2 * blocks, levels=LEVELS, groups=blocks * (heads + MLP_GROUPS))
    known = rng.uniform(*precision, layout.atoms)
    dropped = rng.random(layout.groups) < 0.4
    kept = np.ones(layout.groups)
    return FleetKnowledge(known, known * rng.uniform(0.1, 0.9, layout.atoms), kept, kept, dropped), layout


def test_groups_are_counted_as_the_backbone_makes_them():
    assert MLP_GROUPS == groups.MLP_GROUPS
    backbone = GenericBackbone(make_tiny_vit(), {"identifier": "tiny", "labels": ["a", "b", "c"]}, LEVELS)
    journal = run_journal()
    records = layer_records(journal["knowledge"], FEWEST)
    assert [record["groups"] for record in records] == [len(layer) for layer in backbone.groups]
    assert [(record["block"], record["kind"]) for record in records] == [
        (layer.block + 1, layer.kind.value) for layer in backbone.layers
    ]
    layer_of = np.repeat(np.arange(len(backbone.groups)), [len(layer) for layer in backbone.groups])
    dropped = np.bincount(layer_of[journal["knowledge"]["dropped"]], minlength=len(records))
    assert dropped.any()
    assert [record["dropped_groups"] for record in records] == dropped.tolist()


@pytest.mark.parametrize("seed", range(5))
def test_personal_is_what_a_device_would_call_personal(seed):
    known, layout = make_knowledge(seed)
    records = layer_records(known.to_json(), FEWEST)
    sensitivity = known.prior(layout).sensitivity
    expected = personalized_layers(sensitivity, LEVELS, PersonalizationSettings().personalized_share)
    assert [record["personal"] for record in records] == expected.tolist()
    shares = np.array([record["sensitivity_share"] for record in records])
    np.testing.assert_allclose(shares, sensitivity.reshape(-1, LEVELS).sum(1) / sensitivity.sum())
    assert [record["dropped_share"] for record in records] == [r["dropped_groups"] / r["groups"] for r in records]


def test_a_layer_that_too_few_replies_have_measured_is_withheld():
    known, _ = make_knowledge()
    known.precision[: 2 * LEVELS] *= 2.9 / known.precision[: 2 * LEVELS].max()
    first, second, *others = layer_records(known.to_json(), FEWEST)
    for record in (first, second):
        assert (record["sensitivity_share"], record["personal"]) == (None, None)
    assert sum(record["sensitivity_share"] for record in others) == pytest.approx(1.0)


def test_nothing_is_personal_before_anybody_has_measured():
    _, layout = make_knowledge()
    records = layer_records(FleetKnowledge.empty(layout).to_json(), FEWEST)
    assert {record["sensitivity_share"] for record in records} == {None}
    assert {record["dropped_groups"] for record in records} == {0}


@pytest.mark.parametrize(
    "change",
    [
        {"precision": [1.0] * 5},
        {"precision": []},
        {"precision": None},
        {"precision": [-1.0] * 4 * LEVELS},
        {"weighted": [1.0]},
        {"kept": [1.0] * 7},
        {"kept": []},
        {"kept": [[1.0] * 40] * 40},
        {"dropped": [10**6]},
        {"dropped": "none"},
        {"dropped": [0.5]},
        {"dropped": {}},
    ],
)
def test_what_is_no_knowledge_is_refused(change):
    known, _ = make_knowledge()
    with pytest.raises(ValueError):  # noqa: PT011 - the text is never shown
        layer_records({**known.to_json(), **change}, FEWEST)


def test_a_missing_part_is_refused():
    record = make_knowledge()[0].to_json()
    for key in record:
        with pytest.raises(ValueError, match="knowledge"):
            layer_records({k: v for k, v in record.items() if k != key}, FEWEST)
