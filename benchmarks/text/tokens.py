"""How many tokens of later text go with a vocabulary that is cut, by how much private text tells which may come."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.text.cells import Fleet
from personalization.data.texts import read_windows
from personalization.training.loop import spread
from personalization.transformer.layers import linear_weight
from personalization.transformer.readout import token_head
from personalization.vocabulary.cut import expected_tokens, smallest_sizes
from simulations.speakers import speaker_folders, split_files

Record = dict[str, Any]
# Of private text, evenly spread, those that the dense model's expectations are of; 0: it is not asked.
WINDOWS = (0, 16, 64, 256)
# Tokens that stay, in parts of the whole vocabulary.
SHARES = (3 / 8, 1 / 2, 5 / 8)


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
