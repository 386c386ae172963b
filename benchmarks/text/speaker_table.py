"""How far each speaker's models of `benchmarks.text.whole` are from the dense one, and how new the later text is."""

from collections.abc import Sequence

import numpy as np

from benchmarks.text.whole import CUT, SPELLED, TRAINED, TUNED, Record
from simulations.speakers import Speaker

_ARMS = (SPELLED, CUT, TRAINED)


def speaker_table(records: Sequence[Record], speakers: Sequence[Speaker]) -> str:
    """Return a row for each speaker with `records`: perplexity relative to the tuned dense model; empty without any.

    speakers: by the number of their client.
    """
    nats = {(record["client"], record["arm"]): record["nats"] for record in records}
    rows = []
    for number, speaker in enumerate(speakers):
        if (number, TUNED) in nats:
            ratios = [np.exp(nats[number, arm] - nats[number, TUNED]) for arm in _ARMS]
            cells = [speaker.name, f"{unseen(speaker):.1%}", *(f"{ratio:.3f}" for ratio in ratios)]
            rows.append((ratios[-1], f"| {' | '.join(cells)} |"))
    if not rows:
        return ""
    lines = [
        f"Perplexity relative to `{TUNED}`, and the share of tokens in later text that private text lacks.",
        "",
        f"| speaker | new tokens | {' | '.join(_ARMS)} |",
        "|---|---|" + "---|" * len(_ARMS),
    ]
    return "\n".join([*lines, *(row for _, row in sorted(rows))]) + "\n"


def unseen(speaker: Speaker) -> float:
    """Return which share of the tokens in the windows of later text is in no private window."""
    return float((~np.isin(speaker.test, speaker.private)).mean())
