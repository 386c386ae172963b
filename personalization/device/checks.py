"""How close an export stayed to torch on a client's own samples, and how close it had to."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ExportCheck:
    """Of an image classifier.

    disagreements: samples whose most likely class differs. difference: largest difference between two probabilities of
    the same class and sample. The two `_allowed` are the most that would have been let through.
    """

    samples: int
    disagreements: int
    disagreements_allowed: int
    difference: float
    difference_allowed: float

    @property
    def passed(self) -> bool:
        """Say whether the export may take the place of an older one."""
        return self.disagreements <= self.disagreements_allowed and self.difference <= self.difference_allowed


@dataclass(frozen=True, kw_only=True)
class TextExportCheck:
    """Of a language model.

    divergence: of the export's next-token distributions from those of torch, mean over `tokens` positions, nats.
    perplexity_ratio: the export's perplexity over that of torch. agreement: share of positions at which both have the
    same first choice. The two `_allowed` are the most that would have been let through.
    """

    tokens: int
    divergence: float
    divergence_allowed: float
    perplexity_ratio: float
    perplexity_ratio_allowed: float
    agreement: float

    @property
    def passed(self) -> bool:
        """Say whether the export may take the place of an older one."""
        return self.divergence <= self.divergence_allowed and self.perplexity_ratio <= self.perplexity_ratio_allowed
