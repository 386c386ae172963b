"""Data that turn out to be of no use for a plan: the end of a join, unless they were of use before."""

import json
import os
import signal

import pytest
from joining import node_file
from tiny_text import write_speakers

from client.state import ClientState
from deployment.join import run
from deployment.join.backoff import Backoff
from deployment.join.connection import Answer
from deployment.join.flower_log import LastWords, Said, Sign
from deployment.join.report import Reporter
from deployment.join.settings import JoinSettings
from deployment.join.vault_choice import VaultChoice
from personalization.errors import UserError

WORDS = "/data: too little text"


class Node:
    """Stands in for a SuperNode whose client answers plans, in the order of `answers`."""

    answers: tuple[str, ...] = ()

    def __init__(self, settings, tell):
        self.state, self.tell, self.left = ClientState(settings.state), tell, list(self.answers)
        self.busy = False

    def poll(self):
        if not self.left:
            os.kill(os.getpid(), signal.SIGTERM)
        elif self.busy:
            self.tell(Said(Sign.SENT))
            self.left.pop(0)
        else:
            self.tell(Said(Sign.RECEIVED))
            self.work(self.left[0])
        self.busy = not self.busy

    def work(self, answer):
        if answer == "useful":
            self.state.add_record(1, {"samples": 16})
        else:
            self.state.write_error(json.dumps({"code": answer, "message": WORDS}).encode())

    def stop(self):
        return 0

    def last_words(self):
        return LastWords([])


def join(tmp_path, monkeypatch, capsys, *answers) -> tuple[list[str], str]:
    """Events that were told until the end, and the error that ended it."""
    monkeypatch.setattr(run, "SuperNode", type("Told", (Node,), {"answers": answers}))
    monkeypatch.setattr(run, "ask_server", lambda node: Answer(flower=run.own_flower(), clock_ahead=0.0))
    data = write_speakers(tmp_path / "text", speakers=1) / "speaker-0"
    settings = JoinSettings(node_file=node_file(tmp_path), data=data, vault=VaultChoice(source="none"))
    home, error = {"HOME": str(tmp_path / "home")}, ""
    try:
        run.join(settings, Reporter(as_json=True), environment=home, backoff=Backoff())
    except UserError as raised:
        error = str(raised)
    return [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()], error


def test_a_device_whose_data_answer_no_plan_tells_the_server_and_ends_with_the_reason(tmp_path, monkeypatch, capsys):
    events, error = join(tmp_path, monkeypatch, capsys, "data_unusable", "useful")
    assert f"data_unusable: {WORDS}" in error
    assert events[-3:] == ["received", "failed", "sent"]


@pytest.mark.parametrize("answers", [("useful", "data_unusable"), ("plan_outdated",)])
def test_a_device_that_may_answer_the_next_plan_goes_on(tmp_path, monkeypatch, capsys, answers):
    events, error = join(tmp_path, monkeypatch, capsys, *answers)
    assert error == ""
    assert "failed" in events
    assert events[-2:] == ["sent", "ended"]
