"""What the look at the server says, on real TLS sockets."""

import socket
from datetime import timedelta
from email.utils import format_datetime

import pytest
from joining import OTHER_KEY, any_node, plain_server, tls_server

from deployment.certificates import utc_now
from deployment.join.connection import Answer, Unreachable, ask_server, own_flower
from personalization.errors import UserError


def answer(*, ahead: float = 0, flower: str | None = None) -> bytes:
    date = format_datetime(utc_now() - timedelta(seconds=ahead), usegmt=True)
    lines = ["HTTP/1.1 404 Not Found", f"Date: {date}", "Content-Length: 0"]
    lines += [] if flower is None else [f"X-Fedsieve-Flower: {flower}"]
    return "\r\n".join([*lines, "", ""]).encode()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_server_of_the_fleet_answers(tmp_path, host):
    with tls_server(tmp_path, lambda: answer(flower="1.41.7")) as port:
        found = ask_server(any_node(tmp_path, port, host=host))
    assert isinstance(found, Answer)
    assert found.flower == "1.41.7"
    assert found.clock_line() is None


@pytest.mark.parametrize(
    ("served", "words"),
    [
        ({"days": -1, "made": timedelta(days=-10)}, ["valid from", "--renew server"]),
        ({"made": timedelta(days=10)}, ["valid from", "set the clock"]),
        ({"names": ["edge.example.org"]}, ["localhost", "not a name of this server", "edge.example.org"]),
        ({"signed_by": OTHER_KEY}, ["another authority"]),
        ({"signed_by": OTHER_KEY, "names": ["edge.example.org"], "days": -1}, ["another authority"]),
    ],
)
def test_what_is_wrong_with_a_certificate_is_told(tmp_path, served, words):
    with tls_server(tmp_path, answer, **served) as port, pytest.raises(UserError) as caught:
        ask_server(any_node(tmp_path, port))
    for word in [f"localhost:{port}", *words]:
        assert word in str(caught.value)


def test_an_authority_that_ran_out_is_told_without_a_connection(tmp_path):
    node = any_node(tmp_path, 9, authority_now=utc_now() - timedelta(days=3700))
    with pytest.raises(UserError, match=r"the authority's certificate .* carry the node file again"):
        ask_server(node)


def test_who_does_not_speak_tls_is_no_server(tmp_path):
    with plain_server(lambda connection: connection.sendall(b"220 mail.example.org ESMTP\r\n")) as port:
        node = any_node(tmp_path, port)
        with pytest.raises(UserError, match="does not speak TLS"):
            ask_server(node)


def test_a_server_that_cannot_be_reached_is_no_error(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        found = ask_server(any_node(tmp_path, taken.getsockname()[1]))
    assert isinstance(found, Unreachable)
    assert "refused" in found.reason
    with plain_server(lambda connection: None) as port:
        assert isinstance(ask_server(any_node(tmp_path, port)), Unreachable)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        found = ask_server(any_node(tmp_path, silent.getsockname()[1]), timeout=0.2)
    assert isinstance(found, Unreachable)


@pytest.mark.parametrize(
    ("ahead", "words"), [(600, "s ahead of"), (-600, "behind"), (10, "ahead of"), (-200, None), (0, None)]
)
def test_clocks_that_are_too_far_apart_are_told(tmp_path, ahead, words):
    with tls_server(tmp_path, lambda: answer(ahead=ahead)) as port:
        found = ask_server(any_node(tmp_path, port))
    assert isinstance(found, Answer)
    assert found.clock_ahead == pytest.approx(ahead, abs=3)
    line = found.clock_line()
    assert (line is None) == (words is None)
    assert words is None or words in (line or "")


def test_flower_may_differ_in_its_last_number_only():
    own = own_flower()
    major, minor = own.split(".")[:2]
    Answer(clock_ahead=None, flower=f"{major}.{minor}.99").check_flower(own)
    Answer(clock_ahead=None, flower=None).check_flower(own)
    for other in (f"{major}.{int(minor) + 1}.0", "0.9.0", "nonsense"):
        with pytest.raises(UserError, match=f"{own}.*{other}"):
            Answer(clock_ahead=None, flower=other).check_flower(own)
