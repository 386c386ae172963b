"""Cuts of tiny language models, and the private text that their exports are checked on."""

from pathlib import Path

import numpy as np
from tiny_text import VOCABULARY, sentence, tiny_language_model, tiny_tokenizer
from torch import nn

from personalization.cutting.cut_model import cut_model, folded_writers
from personalization.data.texts import TextPreprocessing
from personalization.model_files.storage import save_personal_model
from personalization.transformer.layers import Layer, LayerKind, find_layers
from personalization.vocabulary.cut import choose_tokens, cut_vocabulary

# Units that each of the four layers keeps. Nothing cut; layers of several sizes; attention and MLP layers gone.
CUTS = {"dense": None, "uneven": (2, 30, 1, 10), "gone": (0, 30, 3, 0), "nothing left": (0, 0, 0, 0)}


def preprocessing() -> TextPreprocessing:
    return TextPreprocessing(tiny_tokenizer().to_str(), 0, 64)


def cut_tiny(family: str, units: tuple[int, ...] | None, *, tied: bool = True, folded: bool = False) -> nn.Module:
    """A cut model; folded: with a bias where removed units had a mean."""
    model = tiny_language_model(family, tied=tied)
    return model if units is None else cut_to(model, units, folded=folded)[0]


def cut_to(
    model: nn.Module, units: tuple[int, ...], *, folded: bool = False
) -> tuple[nn.Module, tuple[Layer, ...], list[np.ndarray]]:
    layers = find_layers(model)
    rng = np.random.default_rng(3)
    kept = [np.sort(rng.permutation(layer.units)[:count]) for layer, count in zip(layers, units, strict=True)]
    means = [0.1 * _ramp(layer) for layer in layers]
    writers = folded_writers(model, layers, kept, means) if folded else None
    return cut_model(model, layers, kept, writers), layers, kept


def _ramp(layer: Layer):
    import torch

    width = layer.units * layer.columns_per_unit
    return torch.linspace(-1.0, 1.0 if layer.kind is LayerKind.MLP else 0.5, width)


def save_tiny_speaker(
    folder: Path,
    *,
    family: str = "llama",
    units: tuple[int, ...] = (2, 30, 1, 10),
    vocabulary: int | None = None,
) -> Path:
    """A personal model in a folder; vocabulary: how many tokens are left, those of a sentence first."""
    model, layers, kept = cut_to(tiny_language_model(family), units, folded=True)
    text = preprocessing()
    if vocabulary is not None:
        private = text.encode(sentence(np.random.default_rng(5), 30))
        cut = choose_tokens(text, private, np.zeros(VOCABULARY), most=vocabulary)
        model, text = cut_vocabulary(model, cut), cut.preprocessing
    save_personal_model(folder, model, layers=layers, kept=kept, preprocessing=text.to_dict())
    return folder


def write_text(folder: Path, *, words: int = 400) -> Path:
    folder.mkdir(parents=True)
    for number in range(2):
        (folder / f"{number}.txt").write_text(sentence(np.random.default_rng((7, number)), words))
    return folder
