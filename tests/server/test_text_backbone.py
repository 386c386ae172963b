"""A language model as a fleet hands it out: its tokenizer under the root hash, tied embeddings once, small vectors."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_text import VOCABULARY, tiny_language_model, write_language_model
from transformers import LlamaConfig, LlamaForCausalLM

from client.backbone import BackboneShelf
from client.entries import BACKBONE
from client.state import ClientState
from personalization.data.texts import TextPreprocessing
from personalization.errors import UserError
from personalization.model_files.backbone import load_backbone
from personalization.wire.codes import ClientError, ClientFailure
from personalization.wire.plan import Plan
from server.backbone import GenericBackbone, load_generic_backbone
from strategies.protocol import MANIFEST, read_pieces
from strategies.secure_aggregation.fixed_point import FixedPoint
from strategies.secure_aggregation.settings import SMALLEST_COHORT, SecureAggregationSettings


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_language_model(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture
def generic(model):
    return load_generic_backbone(str(model), levels=2)


def request(generic):
    none = np.zeros(generic.layout.groups, dtype=bool)
    return generic.request(Plan(version=1, prior=None, dropped=none, probes=2, budget=0.5), None), none


def test_a_device_reads_text_as_the_server_does_and_needs_nothing_else(generic, model, tmp_path):
    content, none = request(generic)
    local = BackboneShelf().get(content, ClientState(tmp_path), generic.root, none)
    own = load_backbone(str(model))
    assert isinstance(local.facts.preprocessing, TextPreprocessing)
    assert local.facts.preprocessing == own.preprocessing
    assert local.facts.preprocessing.tokenizer == (model / "tokenizer.json").read_text()
    ids = torch.randint(0, VOCABULARY, (2, 9), generator=torch.Generator().manual_seed(0))
    assert torch.equal(local.model(input_ids=ids).logits, own.model(input_ids=ids).logits)


def test_embeddings_tied_to_the_head_are_one_tensor_on_the_wire_on_the_disk_and_in_memory(generic, tmp_path):
    content, none = request(generic)
    width = tiny_language_model("llama").config.hidden_size
    assert sum(piece.numel() == VOCABULARY * width for piece in read_pieces(content).values()) == 1
    local = BackboneShelf().get(content, ClientState(tmp_path), generic.root, none)
    assert local.model.get_input_embeddings().weight is local.model.get_output_embeddings().weight
    weights = sum(piece.numel() for piece in generic.pieces.values())
    assert weights == sum(parameter.numel() for parameter in generic.model.parameters())
    assert (tmp_path / BACKBONE).stat().st_size < 2 * weights + len(json.dumps(generic.manifest.description)) + 100_000


def test_another_tokenizer_is_another_backbone_and_a_device_takes_no_other(generic, tmp_path):
    content, none = request(generic)
    changed = json.loads(generic.manifest.description)
    changed["preprocessing"]["tokenizer"] = changed["preprocessing"]["tokenizer"].replace("river", "rivet")
    other = replace(generic.manifest, description=json.dumps(changed))
    assert other.root != generic.root
    for key, value in other.to_record().items():
        content[MANIFEST][key] = value
    with pytest.raises(ClientError) as raised:
        BackboneShelf().get(content, ClientState(tmp_path), generic.root, none)
    assert raised.value.code is ClientFailure.BACKBONE_MISSING


def test_a_language_model_without_its_tokenizer_is_not_served(tmp_path):
    folder = write_language_model(tmp_path / "model")
    record = json.loads((folder / "tokenizer.json").read_text())
    record["model"]["vocab"]["far away"] = 400
    (folder / "tokenizer.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="makes 401 tokens, but the model has 320"):
        load_generic_backbone(str(folder), levels=2)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"a causal language model with its tokenizer\.json"):
        load_generic_backbone(str(folder), levels=2)


def test_the_statistics_of_thirty_blocks_fit_two_kilobytes():
    """Blocks as in SmolLM2: 3 key-value groups and 16 groups of MLP channels in each; other sizes do not matter."""
    config = LlamaConfig(
        vocab_size=16, hidden_size=18, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3,
        intermediate_size=32, bos_token_id=None, eos_token_id=0,
    )  # fmt: skip
    layout = GenericBackbone(LlamaForCausalLM(config).eval(), {}, levels=2).layout
    assert (layout.layers, layout.groups) == (60, 570)
    assert (layout.size, 2 * layout.size) == (935, 1870)
    masked = FixedPoint(fraction_bits=SecureAggregationSettings().fraction_bits, cohort=SMALLEST_COHORT)
    assert masked.packed_bytes(layout.size) == 2572  # more, where a sum over 50 must not wrap
