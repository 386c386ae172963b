"""Where a device's private samples come from: a folder on the device, or what whoever built the app puts in."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from client.state import ClientState
from client.windows import private_windows
from personalization.data.tasks import Preprocessing, PrivateSamples, TextBatch, check_kind, load_samples, text_samples
from personalization.data.texts import TextPreprocessing
from personalization.wire.codes import ClientError, ClientFailure

ConfigValue = bool | int | float | str
Config = Mapping[str, ConfigValue]

# The run configuration comes from whoever submits a run. It may choose among these loaders and never name another.
_NAMED_LOADERS = frozenset({"simulations.private_data:load"})


@dataclass(frozen=True)
class InputFacts:
    """What the backbone's description says about its inputs: their preprocessing or None, and names of classes."""

    preprocessing: Preprocessing | None
    labels: tuple[str, ...]


class PrivateData(Protocol):
    """Loads one device's samples from its node configuration and the run's. Raises UserError or ClientError."""

    def __call__(self, node_config: Config, run_config: Config, facts: InputFacts) -> PrivateSamples:
        """Return the samples."""


def load_private_data(
    node_config: Config, run_config: Config, facts: InputFacts, *, state: ClientState | None = None
) -> PrivateSamples:
    """Return the samples in the device's `data-dir`; without one, those of the loader named by `private-data`.

    `data-dir` is a folder of images (or of class folders), an .npz file, or for a language model a folder of text, of
    which `windows` of `window-tokens` each are taken: as many as the device's own configuration says, or else the
    run's. state: whose vault keeps the windows. Raises ClientError if neither is set.
    """
    folder = node_config.get("data-dir")
    if folder:
        return _from_folder(Path(str(folder)), facts, text_batch(run_config, node_config), state)
    name = run_config.get("private-data")
    if name not in _NAMED_LOADERS:
        raise ClientError(
            ClientFailure.DATA_UNUSABLE, "no data: set data-dir in the node configuration to a folder of images or text"
        )
    module, _, function = str(name).partition(":")
    loader: PrivateData = getattr(importlib.import_module(module), function)
    return loader(node_config, run_config, facts)


def text_batch(run_config: Config, node_config: Config | None = None) -> TextBatch:
    """Return how much text makes a private batch, by the device's own configuration or the run's. Raises UserError."""
    defaults, own = TextBatch(), {**run_config, **(node_config or {})}
    return TextBatch(
        windows=int(own.get("windows", defaults.windows)), tokens=int(own.get("window-tokens", defaults.tokens))
    )


def _from_folder(folder: Path, facts: InputFacts, batch: TextBatch, state: ClientState | None) -> PrivateSamples:
    if facts.preprocessing is None:
        raise ClientError(ClientFailure.DATA_UNUSABLE, "the model takes neither images nor text; data-dir is of no use")
    if isinstance(facts.preprocessing, TextPreprocessing) and state is not None:
        check_kind(folder, "text")
        return text_samples(private_windows(folder, facts.preprocessing, batch.tokens, state), most=batch.windows)
    return load_samples(folder, facts.preprocessing, labels=facts.labels, batch=batch)
