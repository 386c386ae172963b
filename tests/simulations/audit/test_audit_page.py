"""What an audit shows: on its page, in its tables, in its one line."""

import io
import re

import pytest
from flwr.app import Error
from made_recordings import Device, answer, ask, record_messages
from rich.console import Console

from simulations.audit.run import AuditSettings, run_audit
from simulations.report.audit.page import audit_page
from simulations.report.audit.table import audit_tables, finding_lines
from simulations.report.audit.words import headline, search_lines

pytestmark = pytest.mark.usefixtures("task_identity")

INFERENCE = {
    "settings": {},
    "results": [
        {
            "attack": "membership",
            "view": "plain vector",
            "attacker": "a network",
            "auc": 0.512,
            "low": 0.49,
            "high": 0.53,
            "trials": 6400,
            "clients": 80,
        },
        {
            "attack": "reconstruction",
            "view": "sum of 10",
            "attacker": "ridge",
            "score": 0.02,
            "low": 0.01,
            "high": 0.04,
            "baseline": 0.03,
            "trials": 80,
            "clients": 80,
        },
    ],
}


def test_a_page_holds_every_field_and_loads_nothing(tmp_path):
    found = run_audit(AuditSettings(source=Device().record(tmp_path / "hall.recording"), out=tmp_path / "out"))
    page = audit_page({**found, "inference": INFERENCE})
    assert "default-src 'none'" in page
    assert not re.findall(r"""(?:src|href)=["'](?!data:|blob:)""", page.split("</script>", 1)[1])
    body = page.split("<body>")[1]
    for row in found["fields"]:
        assert row["field"] in body
    for text in (headline(found), "0.512", "0.490 to 0.530", "0.020", "sum of 10", "6,400"):
        assert text in body


def test_a_failed_audit_says_so_and_shows_no_markup_of_others(tmp_path):
    request = ask()
    raw = answer(request, Error(106, "<script>alert(1)</script>")).SerializeToString()
    path = record_messages(tmp_path / "one.recording", raw, request=request)
    found = run_audit(AuditSettings(source=path, out=tmp_path / "out"))
    assert headline(found).startswith("Failed: 1 finding in 1 messages of 1 device,")
    assert "an error with a text" in finding_lines(found)[0]
    body = audit_page(found).split("<body>")[1]
    assert "<script>alert" not in body
    assert "&lt;script&gt;alert" in body


def test_the_tables_add_up(tmp_path):
    found = run_audit(AuditSettings(source=Device().record(tmp_path / "hall.recording"), out=tmp_path / "out"))
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(*audit_tables({**found, "inference": INFERENCE}))
    said = console.export_text()
    for text in (f"{found['bytes']:,}", "statistics vector", "0.512", "0.490 to 0.530"):
        assert text in said
    assert search_lines(found["search"]) == [
        "Nothing was looked for: the run has no canaries, and no private data were named."
    ]
