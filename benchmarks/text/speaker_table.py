"""How far each speaker's models of `benchmarks.text.whole` are from the dense one, and how new the later text is."""

from collections.abc import Sequence

import numpy as np

from benchmarks.text.whole import CUT, SPELLED, TRAINED, TUNED, Record
from simulations.speakers import Speaker

_ARMS = (SPELLED, CUT, TRAINED)


def speaker_table(records: Sequence[Record], speakers: Sequence[Speaker]) -> str:
    """Return a row for each speaker with `records`: perplexity relative to the tuned dense model; empty without any.

    speakers: by the number of their client. The last columns split what the trained model costs more, in nats a token,
    by tokens that went with its vocabulary and all others.
    """
    of = {(record["client"], record["arm"]): record for record in records}
    rows = []
    for number, speaker in enumerate(speakers):
        if (number, TUNED) in of:
            tuned, found = of[number, TUNED], [of[number, arm] for arm in _ARMS]
            ratios = [np.exp(record["nats"] - tuned["nats"]) for record in found]
            spelled = found[-1]["nats_of_went"] - tuned["nats_of_went"]
            others = found[-1]["nats"] - tuned["nats"] - spelled
            shares = [f"{unseen(speaker):.1%}", f"{found[-1]['tokens']:,}", f"{tuned['went']:.1%}"]
            cells = [speaker.name, *shares, *(f"{ratio:.3f}" for ratio in ratios), f"{spelled:+.3f}", f"{others:+.3f}"]
            rows.append((ratios[-1], f"| {' | '.join(cells)} |"))
    if not rows:
        return ""
    lines = [
        f"Perplexity relative to `{TUNED}`; the share of tokens in later text that private text lacks (new), how many "
        f"the model keeps, the share of later ones that went; and what `{TRAINED}` costs more by these, and by all "
        "others, in nats a token.",
        "",
        f"| speaker | new | tokens | went | {' | '.join(_ARMS)} | by what went | by others |",
        "|---|---|---|---|" + "---|" * (len(_ARMS) + 2),
    ]
    return "\n".join([*lines, *(row for _, row in sorted(rows))]) + "\n"


def unseen(speaker: Speaker) -> float:
    """Return which share of the tokens in the windows of later text is in no private window."""
    return float((~np.isin(speaker.test, speaker.private)).mean())
