"""What each simulated client holds: its share of the fleet's data, loaded when it is asked for."""

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from client.data import Config, InputFacts
from personalization.data.images import ImagePreprocessing, to_pixel_values
from personalization.data.tasks import PrivateSamples
from personalization.data.texts import TextPreprocessing
from personalization.errors import UserError
from simulations.canaries.images import with_canaries
from simulations.canaries.texts import with_canary_texts
from simulations.data import ImageDataset, load_dataset
from simulations.partition import ClientSplit, Partition, PartitionSettings, make_partition
from simulations.speakers import SpeakerData, make_speaker_data

# Key of a simulated client's node configuration: the round that is being run.
ROUND = "round"
# What a run configuration says of who holds what.
_DATA_KEYS = (
    *("data", "partition", "classes-per-client", "samples", "alpha", "reuse", "seed", "canaries"),
    *("windows", "window-tokens"),
)
_DRIFT_SEED = 1_000_003  # far from the seeds that people choose


@dataclass(frozen=True)
class Drifted:
    """The `clients` whose data are those of another partition from round `at_round` on."""

    partition: Partition
    clients: frozenset[int]
    at_round: int


class FleetData:
    """A data set and who holds what of it."""

    def __init__(
        self,
        dataset: ImageDataset,
        partition: Partition,
        preprocessing: ImagePreprocessing,
        drifted: Drifted | None = None,
    ) -> None:
        """Take the data, the partition and how images become inputs of the model; `drifted`: who changes midway."""
        self.dataset, self.partition, self._preprocessing = dataset, partition, preprocessing
        self._drifted = drifted

    def __call__(self, node_config: Config, run_config: Config, facts: InputFacts) -> PrivateSamples:
        """Return the samples that the client `partition-id` of `node_config` holds in its `round` (left out: last)."""
        round_number = node_config.get(ROUND)
        split = self.split(int(node_config["partition-id"]), None if round_number is None else int(round_number))
        pixels = to_pixel_values(self.dataset.train_images[split.train], self._preprocessing)
        return PrivateSamples({"pixel_values": pixels}, torch.from_numpy(self.dataset.train_labels[split.train]))

    def split(self, client: int, round_number: int | None = None) -> ClientSplit:
        """Return the share of a client, counted from 0, in a round; None is what it holds in the end."""
        drifted = self._drifted
        late = drifted is not None and (round_number is None or round_number >= drifted.at_round)
        own = drifted.partition if drifted is not None and late and client in drifted.clients else self.partition
        return own.client_indices(client)

    @property
    def clients(self) -> int:
        """Size of the fleet."""
        return self.partition.clients

    def one_sample(self) -> dict[str, Tensor]:
        """Return the inputs of one sample, to time models on."""
        return {"pixel_values": self.test_pixels()[:1]}

    def test_pixels(self) -> Tensor:
        """Return all test images as pixel values [samples, channels, height, width]."""
        return to_pixel_values(self.dataset.test_images, self._preprocessing)


def make_fleet_data(
    config: Config, clients: int, facts: InputFacts, *, drifting: frozenset[int] = frozenset(), at_round: int = 0
) -> FleetData:
    """Return the data of a fleet of `clients` from a run configuration. Raises UserError.

    drifting: clients that from round `at_round` on hold what they would hold under another seed.
    """
    if not isinstance(facts.preprocessing, ImagePreprocessing):
        raise UserError("this model does not take images; expected a fleet of images, or simulate with --task text")
    defaults = PartitionSettings()
    settings = PartitionSettings(
        kind=str(config.get("partition") or defaults.kind),  # type: ignore[arg-type]  # checked where it is made
        clients=clients,
        classes_per_client=int(config.get("classes-per-client", defaults.classes_per_client)),
        samples=int(config.get("samples", defaults.samples)),
        alpha=float(config.get("alpha", defaults.alpha)),
        reuse=bool(config.get("reuse", defaults.reuse)),
        seed=int(config.get("seed", defaults.seed)),
    )
    path = Path(str(config["data"])) if config.get("data") else None
    dataset = load_dataset(
        path,
        labels=facts.labels,
        preprocessing=facts.preprocessing,
        natural=settings.kind == "natural",
        seed=settings.seed,
    )
    drifted = None
    if drifting:
        later = make_partition(dataset, replace(settings, seed=settings.seed + _DRIFT_SEED))
        drifted = Drifted(later, drifting, at_round)
    partition = make_partition(dataset, settings)
    dataset = with_canaries(dataset, partition, canaries=int(config.get("canaries", 0)), seed=settings.seed)
    return FleetData(dataset, partition, facts.preprocessing, drifted)


def make_speakers(config: Config, clients: int, facts: InputFacts) -> SpeakerData:
    """Return the data of a fleet of at most `clients` speakers, canaries included. Raises UserError."""
    assert isinstance(facts.preprocessing, TextPreprocessing)
    # Text is shared out by who wrote it; what is not said is `classes`, as for images.
    own = {**config, "partition": "natural"} if config.get("partition") == PartitionSettings.kind else config
    speakers = make_speaker_data(own, clients, facts)
    canaries, seed = int(config.get("canaries", 0)), int(config.get("seed", 0))
    return with_canary_texts(speakers, facts.preprocessing, canaries=canaries, seed=seed)


def load(node_config: Config, run_config: Config, facts: InputFacts) -> PrivateSamples:
    """Return a simulated node's samples where nobody handed the fleet's data over: under Ray and `flwr run`."""
    chosen = tuple((key, run_config[key]) for key in _DATA_KEYS if key in run_config)
    return _shared(chosen, int(node_config["num-partitions"]), facts)(node_config, run_config, facts)


@functools.lru_cache(maxsize=1)
def _shared(chosen: tuple[tuple[str, Any], ...], clients: int, facts: InputFacts) -> FleetData | SpeakerData:
    if isinstance(facts.preprocessing, TextPreprocessing):
        return make_speakers(dict(chosen), clients, facts)
    return make_fleet_data(dict(chosen), clients, facts)
