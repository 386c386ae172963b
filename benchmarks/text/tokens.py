"""What goes of later text with a vocabulary that is cut, and what that costs while nothing is trained, by how much
private text tells which tokens may come.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.intervals import mean_interval
from benchmarks.text.cells import MORE_WINDOWS, Fleet
from benchmarks.text.clients import weights_of
from personalization.data.tasks import TextBatch
from personalization.data.texts import read_windows
from personalization.prediction.scoring import score_spelled
from personalization.training.loop import spread
from personalization.transformer.layers import linear_weight
from personalization.transformer.readout import token_head
from personalization.vocabulary.cut import cut_vocabulary, expected_tokens, smallest_sizes
from personalization.vocabulary.fewer_tokens import FewerTokens
from personalization.vocabulary.own import own_vocabulary
from simulations.speakers import speaker_folders, split_files

Record = dict[str, Any]
# Of private text, evenly spread, those that the dense model's expectations are of; 0: it is not asked.
WINDOWS = (0, 16, 64, 256)
# Tokens that stay, in parts of the whole vocabulary.
SHARES = (3 / 8, 1 / 2, 5 / 8)
# Those that models are scored for: of `--vocabulary` alone, and with `--refit-samples`.
SCORED_WINDOWS = (TextBatch.windows, MORE_WINDOWS)


def count_spelled(fleet: Fleet, number: int) -> list[Record]:
    """Return for one client, each of `WINDOWS` and each of `SHARES` which share of all later tokens is not kept."""
    world = fleet.load()
    speaker, preprocessing = world.speakers[number], world.preprocessing
    training = speaker.samples.training
    head = token_head(world.model)
    assert training is not None
    assert head is not None
    _, files = split_files(speaker_folders(Path(fleet.data), fleet.clients)[number])
    later = read_windows(files, preprocessing, length=fleet.window_tokens, fewest=1, source=files[0])[:, 1:]
    records = []
    for windows in WINDOWS:
        expected = np.zeros(len(linear_weight(head)))
        if windows:
            expected = expected_tokens(world.model, spread(training, windows))
        kept_from = smallest_sizes(preprocessing, speaker.private[:, 1:].ravel(), expected)
        for share in SHARES:
            size = round(share * len(expected))
            spelled = float((kept_from[later] > size).mean())
            records.append({"client": number, "windows": windows, "tokens": size, "spelled": spelled})
    return records


def score_fewer(fleet: Fleet, number: int) -> list[Record]:
    """Return for one client, each of `SCORED_WINDOWS` and each of `SHARES` what a token of the whole vocabulary costs,
    in nats, where nothing was done to the dense model but to drop tokens.
    """
    world = fleet.load()
    speaker = world.speakers[number]
    training = speaker.samples.training
    assert training is not None
    records = []
    for windows in SCORED_WINDOWS:
        expected = expected_tokens(world.model, spread(training, windows))
        for share in SHARES:
            size = round(share * len(expected))
            own = own_vocabulary(world.model, speaker.samples, FewerTokens(world.preprocessing, size), expected)
            model = cut_vocabulary(world.model, own.cut)
            nats = score_spelled(model, speaker.test, own.teacher.spelling).nats.double().mean()
            left = weights_of(model) / weights_of(world.model)
            records.append({"client": number, "windows": windows, "tokens": size, "share": left, "nats": float(nats)})
    return records


def spelled_table(records: Sequence[Record]) -> str:
    """Return the mean share of later tokens that go over the speakers with `records`; empty without any."""
    if not records:
        return ""
    sizes = sorted({record["tokens"] for record in records})
    lines = [
        f"Tokens in the later text of {len({record['client'] for record in records})} speakers that are not kept, by "
        "how many are, and by how many windows of private text tell which the dense model expects.",
        "",
        f"| windows | {' | '.join(f'{size:,} tokens' for size in sizes)} |",
        "|---|" + "---|" * len(sizes),
    ]
    for windows in sorted({record["windows"] for record in records}):
        of = {size: [r["spelled"] for r in records if (r["windows"], r["tokens"]) == (windows, size)] for size in sizes}
        lines.append(f"| {windows} | {' | '.join(f'{np.mean(of[size]):.2%}' for size in sizes)} |")
    return "\n".join(lines) + "\n"


def fewer_table(records: Sequence[Record], dense: Mapping[int, float]) -> str:
    """Return weights and perplexity of the models of `score_fewer` relative to the dense model's; empty without any.

    dense: nats for each token of the dense model, by client.
    """
    if not records:
        return ""
    windows = sorted({record["windows"] for record in records})
    lines = [
        f"Dense models of {len({record['client'] for record in records})} speakers with fewer tokens, nothing tuned or "
        "trained: weights, and perplexity for each token of the dense model relative to the dense model's, 95 % "
        "interval, by how many windows of private text tell which tokens it expects.",
        "",
        f"| tokens | weights | {' | '.join(f'{count} windows' for count in windows)} |",
        "|---|---|" + "---|" * len(windows),
    ]
    for size in sorted({record["tokens"] for record in records}):
        of = [record for record in records if record["tokens"] == size]
        cells = [f"{size:,}", f"{np.mean([record['share'] for record in of]):.3f}"]
        for count in windows:
            mean, half = mean_interval([r["nats"] - dense[r["client"]] for r in of if r["windows"] == count])
            cells.append(f"{np.exp(mean):.3f} ({np.exp(mean - half):.3f} to {np.exp(mean + half):.3f})")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
