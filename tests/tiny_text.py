"""A tiny random language model with a tokenizer of its own, and speakers for it."""

from functools import cache
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from torch.nn import functional
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from personalization.data.tasks import PrivateSamples
from personalization.data.texts import TextPreprocessing, windows
from personalization.vocabulary.cut import cut_vocabulary, expected_tokens
from personalization.vocabulary.fewer_tokens import FewerTokens
from personalization.vocabulary.own import OwnVocabulary, own_vocabulary

WORDS = ("river", "union", "people", "peace", "treasury", "harvest", "nation", "railroad", "treaty", "senate", "gold")
VOCABULARY = 320
FAMILIES = ("llama", "qwen2", "gpt2")


def sentence(rng: np.random.Generator, words: int) -> str:
    return " ".join(rng.choice(WORDS, words)) + ". "


@cache
def tiny_tokenizer() -> Tokenizer:
    rng = np.random.default_rng(0)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([sentence(rng, 40) for _ in range(50)], trainer)
    return tokenizer


def tiny_language_model(family: str, *, tied: bool = True) -> PreTrainedModel:
    """2 blocks, 3 key-value groups of 3 query heads where the family has them, weights exact in half precision."""
    torch.manual_seed(0)
    grouped = {
        "vocab_size": VOCABULARY,
        "hidden_size": 36,
        "num_hidden_layers": 2,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "intermediate_size": 48,
        "max_position_embeddings": 64,
        "bos_token_id": None,
        "eos_token_id": 0,
        "tie_word_embeddings": tied,
    }
    if family == "llama":
        model: PreTrainedModel = LlamaForCausalLM(LlamaConfig(**grouped))
    elif family == "qwen2":
        model = Qwen2ForCausalLM(Qwen2Config(**grouped))
    else:
        config = GPT2Config(
            vocab_size=VOCABULARY, n_embd=36, n_layer=2, n_head=3, n_positions=64, bos_token_id=None, eos_token_id=0
        )
        model = GPT2LMHeadModel(config)
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return model.half().float().eval()


@cache
def trained_language_model() -> PreTrainedModel:
    """A model that knows by heart in which order `ordered_words` come."""
    model = tiny_language_model("llama")
    tokens = torch.from_numpy(windows(tiny_preprocessing().encode(ordered_words(60)), 32))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        logits = model(input_ids=tokens[:, :-1]).logits
        loss = functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def ordered_words(times: int) -> str:
    return " ".join(WORDS * times)


def tiny_preprocessing() -> TextPreprocessing:
    return TextPreprocessing(tiny_tokenizer().to_str(), None, 64)


def cut_tokens(model: PreTrainedModel, samples: PrivateSamples, most: int) -> tuple[nn.Module, OwnVocabulary]:
    """What becomes of a model and its text with at most so many tokens."""
    fewer = FewerTokens(tiny_preprocessing(), most)
    own = own_vocabulary(model, samples, fewer, expected_tokens(model, samples.inputs))
    return cut_vocabulary(model, own.cut), own


def write_language_model(folder: Path, family: str = "llama") -> Path:
    tiny_language_model(family).save_pretrained(folder)
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def write_speakers(folder: Path, *, speakers: int = 3, words: int = 300) -> Path:
    """One folder for each speaker, with speeches of four years."""
    for number in range(speakers):
        own = folder / f"speaker-{number}"
        own.mkdir(parents=True)
        for year in range(4):
            text = sentence(np.random.default_rng((number, year)), words)
            (own / f"{1900 + year}.txt").write_text(text)
    return folder
