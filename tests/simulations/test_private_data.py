"""What a simulated node that was handed no data makes of the run's configuration, as under `flwr run`."""

import tomllib
from pathlib import Path

from torch import equal

from client.data import InputFacts
from personalization.model_files.backbone import load_backbone
from simulations.private_data import load, make_speakers
from tests.tiny_text import write_language_model, write_speakers

DEFAULTS = tomllib.loads(Path(__file__).parents[2].joinpath("pyproject.toml").read_text())["tool"]["flwr"]["app"][
    "config"
]


def test_a_node_of_text_takes_its_speaker_though_images_shared_out_by_classes_are_the_default(tmp_path):
    backbone = load_backbone(write_language_model(tmp_path / "model"))
    facts = InputFacts(backbone.preprocessing, backbone.labels)
    run = {**DEFAULTS, "data": str(write_speakers(tmp_path / "speakers")), "windows": 10, "window-tokens": 16}
    assert run["partition"] == "classes"
    speakers = make_speakers({**run, "partition": "natural"}, 3, facts)
    for number in range(3):
        node = {"partition-id": number, "num-partitions": 3}
        own = load(node, run, facts).inputs["input_ids"]
        assert own.shape == (10, 16)
        assert equal(own, speakers(node, run, facts).inputs["input_ids"])
