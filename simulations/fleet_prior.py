"""What a finished fleet knows, in its report.json, for devices that come later."""

import json
from pathlib import Path

import numpy as np

from personalization.errors import UserError
from personalization.sensing.prior import Prior
from personalization.wire.statistics import StatisticsLayout
from server.journal import load_journal


def prior_record(run: Path, *, layers: int) -> dict[str, list[float]] | None:
    """Return the prior that the fleet of the finished `run` ended with, as JSON holds it: two lists of [atoms].

    None if no client measured anything. Raises UserError without a readable journal.
    """
    knowledge = load_journal(run / "server").knowledge
    levels = len(knowledge.precision) // layers
    prior = knowledge.prior(StatisticsLayout(layers, levels, len(knowledge.dropped)))
    if prior is None:
        return None
    return {"sensitivity": prior.sensitivity.tolist(), "precision": prior.precision.tolist()}


def read_prior(path: Path, *, atoms: int) -> Prior:
    """Read the fleet's prior from a report.json: `prior` with `sensitivity` and `precision`, [atoms] each.

    Raises UserError if there is none, or if it belongs to a model of another number of layers.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))["prior"]
        sensitivity, precision = (np.array(record[key], dtype=np.float64) for key in ("sensitivity", "precision"))
        prior = Prior(sensitivity, precision)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; expected the report.json of a fleet") from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: holds no prior; expected the report.json of a fleet") from error
    if len(prior.sensitivity) != atoms:
        raise UserError(
            f"{path}: a prior of {len(prior.sensitivity)} entries, but this model has {atoms}; expected the report of "
            "a fleet with the same model"
        )
    return prior
