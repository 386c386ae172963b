"""What a process for a later message must not import, and that nothing comes out otherwise for it."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import make_tiny_vit
from flwr.app import Context, Message, MessageType, RecordDict
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as Encoded

from client.app import make_app
from personalization.model_files import skeleton
from personalization.sensing.prior import Prior
from personalization.wire.plan import Plan
from server.backbone import GenericBackbone

ROOT = Path(__file__).parents[2]
# Each takes a tenth of a second or more, and none is needed for a message.
STAYS_OUT = (
    "onnx",
    "onnxruntime",
    "pandas",
    "plotly",
    "ray",
    "scipy",
    "sklearn",
    "sympy",
    "torch._dynamo",
    "torch.distributed.tensor",
    "torchvision",
    "transformers",
)
ANSWER = """
import sys
from pathlib import Path
from flwr.proto.message_pb2 import Message as Encoded
from flwr.common.serde import message_from_proto
from flwr.app import Context, RecordDict
from flwr.supercore.task_identity import TaskIdentity
import client.app
TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 9
message = message_from_proto(Encoded.FromString(Path(sys.argv[1]).read_bytes()))
node = {"state-dir": sys.argv[2], "data-dir": sys.argv[3]}
reply = client.app.app(message, Context(1, 9, node, RecordDict(), {}))
assert not reply.has_error(), Path(sys.argv[2], "last_error.json").read_text()
print(reply.content["statistics"]["vector"].hex())
"""


def loaded_after(code: str, *arguments: Path) -> tuple[list[str], list[str]]:
    """Which of the modules are there after `code` has run in a process of its own, and the lines it printed."""
    report = f"\nimport json, sys\nprint(json.dumps([m for m in {STAYS_OUT!r} if m in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", code + report, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *lines, modules = done.stdout.splitlines()
    return json.loads(modules), lines


class Rounds:
    """Two messages of a run, and a device's images."""

    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (24, 8, 8), dtype=np.uint8)
        self.data = folder / "data.npz"
        np.savez(self.data, images=images)
        preprocessing = {"height": 8, "width": 8, "channels": 1, "mean": [0.5], "std": [0.5]}
        backbone = GenericBackbone(make_tiny_vit(), {"labels": ["a", "b", "c"], "preprocessing": preprocessing}, 2)
        nothing = np.zeros(backbone.layout.groups, dtype=bool)
        prior = Prior(np.ones(backbone.layout.atoms), np.ones(backbone.layout.atoms))
        self.messages = [
            Message(
                backbone.request(
                    Plan(version=version, prior=prior, dropped=nothing, probes=2, budget=0.5),
                    None if version == 1 else nothing,
                ),
                9,
                MessageType.TRAIN,
            )
            for version in (1, 2)
        ]

    def answers(self, state: Path) -> list[str]:
        """Answer both in this process, each with an app of its own; the statistics."""
        vectors = []
        for message in self.messages:
            node = {"state-dir": str(state), "data-dir": str(self.data)}
            received = message_from_proto(Encoded.FromString(message_to_proto(message).SerializeToString()))
            reply = make_app()(received, Context(1, 9, node, RecordDict(), {}))
            assert not reply.has_error(), (state / "last_error.json").read_text()
            vectors.append(reply.content["statistics"]["vector"].hex())
        return vectors


def files(folder: Path) -> dict[str, str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.fixture
def rounds(tmp_path: Path, task_identity: None) -> Rounds:
    return Rounds(tmp_path)


def test_the_app_is_loaded_without_what_takes_seconds():
    assert loaded_after("import client.app, client.work")[0] == []


def test_a_message_is_answered_without_what_takes_seconds(rounds, tmp_path):
    expected = rounds.answers(tmp_path / "here")
    state = tmp_path / "there"
    for number, message in enumerate(rounds.messages):
        path = tmp_path / f"{number}.message"
        path.write_bytes(message_to_proto(message).SerializeToString())
        modules, (vector,) = loaded_after(ANSWER, path, state, rounds.data)
        assert modules == []
        assert vector == expected[number]
    assert files(state) == files(tmp_path / "here")


def test_statistics_and_state_are_those_of_the_model_of_transformers(rounds, tmp_path, monkeypatch):
    own = rounds.answers(tmp_path / "own")
    monkeypatch.setattr(skeleton, "build_vision_transformer", lambda _config, _attention: None)
    assert rounds.answers(tmp_path / "theirs") == own
    assert files(tmp_path / "theirs") == files(tmp_path / "own")
    assert len(files(tmp_path / "own")) > 4
