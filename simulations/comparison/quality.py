"""What methods are compared by: accuracy on images, perplexity on text.

A client's score is the larger the better, and differences of scores mean something. On text it is the logarithm of
dense to personal perplexity (nats a token, 0 has lost nothing), so that means and differences of scores, written as
perplexities, are geometric means and ratios.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simulations.comparison.intervals import Estimate

ACCURACY, PERPLEXITY = "personal_accuracy", "perplexity_ratio"
# Metrics that are made of scores, beside the one that a comparison is by.
MADE_OF_SCORES = ("worst_decile", "difference", "change")


@dataclass(frozen=True)
class ComparedBy:
    """metric: ACCURACY or PERPLEXITY, the key in a client's row."""

    metric: str

    @staticmethod
    def of(row: Mapping[str, Any]) -> "ComparedBy":
        """Return what the clients of this row, or of this summary, are compared by."""
        return ComparedBy(PERPLEXITY if PERPLEXITY in row else ACCURACY)

    def score(self, value: float) -> float:
        """Return the score of a client whose metric has this value."""
        return -math.log(value) if self.metric == PERPLEXITY else value

    def lost(self, value: float, row: Mapping[str, Any]) -> float:
        """Return how far a client's metric (`value`, in some round) lies from its dense model's, on its final row.

        A share of accuracy, against the dense model with its head fitted; or the share by which perplexity is higher.
        """
        return value - 1.0 if self.metric == PERPLEXITY else float(row["dense_fitted_accuracy"]) - value

    def written(self, name: str, found: Estimate) -> Estimate:
        """Return an estimate of scores as it stands in the summary. name: of the metric that it is."""
        if self.metric != PERPLEXITY or name not in (self.metric, *MADE_OF_SCORES):
            return found
        return Estimate(math.exp(-found.mean), math.exp(-found.high), math.exp(-found.low))
