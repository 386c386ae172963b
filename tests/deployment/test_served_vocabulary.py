"""A fleet as `fedsieve serve` and `fedsieve join` configure it, whose devices keep few tokens: the simulator's result.

The apps run in this process, with keys, signatures and vaults of a real fleet; what differs is Flower's network.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result
from tiny_text import VOCABULARY, write_language_model, write_speakers
from typer.testing import CliRunner

import fedsieve
from client.app import make_app as make_client_app
from client.entries import MODEL
from client.model import load_model
from client.node_file import read_node_file
from deployment.command import Enrolment, enroll
from deployment.join.run import node_config
from deployment.join.settings import JoinSettings
from deployment.join.vault_choice import VaultChoice, make_missing_key, open_state
from deployment.serve.settings import ServeSettings
from personalization.model_files.manifest import Manifest
from personalization.model_files.storage import MANIFEST_FILE, read_manifest
from server.app import make_app as make_server_app
from server.journal import Journal, load_journal
from simulations.engine import run_in_process
from simulations.speakers import speaker_folders, split_files

DEVICES, MOST = 3, 280
ASKED = {"vocabulary": MOST, "recovery": "tune", "training_steps": 3, "windows": 10, "window_tokens": 16}


@dataclass(frozen=True)
class Device:
    """One that joined: what it was told, where its state is, and the text that it was made from."""

    settings: JoinSettings
    state: Path
    vault: VaultChoice

    def config(self, name: str) -> dict:
        node = read_node_file(self.settings.node_file)
        # Random numbers follow from the name, and simulated devices are numbered.
        return {**node_config(self.settings, node, self.state, self.vault), "client-name": name}

    def loaded(self):
        return load_model(open_state(self.state, self.vault, {}))

    def manifest(self, version: int) -> Manifest:
        """Of the model that was made in a round; the newest two are kept."""
        text = open_state(self.state, self.vault, {}).vault.read(f"{MODEL}/{version}/{MANIFEST_FILE}").decode()
        return Manifest.from_json(text, MANIFEST_FILE)

    def record(self) -> dict:
        return open_state(self.state, self.vault, {}).record()["rounds"]

    def run(self, command: str, *arguments: object) -> Result:
        return run(command, self.state, *arguments, "--vault-key-file", self.vault.name)


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(fedsieve.app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result


@dataclass(frozen=True)
class Places:
    """The model, the speakers' texts, and a fleet's keys."""

    folder: Path
    model: Path
    speakers: Path

    def join(self, name: str, **own) -> list[Device]:
        """Devices with the private texts of a speaker each. name: of this fleet. own: what their owners set."""
        devices = []
        for number, speaker in enumerate(speaker_folders(self.speakers, DEVICES)):
            folder = self.folder / name / str(number)
            (folder / "data").mkdir(parents=True)
            for file in split_files(speaker)[0]:
                shutil.copy(file, folder / "data")
            vault = VaultChoice(source="file", name=str(folder / "keys" / "key"))
            make_missing_key(folder / "state", vault)
            settings = JoinSettings(
                node_file=self.folder / "fleet" / "nodes" / f"n{number}.json", data=folder / "data", sums_only=False,
                **own,
            )  # fmt: skip
            devices.append(Device(settings, folder / "state", vault))
        return devices

    def serve(self, name: str, devices: list[Device], **asked) -> Journal:
        settings = ServeSettings(
            fleet=self.folder / "fleet", state=self.folder / f"{name}-server", model=str(self.model), host="::1",
            port=1, superlink_port=2, status=None, secure_aggregation="off", rounds=1, min_nodes=DEVICES, budget=0.7,
            probes=2, **{**ASKED, **asked},
        )  # fmt: skip
        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(1)  # as in the simulator: sums in another order differ in their last digits
            run_in_process(
                make_server_app(config=settings.run_config()),
                make_client_app(),
                clients=DEVICES,
                run_config=settings.run_config(),
                node_config=lambda client, version: devices[client].config(str(client)),
            )
        finally:
            torch.set_num_threads(threads)
        return load_journal(settings.journal_dir)


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> Places:
    folder = tmp_path_factory.mktemp("served")
    enroll(folder / "fleet", Enrolment(server="localhost:1", nodes=[f"n{number}" for number in range(DEVICES)]))
    return Places(folder, write_language_model(folder / "model"), write_speakers(folder / "speakers"))


@pytest.fixture(scope="module")
def served(places) -> tuple[list[Device], Journal]:
    devices = places.join("served")
    return devices, places.serve("served", devices)


def test_a_served_fleet_comes_to_the_personal_models_and_statistics_of_the_simulator(places, served):
    devices, journal = served
    out = places.folder / "simulated"
    options = [word for name, value in ASKED.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    fleet = ("--rounds", 1, "--fraction", 1, "--probes", 2, "--budget", 0.7)
    run("simulate", "--model", places.model, "--data", places.speakers, *fleet, *options, "--out", out)
    for number, device in enumerate(devices):
        manifest, simulated = device.loaded().manifest, read_manifest(out / "clients" / f"client-{number}" / "model")
        assert manifest.weights_sha256 == simulated.weights_sha256
        assert manifest.preprocessing == simulated.preprocessing
        assert manifest.config["vocab_size"] <= MOST < VOCABULARY
        assert device.record()["2"]["vocabulary"] == manifest.config["vocab_size"]
    expected = load_journal(out / "server")
    assert journal.final["clients_replied"] == DEVICES
    for name in ("precision", "weighted", "kept", "replies"):
        np.testing.assert_array_equal(getattr(journal.knowledge, name), getattr(expected.knowledge, name))
    assert journal.root == expected.root


def test_a_state_with_few_tokens_speaks_scores_any_text_and_is_exported(places, served, tmp_path):
    device = served[0][1]
    later, other = places.speakers / "speaker-1" / "1903.txt", tmp_path / "other.txt"
    other.write_text("Ein Fluß, 河, и другие слова")
    asked = (later, other, "--prompt", "the river", "--tokens", 5, "--json")
    found = json.loads(device.run("predict", *asked).stdout)
    assert found["continuation"]
    assert [score["file"] for score in found["scores"]] == [str(later), str(other)]
    assert all(score["bits_per_byte"] > 0 for score in found["scores"])
    device.run("export", "--data", device.settings.data, "--int8", "none", "--out", tmp_path / "export")
    exported = json.loads(run("predict", tmp_path / "export", *asked).stdout)
    for own, there in zip(found["scores"], exported["scores"], strict=True):
        assert there["nats"] == pytest.approx(own["nats"], rel=1e-4)
    assert exported["continuation"] == found["continuation"]


def test_an_owner_keeps_all_tokens_and_trains_nothing_whatever_the_fleet_is_asked(places, served):
    """What comes up has the same layout: all are summed into one."""
    own = places.join("own", vocabulary=0, training_steps=0)
    mixed = [own[0], *places.join("others")[1:]]
    journal = places.serve("mixed", mixed)
    assert journal.final["clients_replied"] == DEVICES
    assert mixed[0].loaded().manifest.config["vocab_size"] == VOCABULARY
    assert "vocabulary" not in mixed[0].record()["2"]
    assert mixed[1].loaded().manifest.config["vocab_size"] <= MOST
    plain = places.join("plain")
    places.serve("plain", plain, vocabulary=None, recovery="ridge")
    # In the first round nobody has learned from the others yet, so it is the same search on the same tokens.
    assert mixed[0].record()["1"] == plain[0].record()["1"]
    assert mixed[0].manifest(1).weights_sha256 == plain[0].manifest(1).weights_sha256
    trained = places.join("trained", vocabulary=0)
    places.serve("trained", trained)
    assert trained[0].record() == plain[0].record()  # which tells of the cut
    # A round trains nothing.
    assert trained[0].manifest(1).weights_sha256 == plain[0].manifest(1).weights_sha256
    assert trained[0].manifest(2).weights_sha256 != plain[0].manifest(2).weights_sha256


def test_a_device_may_cut_what_its_fleet_does_not(places):
    devices = [*places.join("frugal", vocabulary=MOST)[:1], *places.join("lavish")[1:]]
    places.serve("frugal", devices, vocabulary=None, recovery="ridge")
    sizes = [device.loaded().manifest.config["vocab_size"] for device in devices]
    assert sizes[0] <= MOST
    assert sizes[1:] == [VOCABULARY] * 2
