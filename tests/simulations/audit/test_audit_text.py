"""Audits of simulated fleets of text: from the recording to the verdict, and what clients that fail let out."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tiny_text import write_language_model, write_speakers

import client.work
from personalization.errors import UserError
from personalization.model_files.backbone import read_tokenizer
from simulations.audit.run import AuditSettings, run_audit
from simulations.canaries.needles import sentence_needle
from simulations.canaries.search import Search
from simulations.canaries.texts import canary_text
from simulations.fleet import run_fleet
from simulations.fleet_settings import FleetSettings
from simulations.report.audit.words import search_lines


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("text")
    model = write_language_model(folder / "model")
    return SimpleNamespace(model=model, data=write_speakers(folder / "speakers"))


def fleet(places: SimpleNamespace, out: Path, **changes: Any) -> Path:
    chosen = {
        "clients": 3, "rounds": 1, "fraction": 1.0, "probes": 2, "budget": 0.7, "tolerance": 20.0, "seed": 3,
        "windows": 10, "window_tokens": 32, "model": str(places.model), "data": places.data,
    }  # fmt: skip
    run_fleet(FleetSettings(**{**chosen, "out": out, "record": True, "canaries": 2, **changes}))
    return out


def canary(places: SimpleNamespace, client_number: int) -> Search:
    tokenizer = read_tokenizer(str(places.model))
    assert tokenizer is not None
    return Search([sentence_needle("canary", canary_text(3, client_number), tokenizer)])


@pytest.mark.parametrize("mode", ["off", "sum"])
def test_every_byte_is_explained_and_no_sentence_leaves(places: SimpleNamespace, tmp_path: Path, mode: str) -> None:
    seen: list[bytes] = []
    personalize = client.work.own_personalize

    def watched(model: Any, inputs: Any, **options: Any) -> Any:
        seen.append(inputs["input_ids"].numpy().astype("<i8").tobytes())
        return personalize(model, inputs, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("client.work.own_personalize", watched)
        out = fleet(places, tmp_path / "run", secure_aggregation=mode)
    assert [any(canary(places, number).find(data) for data in seen) for number in range(3)] == [True, True, False]
    found = run_audit(AuditSettings(source=out, out=tmp_path / "audit"))
    assert (found["verdict"], found["findings"]) == ("clean", [])
    assert found["bytes"] == found["recorded_bytes"] == found["journal_bytes"]
    assert (found["search"]["canaries"], found["search"]["names"]) == (2, 3)
    assert "2 planted canaries and 3 names" in search_lines(found["search"])[0]
    copy = np.frombuffer(next(data for data in seen if canary(places, 0).find(data)), "<i8").tolist()
    (out / "server" / "debug.json").write_text(json.dumps({"ids": copy}))
    leaked = run_audit(AuditSettings(source=out, out=tmp_path / "audit"))
    assert leaked["verdict"] == "failed"
    assert {finding["where"] for finding in leaked["findings"]} == {str(out / "server" / "debug.json")}


CRASHES = {
    "in the text of an error": lambda text, ids: UserError(f"cannot use {text!r}"),
    "as tokens": lambda text, ids: RuntimeError("bad window", ids.tolist()),
    "as bytes": lambda text, ids: OSError(28, "No space left on device", text.encode("utf-16-le").hex()),
    "as numpy prints it": lambda text, ids: ValueError(repr(ids)),
}


@pytest.mark.parametrize("crash", CRASHES)
def test_whatever_a_client_fails_with_stays_on_it(
    places: SimpleNamespace, tmp_path: Path, crash: str, capfd: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    text, tokenizer, personalize = canary_text(3, 0), read_tokenizer(str(places.model)), client.work.own_personalize
    assert tokenizer is not None
    search, failing = canary(places, 0), CRASHES[crash](text, tokenizer.encode(text))

    def fails(model: Any, inputs: Any, **options: Any) -> Any:
        if search.find(inputs["input_ids"].numpy().astype("<i8").tobytes()):
            raise failing
        return personalize(model, inputs, **options)

    monkeypatch.setattr("client.work.own_personalize", fails)
    out = fleet(places, tmp_path / "run")
    found = run_audit(AuditSettings(source=out, out=tmp_path / "audit"))
    assert (found["verdict"], found["findings"]) == ("clean", [])
    assert any(row["kind"].startswith("error 1") for row in found["kinds"])
    said = capfd.readouterr()
    assert search.find((said.out + said.err).encode()) == []
    kept = (out / "clients" / "client-0" / "last_error.json").read_bytes()
    assert search.find(kept), "it is there, so the search would have found it elsewhere"
