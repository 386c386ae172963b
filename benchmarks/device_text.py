"""What an exported personal language model saves on a device: `python -m benchmarks.device_text`.

SmolLM2, dense in 32-bit numbers and in int8, against personal models of one speaker: the same share of every
layer is cut (a budget each) and compensated in closed form, with a vocabulary of the speaker's own, in int8. What a cut
costs in perplexity is measured by `benchmarks.text`; here each export is compared with its own model in torch, on the
speaker's last speech. Needs `make llm`; without it nothing is measured.

One thread. All models run in turns in one process, so that what else the machine does slows all of them alike: read
ratios. Nothing is kept but the figures, in `device_text.json` and `device_text.md`.
"""

import argparse
import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from personalization.allocation.allocate import allocate, weight_costs
from personalization.allocation.profiles import profile_curves, profile_levels
from personalization.cutting.cut_model import cut_model
from personalization.cutting.masked import MaskedModel
from personalization.data.tasks import text_samples
from personalization.data.texts import (
    WINDOW_TOKENS,
    WINDOWS,
    TextPreprocessing,
    read_tokens,
    spread,
    text_files,
    windows,
)
from personalization.device.footprint import PROMPT, STEPS
from personalization.device.manifest import Precision
from personalization.device.runtime import open_session
from personalization.device.text_measurement import TextSpeed, time_texts
from personalization.errors import UserError
from personalization.export.text_export import compare_text, language_graph
from personalization.model_files.backbone import Backbone, load_backbone
from personalization.model_files.known_models import smollm2_folder
from personalization.sensing.private_trace import compensation, device_trace
from personalization.settings import PersonalizationSettings
from personalization.transformer.layers import find_layers
from personalization.transformer.trace import Inputs
from personalization.vocabulary.cut import cut_vocabulary, expected_tokens
from personalization.vocabulary.fewer_tokens import FewerTokens
from personalization.vocabulary.own import own_vocabulary
from simulations.sotu import default_folder

SIZE_TARGET, SPEED_TARGET = 6.0, 2.5
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8-dynamic")

Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A model to export. private, later: windows [windows, positions] in its own tokens; compared on later ones."""

    name: str
    model: nn.Module
    precision: Precision
    tokenizer: bytes
    private: Tensor
    later: Tensor


def candidates(
    backbone: Backbone, files: Sequence[Path], budgets: Sequence[float], vocabulary: int
) -> Iterator[Candidate]:
    """Yield dense and personal models; files: the speaker's, of which the last is the later text."""
    whole = backbone.preprocessing
    assert isinstance(whole, TextPreprocessing)
    private = windows(read_tokens(files[:-1], whole), WINDOW_TOKENS)
    samples = text_samples(private, most=WINDOWS)
    dense = partial(
        Candidate,
        name="dense",
        model=backbone.model,
        tokenizer=whole.tokenizer.encode(),
        private=samples.inputs["input_ids"],
        later=_later(files, whole),
    )
    yield from (dense(precision=precision) for precision in PRECISIONS)
    expected = expected_tokens(backbone.model, samples.inputs)
    own = own_vocabulary(backbone.model, samples, FewerTokens(whole, vocabulary), expected)
    smaller = cut_vocabulary(backbone.model, own.cut)
    for budget in budgets:
        yield Candidate(
            name=f"personal, budget {budget:g}",
            model=_cut(smaller, own.samples.inputs, budget),
            precision="int8-dynamic",
            tokenizer=own.cut.preprocessing.tokenizer.encode(),
            private=own.samples.inputs["input_ids"],
            later=_later(files, own.cut.preprocessing),
        )


def _cut(model: nn.Module, inputs: Inputs, budget: float) -> nn.Module:
    """Return the model with the same share of every layer, the units chosen and compensated on the private windows."""
    layers, settings = find_layers(model), PersonalizationSettings()
    costs, limits = weight_costs(layers), np.full(len(layers), settings.layer_limit)
    curves = profile_curves(costs.per_unit * [layer.units for layer in layers], profile_levels("uniform", layers))
    counts = allocate(layers, curves, costs, budget, limits=limits)
    trace = device_trace(model, layers, inputs, settings)
    masked = MaskedModel(trace, compensation(settings, torch.ones(trace.samples, dtype=torch.bool)))
    result = masked.run(dict(enumerate(map(int, counts))))
    writers = {index: (writer.weight.clone(), writer.bias.clone()) for index, writer in result.writers.items()}
    return cut_model(model, layers, [result.kept[layer.index] for layer in layers], writers)


def _later(files: Sequence[Path], preprocessing: TextPreprocessing) -> Tensor:
    found = spread(windows(read_tokens(files[-1:], preprocessing), WINDOW_TOKENS), WINDOWS)
    return torch.from_numpy(found[:, :-1])


def measure(models: Iterator[Candidate], *, runs: int, console: Console) -> list[Record]:
    """Return what each model takes, how close it is to torch, and how fast it is beside the others."""
    records, sessions = list[Record](), []
    for candidate in models:
        graph = language_graph(candidate.model, candidate.private, candidate.precision)
        check = compare_text(candidate.model, graph, candidate.later, candidate.precision)
        sessions.append(open_session(graph))
        records.append(
            {
                "model": candidate.name,
                "precision": candidate.precision,
                "vocabulary": sessions[-1].get_outputs()[0].shape[1],
                "bytes": len(graph),
                "tokenizer_bytes": len(candidate.tokenizer),
                "divergence": check.divergence,
                "perplexity_ratio": check.perplexity_ratio,
                "agreement": check.agreement,
                "tokens_compared": check.tokens,
            }
        )
        console.print(f"{candidate.name}, {candidate.precision}: exported")
    speeds = time_texts(sessions, prompt=PROMPT, steps=STEPS, runs=runs)
    dense = speeds[0]
    size = records[0]["bytes"] + records[0]["tokenizer_bytes"]
    for record, speed in zip(records, speeds, strict=True):
        record |= _tokens_a_second(speed) | {
            "times_smaller": size / (record["bytes"] + record["tokenizer_bytes"]),
            "prompt_times_faster": _ratio(dense.prompt, speed.prompt),
            "steps_times_faster": _ratio(dense.steps, speed.steps),
        }
    return records


def _tokens_a_second(speed: TextSpeed) -> Record:
    return {
        "prompt_tokens_per_second": PROMPT / statistics.median(speed.prompt),
        "tokens_per_second": STEPS / statistics.median(speed.steps),
    }


def _ratio(dense: list[float], own: list[float]) -> float:
    """Return the median, over turns, of the dense model's time over that of another in the same turn."""
    return statistics.median(a / b for a, b in zip(dense, own, strict=True))


def table(records: Sequence[Record]) -> str:
    """Return the figures as Markdown, and whether each target is met."""
    lines = [
        f"SmolLM2-135M in onnxruntime, one thread: a prompt of {PROMPT} tokens, then {STEPS} tokens one by one.",
        "",
        "| model | tokens known | MB | times smaller | prompt tokens/s (times faster) | tokens/s (times faster) | "
        "nats from torch | perplexity / torch's |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for record in records:
        size = (record["bytes"] + record["tokenizer_bytes"]) / 1e6
        lines.append(
            f"| {record['model']}, {record['precision']} | {record['vocabulary']:,} | {size:.1f} | "
            f"{record['times_smaller']:.2f} | "
            f"{record['prompt_tokens_per_second']:.0f} ({record['prompt_times_faster']:.2f}) | "
            f"{record['tokens_per_second']:.1f} ({record['steps_times_faster']:.2f}) | "
            f"{record['divergence']:.4f} | {record['perplexity_ratio']:.4f} |"
        )
    checks = [f"- {name}: {'reached' if met else 'NOT reached'}" for name, met in targets(records).items()]
    return "\n".join([*lines, "", *checks, ""])


def targets(records: Sequence[Record]) -> dict[str, bool]:
    """Return for each personal model and target whether it is met."""
    wanted = {
        f"a sixth of the bytes ({SIZE_TARGET:g} times smaller)": ("times_smaller", SIZE_TARGET),
        f"prompt {SPEED_TARGET:g} times faster": ("prompt_times_faster", SPEED_TARGET),
        f"one by one {SPEED_TARGET:g} times faster": ("steps_times_faster", SPEED_TARGET),
    }
    personal = [record for record in records if record["model"] != "dense"]
    return {
        f"{record['model']}: {name}": record[key] >= least
        for record in personal
        for name, (key, least) in wanted.items()
    }


def main() -> int:
    """Measure, print the table and write it; return the exit code: 1 if no personal model meets every target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speaker", default="grover_cleveland", help="folder of speeches (default: grover_cleveland)")
    parser.add_argument(
        "--budgets", type=float, nargs="+", default=[0.8, 0.7, 0.5], help="shares of the blocks' weights"
    )
    parser.add_argument("--vocabulary", type=int, default=8000, help="most tokens of a personal model (default: 8000)")
    parser.add_argument("--runs", type=int, default=5, help="timed turns (default: 5)")
    parser.add_argument("--out", type=Path, default=Path("runs/device-text"), help="folder for the figures")
    arguments = parser.parse_args()
    console = Console()
    try:
        folder, files = smollm2_folder(), text_files(default_folder() / arguments.speaker)
    except UserError as error:
        console.print(f"not measured: {error}", markup=False, highlight=False, soft_wrap=True)
        return 0
    torch.set_num_threads(1)
    models = candidates(load_backbone(str(folder)), files, arguments.budgets, arguments.vocabulary)
    records = measure(models, runs=arguments.runs, console=console)
    text = table(records)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "device_text.md").write_text(text)
    (arguments.out / "device_text.json").write_text(json.dumps(records, indent=2) + "\n")
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    met = targets(records)
    names = {record["model"] for record in records if record["model"] != "dense"}
    return 0 if any(all(ok for name, ok in met.items() if name.startswith(own)) for own in names) else 1


if __name__ == "__main__":
    raise SystemExit(main())
