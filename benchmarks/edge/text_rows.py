"""What came out of text: every device's personal model, on texts that are later than those that it was made from."""

from collections.abc import Sequence

from benchmarks.edge.commands import Commands, EdgeError
from benchmarks.edge.device import Device
from benchmarks.edge.figures import Row, device_rows, state_row
from benchmarks.edge.settings import EdgeSettings
from client.data import InputFacts
from personalization.model_files.backbone import Backbone
from simulations.speakers import make_speaker_data
from simulations.text_evaluation import TextEvaluator

_PROMPT = "Fellow citizens,"
_SHOWN = ("dense_perplexity", "personal_perplexity", "perplexity_ratio", "test_tokens")


def text_rows(devices: Sequence[Device], settings: EdgeSettings, backbone: Backbone, commands: Commands) -> list[Row]:
    """Return for each device what its state holds, how it speaks, and its perplexities as the simulator judges them.

    Raises EdgeError if a command fails, or says nothing.
    """
    rows = device_rows(devices, lambda device: _spoken(device, commands), commands)
    facts = InputFacts(backbone.preprocessing, backbone.labels)
    speakers = make_speaker_data({"data": str(settings.data), **settings.text}, len(devices), facts)
    judge = TextEvaluator(backbone, speakers, latency=False)
    found = []
    for number, (device, spoken) in enumerate(zip(devices, rows, strict=True)):
        row, loaded = state_row(device)
        judged = judge.loaded_row(number, loaded)
        found.append({**row, **spoken, **{key: judged[key] for key in _SHOWN}})
    return found


def _spoken(device: Device, commands: Commands) -> Row:
    """Return how a device's own model goes on from a prompt; it also has to score the later texts."""
    asked = ("predict", device.state, *device.tests, "--prompt", _PROMPT, "--tokens", 20)
    said = commands.ask(*asked, environment=device.environment)
    if len(said["scores"]) != len(device.tests) or not said["continuation"]:
        raise EdgeError(f"{device.name}: fedsieve predict said too little")
    return {"prompt": _PROMPT, "continuation": said["continuation"]}
