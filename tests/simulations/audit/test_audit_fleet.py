"""Audits of simulated fleets from the recording to the verdict, and what clients that fail let out."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import fake_personalize
from typer.testing import CliRunner

from client.app import make_app as make_client_app
from client.data import InputFacts
from fedsieve import app
from personalization.errors import UserError
from personalization.model_files.backbone import load_backbone
from server.app import make_app as make_server_app
from simulations.audit.run import AuditSettings, run_audit
from simulations.canaries.images import canary_image
from simulations.canaries.needles import image_needle
from simulations.canaries.search import Search
from simulations.engine import run_in_process
from simulations.fleet_settings import FleetSettings
from simulations.identities import SimulatedIdentities
from simulations.private_data import make_fleet_data
from simulations.recording import FILE, FOLDER, recorded

CLIENTS = 6


@pytest.fixture
def fleet(tiny_vit_folder, tiny_data, tmp_path):
    def run(*, personalize=fake_personalize, **changes) -> SimpleNamespace:
        out = tmp_path / "run"
        config = {
            "model": str(tiny_vit_folder),
            "data": str(tiny_data),
            "samples": 10,
            "num-rounds": 2,
            "fraction": 1.0,
            "probes": 2,
            "min-nodes": CLIENTS,
            "out-dir": str(out),
            "seed": 3,
            "canaries": 2,
            "canary-shape": "8x8",
            "classes-per-client": 2,
            "partition": "classes",
            **changes,
        }
        identities = None
        if changes.get("secure-aggregation"):
            identities = SimulatedIdentities(b"i" * 32)
            config["enrolment-file"] = str(identities.write(out))
        backbone = load_backbone(config["model"])
        data = make_fleet_data(config, CLIENTS, InputFacts(backbone.preprocessing, backbone.labels))
        with recorded(out) as tap:
            sizes = run_in_process(
                make_server_app(),
                make_client_app(data, personalize=personalize, identify=identities),
                clients=CLIENTS,
                run_config=config,
                tap=tap,
            )
        return SimpleNamespace(out=out, sizes=sizes, data=data)

    return run


def audited(run: SimpleNamespace, out) -> dict:
    return run_audit(AuditSettings(source=run.out, out=out))


@pytest.mark.parametrize("mode", ["off", "sum"])
def test_the_sums_are_those_of_the_engine_and_of_the_journal(fleet, tmp_path, mode):
    run = fleet(**({} if mode == "off" else {"secure-aggregation": mode}))
    found = audited(run, tmp_path / "audit")
    assert (found["verdict"], found["findings"]) == ("clean", [])
    sent = sum(size.up for size in run.sizes.values())
    assert sent == found["bytes"] == found["recorded_bytes"] == found["journal_bytes"]
    assert sum(row["bytes"] for row in found["fields"]) == sent
    assert found["search"]["canaries"] == 2
    kinds = {row["kind"] for row in found["kinds"]}
    expected = {"key for secure sums", "masked vector", "shares of self masks", "nothing, as asked"}
    assert kinds == ({"statistics vector"} if mode == "off" else expected)
    groups = {row["group"] for row in found["groups"]}
    assert ("sparsity statistics" in groups, "secure sum" in groups) == (mode == "off", mode == "sum")


def test_a_canary_is_among_the_private_images_and_a_copy_with_the_server_is_found(fleet, tmp_path):
    run = fleet()
    canary = canary_image(3, 3, (8, 8))
    held = run.data.dataset.train_images[run.data.split(3).train]
    assert any(np.array_equal(image, canary) for image in held)
    (run.out / "server" / "debug.json").write_text(json.dumps({"first": canary.tolist()}))
    found = audited(run, tmp_path / "audit")
    assert found["verdict"] == "failed"
    assert {finding["where"] for finding in found["findings"]} == {str(run.out / "server" / "debug.json")}
    assert "canary of client 3" in found["findings"][0]["what"]


def test_a_message_too_many_or_too_few_fails_the_sums(fleet, tmp_path):
    run = fleet()
    with recorded(run.out) as tap:
        assert tap is not None
        tap.up(0, b"")
    assert audited(run, tmp_path / "one")["verdict"] == "failed"
    path = run.out / FOLDER / FILE
    raw = path.read_bytes()
    last = raw.rindex(b"U\x05\x00\x00\x00")  # the last reply of the last client
    path.write_bytes(raw[:last])
    whats = [finding["what"] for finding in audited(run, tmp_path / "two")["findings"]]
    assert any("the server's journal counts" in what for what in whats)


CRASHES = {
    "in the text of an error": lambda image: UserError(f"cannot use image {image.tolist()}"),
    "as bytes": lambda image: RuntimeError("bad image", image.tobytes()),
    "in a path": lambda image: OSError(28, "No space left on device", image.tobytes().hex()),
    "as numpy prints it": lambda image: ValueError(repr(image)),
}


@pytest.mark.parametrize("crash", CRASHES)
def test_whatever_a_client_fails_with_stays_on_it(fleet, tmp_path, crash, capfd):
    canary = canary_image(3, 3, (8, 8))

    def personalize(model, inputs, **options):
        if options["settings"].seed % 2:
            raise CRASHES[crash](canary)
        return fake_personalize(model, inputs, **options)

    run = fleet(personalize=personalize)
    found = audited(run, tmp_path / "audit")
    assert (found["verdict"], found["findings"]) == ("clean", [])
    assert any(row["kind"].startswith("error 1") for row in found["kinds"])
    search = Search([image_needle("canary", canary, noise=True)])
    said = capfd.readouterr()
    assert search.find((said.out + said.err).encode()) == []
    kept = [path.read_bytes() for path in sorted((run.out / "clients").rglob("last_error.json"))]
    assert kept
    assert all(search.find(data) for data in kept)  # it is there, so the search would have found it elsewhere


def test_the_command_says_what_is_wrong_by_its_exit_code(fleet, tmp_path):
    run = fleet()
    command = CliRunner()
    done = command.invoke(app, ["audit", str(run.out), "--out", str(tmp_path / "audit"), "--json"])
    assert done.exit_code == 0
    assert json.loads((tmp_path / "audit" / "audit.json").read_text())["verdict"] == "clean"
    page = (tmp_path / "audit" / "audit.html").read_text()
    assert "every byte explained" in page
    assert "weighted_sensitivity" in page
    with recorded(run.out) as tap:
        assert tap is not None
        tap.up(0, b"hello")
    done = command.invoke(app, ["audit", str(run.out), "--out", str(tmp_path / "audit")])
    assert done.exit_code == 1
    assert "not a message" in done.output
    done = command.invoke(app, ["audit", str(tmp_path / "nothing"), "--out", str(tmp_path / "audit")])
    assert done.exit_code == 2
    assert "no such folder or recording" in done.output


def test_what_cannot_be_recorded_or_audited_is_refused(tmp_path):
    with pytest.raises(UserError, match="under Ray"):
        FleetSettings(out=tmp_path, record=True, engine="ray")
    with pytest.raises(UserError, match="canaries"):
        FleetSettings(out=tmp_path, clients=3, canaries=4)
    with pytest.raises(UserError, match="no recording in it"):
        run_audit(AuditSettings(source=tmp_path, out=tmp_path / "out"))
    with recorded(tmp_path / "begun"):
        pass
    with pytest.raises(UserError, match="no message in its recordings yet"):
        run_audit(AuditSettings(source=tmp_path / "begun", out=tmp_path / "out"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    with pytest.raises(UserError, match="holds something else"):
        AuditSettings(source=tmp_path, out=tmp_path / "full")
