"""The two files of a run's report: report.json for programs, report.html for people."""

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from personalization.system.files import write_atomically
from simulations.fleet import FleetResult
from simulations.fleet_prior import prior_record
from simulations.report.page import write_report

_PACKAGES = ("fedsieve", "flwr", "numpy", "torch", "transformers")


def write_files(result: FleetResult, out: Path) -> dict[str, Any]:
    """Write report.json and report.html into the run's folder `out` and return what report.json holds.

    To the result come `prior`, what the fleet knows for devices that come later, and `versions` of what computed it.
    """
    report = result.to_report()
    report["prior"] = prior_record(out, layers=report["model"]["layers"])
    report["versions"] = {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}
    write_atomically(out / "report.json", json.dumps(report, indent=1, allow_nan=False).encode())
    write_report(report, out / "report.html")
    return report
