"""`fedsieve audit` from a recording to a verdict."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from personalization.errors import UserError
from personalization.system.files import write_atomically
from server.journal import Journal
from simulations.audit.leaves import Decoded
from simulations.audit.source import Source, find_source, read_file, recorded_bytes
from simulations.audit.tally import Tally, message_record
from simulations.canaries.haystacks import files_that_leave
from simulations.canaries.needles import Needle, canary_needles, private_needles, word_needles
from simulations.canaries.search import Search

MESSAGES_FILE = "messages.jsonl"
OnProgress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class AuditSettings:
    """An audit. source: folder of a run, of recordings, or a recording. out: folder for its files.

    data: a device's own images, which are looked for beside canaries, with their names. search: more files and folders
    that are open to others and are searched, such as logs and the server's folder.
    """

    source: Path
    out: Path
    data: Path | None = None
    search: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what does not exist, and a folder that holds something else. Raises UserError."""
        for path in self.search:
            if not path.exists():
                raise UserError(f"{path}: nothing there to search")
        if self.out.exists() and not self.out.is_dir():
            raise UserError(f"{self.out}: a file; expected a folder for the audit")
        if self.out.is_dir() and any(self.out.iterdir()) and not (self.out / MESSAGES_FILE).is_file():
            raise UserError(f"{self.out}: holds something else; choose a new folder, or that of an earlier audit")


def run_audit(settings: AuditSettings, *, on_progress: OnProgress = lambda line: None) -> dict[str, Any]:
    """Decode all that left, search for what may not leave, and return what audit.json holds.

    Writes every message with all its fields to messages.jsonl in `out`. on_progress: takes a line for each step.
    Raises UserError for recordings without a message, and for those and data that can't be read; OSError.
    """
    source = find_source(settings.source)
    journal = source.journal()
    needles = _needles(settings, source, journal)
    search = Search(needles)
    settings.out.mkdir(parents=True, exist_ok=True)
    tally, lines = Tally(), list[str]()
    for path in source.files:
        on_progress(f"decoding {path}")
        for decoded in read_file(path, tally.problems):
            tally.add(decoded)
            lines.append(json.dumps(message_record(decoded)))
            _search_message(search, decoded)
    if not lines and not tally.problems:
        raise UserError(f"{settings.source}: no message in its recordings yet; there is nothing to audit")
    write_atomically(settings.out / MESSAGES_FILE, "".join(f"{line}\n" for line in lines).encode())
    record = tally.to_record()
    record["recorded_bytes"] = sum(recorded_bytes(path) for path in source.files)
    record["journal_bytes"] = None if journal is None else _journal_bytes(journal)
    tally.problems += _totals(record, finished=journal is None or journal.final is not None)
    files = list(files_that_leave(source.run, settings.search, leave_out=settings.out))
    if needles and files:
        on_progress(f"searching {len(files)} files")
        for path in files:
            search.file(path)
    findings = tally.problems + search.problems()
    return {
        "source": str(settings.source),
        "recordings": [str(path) for path in source.files],
        "verdict": "failed" if findings else "clean",
        "findings": findings,
        **record,
        "search": search.to_record(),
    }


def _needles(settings: AuditSettings, source: Source, journal: Journal | None) -> list[Needle]:
    needles = [] if journal is None else canary_needles(journal.settings)
    if settings.data is not None:
        needles += private_needles(settings.data) + word_needles(settings.data)
    return needles


def _search_message(search: Search, decoded: Decoded) -> None:
    search.message(decoded.raw, f"{decoded.client}, message {decoded.number} ({decoded.kind})")


def _journal_bytes(journal: Journal) -> int:
    records = [*journal.rounds, *journal.finals, *([journal.final] if journal.final is not None else [])]
    return sum(int(record["uplink_bytes"]) for record in records)


def _totals(record: dict[str, Any], *, finished: bool) -> list[dict[str, str]]:
    """Return what is wrong with the sums: every byte that was recorded has to be in a message, and in a field of it."""
    problems = []
    fields = sum(row["bytes"] for row in record["fields"])
    if not record["bytes"] == record["recorded_bytes"] == fields:
        problems.append(f"{record['recorded_bytes']} bytes left, {record['bytes']} in messages, {fields} in fields")
    journal = record["journal_bytes"]
    if journal is not None and (record["bytes"] < journal or (finished and record["bytes"] != journal)):
        problems.append(f"{record['bytes']} bytes are recorded, and the server's journal counts {journal}")
    return [{"where": "totals", "what": problem} for problem in problems]
