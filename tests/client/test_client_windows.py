"""The windows of a device's text: what makes them anew, and what a device that was restarted takes from its vault."""

import numpy as np
import pytest
import torch
from conftest import fake_personalize
from flwr.app import Context, Message, MessageType, RecordDict
from tiny_text import write_language_model, write_speakers

from client import windows
from client.app import make_app
from client.data import InputFacts, load_private_data, text_batch
from client.entries import WINDOWS
from client.settings import read_settings
from client.state import ClientState
from client.vault.keys import create_key_file
from client.windows import private_windows
from personalization.data.tasks import PrivateSamples, TextBatch, load_windows
from personalization.errors import UserError
from personalization.model_files.backbone import load_backbone
from personalization.wire.codes import ClientFailure
from personalization.wire.plan import Plan
from server.backbone import load_generic_backbone

BATCH = TextBatch(windows=10, tokens=16)
RUN = {"windows": 10, "window-tokens": 16}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_language_model(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="module")
def preprocessing(model):
    return load_backbone(str(model)).preprocessing


@pytest.fixture
def text(tmp_path):
    return write_speakers(tmp_path / "text", speakers=1) / "speaker-0"


@pytest.fixture
def config(tmp_path, text):
    create_key_file(tmp_path / "key")
    own = {"state-dir": str(tmp_path / "state"), "data-dir": str(text), "vault-key-file": str(tmp_path / "key")}
    return {**own, **RUN}


def state_of(config) -> ClientState:
    return ClientState.of(Context(1, 9, config, RecordDict(), {}))


@pytest.fixture
def tokenized(monkeypatch):
    """How often text became windows."""
    calls = []

    def noted(*arguments):
        calls.append(arguments)
        return load_windows(*arguments)

    monkeypatch.setattr(windows, "load_windows", noted)
    return calls


def test_the_same_text_is_tokenized_once_and_what_changes_it_makes_windows_anew(config, text, preprocessing, tokenized):
    def take(length=16):
        found = private_windows(text, preprocessing, length, state_of(config))
        np.testing.assert_array_equal(found, load_windows(text, preprocessing, length))
        return len(tokenized)

    assert [take(), take()] == [1, 1]
    assert take(8) == 2
    (text / "1904.txt").write_text("gold " * 400)
    assert [take(), take()] == [3, 3]
    (text / "1900.txt").unlink()  # what was taken out of the folder is in no window any more
    assert take() == 4
    (text / "1901.txt").write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"1901\.txt: not UTF-8"):
        take()


def test_windows_that_were_damaged_are_made_again(config, text, preprocessing, tokenized, caplog):
    first = private_windows(text, preprocessing, 16, state_of(config))
    state = state_of(config)
    state.write(WINDOWS, state.read(WINDOWS)[:-40])
    np.testing.assert_array_equal(private_windows(text, preprocessing, 16, state_of(config)), first)
    assert len(tokenized) == 2
    assert "windows are made again" in caplog.text


def test_without_a_key_no_copy_of_the_text_is_kept(tmp_path, text, preprocessing, tokenized):
    state = ClientState(tmp_path / "plain")
    for _ in range(2):
        private_windows(text, preprocessing, 16, state)
    assert len(tokenized) == 2
    assert list(state.folder.iterdir()) == []


def test_no_token_lies_in_the_open(config, text, preprocessing):
    found = private_windows(text, preprocessing, 16, state_of(config))
    state = state_of(config)
    assert state.vault.names() == [WINDOWS]
    for path in state.folder.rglob("*"):
        if path.is_file():
            assert found[0].tobytes()[:64] not in path.read_bytes()


class Device:
    """A client app for a language model in a vault, killed where it is told to be."""

    def __init__(self, model, config) -> None:
        self.backbone, self.config = load_generic_backbone(str(model), levels=2), config

    def ask(self, version, *, everything=False, personalize=fake_personalize) -> Message:
        none = np.zeros(self.backbone.layout.groups, dtype=bool)
        plan = Plan(version=version, prior=None, dropped=none, probes=2, budget=0.5)
        message = Message(self.backbone.request(plan, None if everything else none), 9, MessageType.TRAIN)
        return make_app(personalize=personalize)(message, Context(1, 9, self.config, RecordDict(), {}))


@pytest.mark.usefixtures("task_identity")
def test_a_device_that_was_restarted_in_the_middle_takes_its_windows_from_the_vault(model, config, tokenized):
    device, seen = Device(model, config), []

    def killed(model, inputs, **named):
        seen.append(inputs["input_ids"])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        device.ask(1, everything=True, personalize=killed)

    def noting(model, inputs, **named):
        seen.append(inputs["input_ids"])
        return fake_personalize(model, inputs, **named)

    for version in (1, 2):  # a new app each time, as a SuperNode starts a new process for each message
        assert not device.ask(version, personalize=noting).has_error()
    assert len(tokenized) == 1
    assert all(torch.equal(seen[0], inputs) for inputs in seen[1:])
    samples = PrivateSamples({"input_ids": seen[0]}, None)
    kept = state_of(config).load_samples(3, device.backbone.layout.atoms, data=samples.fingerprint())
    assert len(kept.measurements) == 4  # of both plans: the windows that they were measured on are the same


@pytest.mark.usefixtures("task_identity")
@pytest.mark.parametrize(("spoil", "words"), [("little", "too little text"), ("image", "images, but the model reads")])
def test_what_is_wrong_with_the_data_stays_on_the_device(model, config, text, spoil, words):
    for file in text.iterdir():
        file.unlink()
    (text / ("1.txt" if spoil == "little" else "1.png")).write_text("gold")
    reply = Device(model, config).ask(1, everything=True)
    assert (reply.error.code, reply.error.reason) == (ClientFailure.DATA_UNUSABLE, "")
    assert words in (state_of(config).folder / "last_error.json").read_text()


def test_a_device_says_itself_how_much_text_it_takes_and_how_it_recovers():
    assert text_batch({}) == TextBatch()
    assert text_batch(RUN) == BATCH
    assert text_batch(RUN, {"windows": 12}) == TextBatch(windows=12, tokens=16)
    plan = Plan(version=1, prior=None, dropped=np.zeros(1, dtype=bool), probes=2, budget=0.5)

    def recovery(run, own):
        return read_settings(run, own, plan, "hall", newcomer=False).recovery

    assert recovery({"recovery": "fold"}, {}) == "fold"
    assert recovery({"recovery": "fold"}, {"recovery": "distill"}) == "distill"


def test_without_a_state_text_is_read_as_it_is(text, preprocessing):
    own = load_private_data({"data-dir": str(text)}, RUN, InputFacts(preprocessing, ()))
    assert own.inputs["input_ids"].shape == (10, 16)
    assert torch.equal(own.labels[:, :-1], own.inputs["input_ids"][:, 1:])
