"""A device that keeps few tokens of a language model: who says how many, what it keeps, and what a restart costs."""

import numpy as np
import pytest
from flwr.app import Context, Message, MessageType, RecordDict
from tiny_text import VOCABULARY, write_language_model, write_speakers

from client.app import make_app
from client.model import load_model
from client.settings import needs_labels, own_config, read_settings
from client.state import ClientState
from client.vault.keys import create_key_file
from personalization.model_files.source_model import SourceModel
from personalization.pipeline import personalize
from personalization.prediction.continuation import Generation
from personalization.prediction.generation import predict_text
from personalization.sensing.prior import Prior
from personalization.system import extras
from personalization.wire.codes import ClientFailure
from personalization.wire.plan import Plan
from server.backbone import load_generic_backbone
from strategies.protocol import read_reply

RUN = {"windows": 10, "window-tokens": 16, "vocabulary": 280}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_language_model(tmp_path_factory.mktemp("model") / "model")


class Device:
    """A client app for a language model, with a state in a vault; what it is told and has kept is noted."""

    def __init__(self, model, folder, *, key: bool = True) -> None:
        self.backbone = load_generic_backbone(str(model), levels=2)
        self.told, self.measured, self.tokens = [], [], []
        self.text = write_speakers(folder / "text", speakers=1) / "speaker-0"
        self.node = {"state-dir": str(folder / "state"), "data-dir": str(self.text)}
        if key:
            create_key_file(folder / "key")
            self.node["vault-key-file"] = str(folder / "key")

    def context(self, **run) -> Context:
        return Context(1, 9, self.node, RecordDict(), {**RUN, **run})

    def state(self) -> ClientState:
        return ClientState.of(self.context())

    def personalize(self, model, inputs, *, past, final, prior, settings, **named):
        self.told.append((final, prior, settings))
        self.measured.append(0 if past is None else len(past.measurements))
        found = personalize(model, inputs, past=past, final=final, prior=prior, settings=settings, **named)
        self.tokens.append(found.model.config.vocab_size)
        return found

    def ask(self, version, *, everything=False, personalize=None, final=False, prior=None, **run) -> Message:
        """Ask a new app, as a SuperNode starts a new process for each message."""
        none = np.zeros(self.backbone.layout.groups, dtype=bool)
        plan = Plan(version=version, prior=prior, dropped=none, probes=2, budget=0.5)
        kind = MessageType.EVALUATE if final else MessageType.TRAIN
        message = Message(self.backbone.request(plan, None if everything else none), 9, kind)
        return make_app(personalize=personalize or self.personalize)(message, self.context(**run))

    def answer(self, version, **asked) -> bytes:
        reply = self.ask(version, **asked)
        assert not reply.has_error(), (self.state().folder / "last_error.json").read_text()
        assert len(read_reply(reply.content, self.backbone.layout, version)) == self.backbone.layout.size
        return reply.content["statistics"]["vector"]

    def predict(self):
        """What `fedsieve predict` finds in the state."""
        return predict_text(
            SourceModel.personal(load_model(self.state()), "state"),
            prompt="the river",
            files=[self.text / "1903.txt"],
            settings=Generation(tokens=5),
        )


@pytest.fixture
def device(model, tmp_path):
    return Device(model, tmp_path)


@pytest.mark.usefixtures("task_identity")
@pytest.mark.parametrize("key", [True, False])
def test_a_device_that_is_killed_speaks_with_the_tokens_of_its_last_model_and_goes_on(model, tmp_path, key):
    device = Device(model, tmp_path, key=key)
    device.answer(1, everything=True)
    before = device.predict()
    assert before["continuation"]
    assert load_model(device.state()).manifest.config["vocab_size"] == device.tokens[0] <= 280

    def killed(*arguments, **named):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        device.ask(2, personalize=killed)
    assert device.predict() == before
    again = device.answer(2)
    assert device.answer(2) == again
    assert device.predict()["scores"][0]["tokens"] == before["scores"][0]["tokens"]
    assert device.measured == [0, 2, 2]
    assert len(set(device.tokens)) == 1


@pytest.mark.usefixtures("task_identity")
def test_what_was_measured_serves_whatever_tokens_are_kept(device):
    device.answer(1, everything=True)
    device.node["vocabulary"] = 0
    device.answer(2)
    device.node["vocabulary"] = 270
    device.answer(3)
    del device.node["vocabulary"]
    device.answer(4, vocabulary=270, final=True, **{"tune-first": 3})
    assert device.measured == [0, 2, 4, 6]
    first, whole, *fewer = device.tokens
    assert whole == VOCABULARY > first > max(fewer)
    assert load_model(device.state()).manifest.config["vocab_size"] == fewer[-1] <= 270


@pytest.mark.usefixtures("task_identity")
def test_a_device_that_chooses_how_many_tokens_it_keeps_knows_what_its_fleet_does(device):
    known = Prior(*(np.full(device.backbone.layout.atoms, value) for value in (1.0, 2.0)))
    device.answer(1, everything=True, prior=known, **{"vocabulary": -1, "budget-kind": "bytes"})
    ((_, prior, settings),) = device.told
    assert (settings.vocabulary, settings.budget_kind, settings.budget) == (-1, "bytes", 0.5)
    np.testing.assert_allclose(prior.sensitivity, known.sensitivity, rtol=0.02)
    assert 257 <= device.tokens[0] <= VOCABULARY
    reply = device.ask(2, vocabulary=-1)
    assert reply.error.code == ClientFailure.DATA_UNUSABLE
    assert "use --budget-kind bytes" in (device.state().folder / "last_error.json").read_text()


@pytest.mark.usefixtures("task_identity")
def test_only_the_final_pass_tunes(device, monkeypatch):
    with monkeypatch.context() as rounds:
        rounds.setattr("personalization.final_model.tune_first", lambda *_: pytest.fail("tuned"))
        device.answer(1, everything=True, **{"tune-first": 3})
    device.answer(2, final=True, **{"tune-first": 3})
    assert [final for final, *_ in device.told] == [False, True]
    device.answer(3, final=True)
    assert [settings.tune_first for *_, settings in device.told] == [3, 3, 0]


@pytest.mark.usefixtures("task_identity")
def test_too_few_tokens_are_told_on_the_device_alone(device):
    reply = device.ask(1, everything=True, vocabulary=20)
    assert (reply.error.code, reply.error.reason) == (ClientFailure.DATA_UNUSABLE, "")
    assert "a vocabulary of 20 tokens: expected 257 or more" in (device.state().folder / "last_error.json").read_text()


@pytest.mark.usefixtures("task_identity")
def test_adapters_that_the_device_cannot_make_are_told_before_it_searches(device, monkeypatch):
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr("personalization.pipeline.device_trace", lambda *_: pytest.fail("searched"))
    asked = {"recovery": "distill", "adapters": 2}
    reply = device.ask(1, everything=True, personalize=personalize, **asked)
    assert reply.error.code == ClientFailure.DATA_UNUSABLE
    assert "pip install '.[adapters]'" in (device.state().folder / "last_error.json").read_text()


def test_what_a_device_says_of_itself_comes_before_the_run():
    run = {"recovery": "tune", "training-steps": 9, "adapters": 4, "training-precision": "bfloat16", "vocabulary": 280}
    plan = Plan(version=1, prior=None, dropped=np.zeros(1, dtype=bool), probes=2, budget=0.5)
    assert own_config(run, {}) == run
    own = {"training-steps": 0, "adapters": 0, "training-precision": "single", "vocabulary": 0, "budget": 0.3}
    assert own_config(run, own) == {"recovery": "tune", **{key: own[key] for key in own if key != "budget"}}

    def settings(own):
        return read_settings(run, own, plan, "hall", newcomer=False)

    assert (settings({}).training_steps, settings({}).adapters, settings({}).training_precision) == (9, 4, "bfloat16")
    assert settings({}).trains
    assert needs_labels(settings({}))
    quiet = settings(own)
    assert (settings({}).vocabulary, quiet.vocabulary) == (280, 0)
    assert (quiet.training_steps, quiet.adapters, quiet.training_precision) == (0, 0, "single")
    assert not quiet.trains
    assert not needs_labels(quiet)
    assert needs_labels(settings({**own, "tune-first": 1}))
