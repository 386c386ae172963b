"""How figures are written for people."""

from collections.abc import Mapping
from typing import Any

# The summary's figures in the order in which they are shown: key of report.json, what it is, how it is written.
SUMMARY_ROWS = (
    ("dense_accuracy_mean", "dense accuracy on own test images", "share"),
    ("dense_fitted_accuracy_mean", "the same, its head fitted to each client", "share"),
    ("personal_accuracy_mean", "personal accuracy on own test images", "share"),
    ("personal_accuracy_worst_decile", "personal accuracy, worst tenth of the clients", "share"),
    ("dense_perplexity_mean", "dense perplexity on own later text", "perplexity"),
    ("personal_perplexity_mean", "personal perplexity on own later text", "perplexity"),
    ("perplexity_ratio_mean", "personal to dense perplexity", "ratio"),
    ("perplexity_ratio_worst_decile", "personal to dense perplexity, worst tenth of the clients", "ratio"),
    ("dense_bits_per_token_mean", "dense bits per token", "bits"),
    ("personal_bits_per_token_mean", "personal bits per token", "bits"),
    ("agreement_mean", "same prediction as the dense model", "share"),
    ("vocabulary_mean", "tokens that a personal model knows", "number"),
    ("weights_kept_mean", "weights of the blocks kept", "share"),
    ("bytes_dense", "size of the dense model", "bytes"),
    ("bytes_mean", "size of a personal model", "bytes"),
    ("latency_ms_dense", "latency of the dense model, one image", "milliseconds"),
    ("latency_ms_mean", "latency of a personal model, one image", "milliseconds"),
    ("uplink_bytes_per_client_round_mean", "sent up, per client and round", "bytes"),
    ("downlink_bytes_first_contact_mean", "sent down, first contact", "bytes"),
    ("downlink_bytes_later_mean", "sent down, each later round", "bytes"),
    ("evaluations_per_client_mean", "evaluations (masked forward passes) per client", "count"),
    ("privacy", "differential privacy of a client", "text"),
    ("clients_sat_out", "clients that sat out, their privacy budget spent", "number"),
    ("wall_seconds", "wall clock", "seconds"),
    ("cpu_seconds", "processor time", "seconds"),
    ("peak_memory_bytes", "peak memory of the process", "bytes"),
)


def format_bytes(count: float) -> str:
    """Write a number of bytes with a decimal prefix: 760 B, 1.4 kB, 1.36 MB."""
    if count < 999.5:
        return f"{count:.0f} B"
    for unit in ("kB", "MB"):
        count /= 1000
        if count < 999.5:  # what would be written as 1e+03
            return f"{count:.3g} {unit}"
    return f"{count / 1000:.3g} GB"


def format_figure(value: float | str | None, kind: str) -> str:
    """Write a figure of `kind` (see the cases); what was not measured is a dash, and a text stays as it is."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if kind == "share":
        return f"{100 * value:.1f} %"
    if kind == "bytes":
        return format_bytes(value)
    if kind == "number":
        return f"{value:.0f}"
    if kind == "milliseconds":
        return f"{value:.2f} ms"
    if kind == "seconds":
        return f"{value:.1f} s"
    return f"{value:.3f}" if kind in ("bits", "ratio") else f"{value:.1f}"  # count, perplexity


def summary_figures(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the rows (what it is, figure) of a report's summary; a key that is absent makes no row."""
    sample = "one window of text" if "perplexity_ratio_mean" in summary else "one image"
    return [
        (label.replace("one image", sample), format_figure(summary[key], kind))
        for key, label, kind in SUMMARY_ROWS
        if key in summary
    ]
