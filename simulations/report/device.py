"""What one device's commands print, as Rich tables."""

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from personalization.device.checks import ExportCheck, TextExportCheck
from personalization.device.footprint import DeviceFootprint, TextFootprint
from personalization.device.manifest import DeviceManifest
from simulations.report.figures import format_r2
from simulations.report.units import format_bytes, format_figure

_ONE = {"image": "one image", "text": "one window of text"}


def layers_table(report: Mapping[str, Any]) -> Table:
    """Return the layers with what was found about each: sensitivity and precision at each probe level, and its cut."""
    table = Table(title="layers: sensitivity in nats (precision)", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("layer", no_wrap=True)
    for level in report["probe_levels"]:
        table.add_column(f"{level:.0%} removed", justify="right", no_wrap=True)
    table.add_column("cut", justify="right")
    table.add_column("", no_wrap=True)
    for layer in report["layers"]:
        measured = zip(layer["sensitivity"], layer["precision"], strict=True)
        cells = [f"{nats:.2g} ({precision:.2f})" for nats, precision in measured]
        removed = format_figure(layer["level"], "share")
        table.add_row(layer["layer"], *cells, removed, "personalized" if layer["personalized"] else "generic")
    return table


def footprint_table(report: Mapping[str, Any]) -> Table:
    """Return the dense and the personal model's footprint side by side."""
    dense, personal = report["footprint"]["dense"], report["footprint"]["personal"]
    table = Table(title="footprint", title_justify="left", box=SIMPLE_HEAD)
    for name in ("", "dense", "personal"):
        table.add_column(name, justify="right" if name else "left")
    table.add_row("weights", f"{dense['weights']:,}", f"{personal['weights']:,}")
    table.add_row("of these in blocks", f"{dense['block_weights']:,}", f"{personal['block_weights']:,}")
    if "vocabulary" in report:
        table.add_row("tokens", *(f"{report['vocabulary'][name]:,}" for name in ("dense", "personal")))
    table.add_row("size", format_bytes(dense["bytes"]), format_bytes(personal["bytes"]))
    table.add_row("multiply-accumulates", f"{dense['macs']:,}", f"{personal['macs']:,}")
    for label, key, kind in (
        (f"latency, {_ONE[report.get('task', 'image')]}", "latency_ms", "milliseconds"),
        ("peak memory", "peak_memory_bytes", "bytes"),
    ):
        table.add_row(label, format_figure(dense[key], kind), format_figure(personal[key], kind))
    return table


def headline(report: Mapping[str, Any]) -> str:
    """Return how well the search fits and how close the personal model stays to the dense one."""
    private = {"image": "images", "text": "windows of text"}[report.get("task", "image")]
    fit = "too few probes to tell" if report["fit_r2"] is None else format_r2(report["fit_r2"])
    return (
        f"{report['samples']} private {private}, {report['evaluations']} evaluations, {report['seconds']:.1f} s. "
        f"R2 of held-out probes: {fit}. On held-out private {private} the personal model agrees with the dense one on "
        f"{format_figure(report['agreement'], 'share')}, at {report['entropy_increase']:.4f} nats of entropy increase."
    )


def export_table(manifest: DeviceManifest) -> Table:
    """Return what an exported model costs and how it was checked."""
    table = Table(title=f"{manifest.precision} export", title_justify="left", box=SIMPLE_HEAD, show_header=False)
    table.add_column("")
    table.add_column("", justify="right")
    for row in (*_cost_rows(manifest.footprint), *_check_rows(manifest.check)):
        table.add_row(*row)
    return table


def _cost_rows(footprint: DeviceFootprint | TextFootprint) -> list[tuple[str, str]]:
    memory = [
        ("peak memory of a process that runs it", format_bytes(footprint.peak_memory_bytes)),
        ("of that, before it is opened", format_bytes(footprint.runtime_memory_bytes)),
    ]
    if isinstance(footprint, TextFootprint):
        return [
            ("size", format_bytes(footprint.bytes)),
            ("size of its tokenizer", format_bytes(footprint.tokenizer_bytes)),
            ("tokens a second of a prompt, one thread", f"{footprint.prompt_tokens_per_second:,.0f}"),
            ("tokens a second one by one, one thread", f"{footprint.tokens_per_second:,.1f}"),
            *memory,
        ]
    latency = format_figure(footprint.latency_ms, "milliseconds")
    return [("size", format_bytes(footprint.bytes)), ("latency, one image, one thread", latency), *memory]


def _check_rows(check: ExportCheck | TextExportCheck) -> list[tuple[str, str]]:
    if isinstance(check, TextExportCheck):
        return [
            ("tokens compared with torch", f"{check.tokens:,}"),
            ("same first choice as in torch", format_figure(check.agreement, "share")),
            ("nats of divergence a token", f"{check.divergence:.2g}"),
            ("perplexity, as a multiple of torch's", f"{check.perplexity_ratio:.4f}"),
        ]
    return [
        ("same class as in torch", f"{check.samples - check.disagreements} of {check.samples} images"),
        ("largest difference of a probability", f"{check.difference:.2g}"),
    ]
