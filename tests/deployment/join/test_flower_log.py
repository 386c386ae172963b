import pytest
from flwr.supercore.error import ApiErrorCode
from flwr.supercore.exit import ExitCode

from deployment.join.flower_log import MARK, LastWords, Said, Sign, plain, read_line


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("SuperNode ID: 12345", Said(Sign.CONNECTED, "12345")),
        ("Connection attempt failed, retrying in 1.25 seconds", Said(Sign.LOST, "1.25")),
        ("Connection successful after 4.50 seconds and 3 tries.", Said(Sign.RECONNECTED, "4.50")),
        ("Receiving: train message (ID: 77)", Said(Sign.RECEIVED, "train")),
        ("Sent successfully", Said(Sign.SENT, "Sent successfully")),
        ("Exit Code: 305", Said(Sign.EXIT_CODE, "305")),
        ("[code: 2004] Failed to activate SuperNode.", Said(Sign.SERVER_CODE, "2004")),
        ("Starting Flower SuperNode", None),
    ],
)
def test_lines_are_read(line, said):
    assert read_line(f"{MARK}{line}\n") == said
    assert read_line(f"\x1b[92mINFO \x1b[0m:      {line}\n") is None  # of a program that the SuperNode started


def test_colours_go():
    assert plain("\x1b[91mERROR \x1b[0m: x\n") == "ERROR : x"


def test_codes_are_flowers():
    assert ExitCode.SUPERNODE_CONNECTION_ERROR == LastWords.NOT_ADMITTED
    assert ExitCode.RUNTIME_VERSION_INCOMPATIBLE == LastWords.VERSION_MISMATCH
    assert int(ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED) == LastWords.ACTIVATION_FAILED


def test_a_refusal_is_more_than_a_failed_connection():
    failed = [Said(Sign.EXIT_CODE, "305")]
    assert not LastWords(failed).refused
    assert LastWords([*failed, Said(Sign.SERVER_CODE, "2004")]).refused
    assert not LastWords([Said(Sign.SERVER_CODE, "2004")]).refused
    assert LastWords([]).exit_code is None
