"""Recover sensitivities from probes: the compressed-sensing part. Numpy only."""

from personalization.recovery.base import RecoveryResult, shrink_unseen
from personalization.recovery.solve import recover

__all__ = ["RecoveryResult", "recover", "shrink_unseen"]
