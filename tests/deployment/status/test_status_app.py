import json
import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from status_state import CLIENTS, ROUNDS, make_state, run_journal, serve_record, write_journal, write_serve

from deployment.status.app import host_name, is_loopback, make_app

ADDRESSES = ("/", "/status.json", "/metrics", "/healthz")
ROOT = Path(__file__).parents[3]


def client_of(state, **settings):
    return TestClient(make_app(state, **settings), base_url="http://127.0.0.1:8081")


@pytest.fixture
def state(tmp_path):
    return make_state(tmp_path)


def samples(client):
    families = list(text_string_to_metric_families(client.get("/metrics").text))
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value for family in families for sample in family.samples
    }


def test_the_metrics_say_what_the_page_says(state):
    client = client_of(state)
    status, found = client.get("/status.json").json(), samples(client)
    for key, value in status["nodes"].items():
        assert found["fedsieve_nodes", key] == value
    assert [found["fedsieve_phase", phase] for phase in ("idle", "running")] == [0, 1]
    assert found["fedsieve_process_up", "superlink"] == 1
    assert found["fedsieve_process_up", "proxy"] == 0
    assert found["fedsieve_process_restarts_total", "proxy"] == 3
    assert [found["fedsieve_recent_runs", one] for one in ("running", "completed", "failed", "stopped")] == [1, 1, 1, 0]
    last = status["rounds"][-1]
    assert found["fedsieve_round_clients_replied",] == last["replied"] == CLIENTS
    assert found["fedsieve_round_bytes", "up"] == last["bytes_up"]
    assert found["fedsieve_run_bytes", "down"] == status["totals"]["bytes_down"]
    assert found["fedsieve_run_rounds",] == ROUNDS + 1
    for key, value in status["rounds"][ROUNDS - 1]["means"].items():
        assert found["fedsieve_fleet_mean", key] == pytest.approx(value)
    for layer in status["layers"]:
        assert found["fedsieve_layer_dropped_share", str(layer["block"]), layer["kind"]] == layer["dropped_share"]
    assert found["fedsieve_source_readable", "journal"] == found["fedsieve_source_readable", "serve"] == 1


def test_failures_are_counted_by_code(state):
    journal = run_journal()
    journal["rounds"][0]["failures"] = {"no_reply": 2}
    journal["rounds"][1]["failures"] = {"no_reply": 1, "data_unusable": 4, "flower_7": 1}
    write_journal(state, journal)
    client = client_of(state)
    found = samples(client)
    assert [found["fedsieve_run_failures", code] for code in ("no_reply", "data_unusable", "flower_7")] == [3, 4, 1]
    assert "data_unusable" in client.get("/").text


def test_every_metric_has_help_and_type_and_stands_in_the_guide(state, tmp_path):
    guide = (ROOT / "docs" / "status.md").read_text()
    for folder in (state, tmp_path / "empty"):
        text = client_of(folder).get("/metrics").text
        families = list(text_string_to_metric_families(text))
        for kind in ("HELP", "TYPE"):
            named = re.findall(rf"^# {kind} (\S+)", text, re.MULTILINE)
            assert [one.removesuffix("_total") for one in named] == [family.name for family in families]
        for family in families:
            assert family.name.startswith("fedsieve_")
            assert family.documentation
            assert family.type in ("gauge", "counter")
            assert f"`{family.name}" in guide
    assert set(re.findall(r"`(fedsieve_\w+?)(?:_total)?[`{]", guide)) == {family.name for family in families}


MARKERS = ("6661237771231234567", "5c71a3b4d5e6f708", "marker-node", 424242, 0.87654321)


def test_nothing_of_a_single_client_reaches_any_answer(state):
    number, key, name, group, value = MARKERS
    journal = run_journal()
    journal["nodes"] = {number: [1, 2, 3], key: []}
    journal["placed"] = {number: group}
    journal["groups"] = {str(group): journal["knowledge"]}
    journal["strategy"] = {name: [value]}
    journal["settings"].update({"model": name, name: value})
    for record in [*journal["rounds"], journal["final"]]:
        record.update(
            {
                "nodes": {number: value},
                "clients": [number, name],
                "not_learned": f"sum of {number} ({key})",
                name: value,
            }
        )
        record["failures"] = {"no_reply": 1, number: 1, key: 1, f"n{number}": 1}
    journal["rounds"][0]["fleet"] = {**journal["rounds"][0]["fleet"], number: value}
    write_journal(state, journal)
    serve = serve_record(settings={"node": name}, online_nodes=[number, name])
    serve["nodes"].update({"ids": [number], number: 1, name: {"last_seen": value}})
    serve["runs"].append(
        {"number": 4, "run_id": number, "state": "failed", "reason": f"node {number} ({key}) was lost", "node": name}
    )
    serve["processes"].update({f"node-{number}": {"state": "up", "restarts": 0}, key: {"state": "up"}})
    write_serve(state, serve)
    client = client_of(state)
    for address in ADDRESSES:
        answer = client.get(address)
        assert answer.status_code == 200
        everything = answer.text + str(answer.headers)
        for marker in MARKERS:
            assert str(marker) not in everything, (address, marker)
    assert "was lost" in client.get("/").text, "the marker was in what is shown"


@pytest.mark.parametrize("content", [None, "", "{", "[]", "null", '{"rounds": 3, "nodes": [], "runs": {}}', "\0"])
@pytest.mark.parametrize("file", ["serve.json", "run/journal.json"])
def test_a_damaged_file_is_named_and_the_other_one_is_shown(state, file, content):
    fresh = client_of(state)
    if content is None:
        (state / file).unlink()
    else:
        (state / file).write_text(content)
    for address in ADDRESSES:
        assert fresh.get(address).status_code == 200
    status = fresh.get("/status.json").json()
    source, other = ("serve", "journal") if file == "serve.json" else ("journal", "serve")
    whole = content is not None and content.startswith('{"')
    assert (status["sources"][source]["problem"] is None) == whole
    assert ("cannot be read" in fresh.get("/").text) == (not whole)
    assert status["sources"][other]["problem"] is None
    assert bool(status["rounds"]) == (file == "serve.json")
    assert (status["phase"] == "running") == (file == "run/journal.json")


def test_a_file_damaged_in_passing_leaves_what_was_read(state):
    client = client_of(state)
    before = client.get("/status.json").json()
    journal = state / "run" / "journal.json"
    journal.write_text(journal.read_text()[:1000])
    after = client.get("/status.json").json()
    assert after["rounds"] == before["rounds"]
    assert (before["sources"]["journal"]["stale"], after["sources"]["journal"]["stale"]) == (False, True)
    assert samples(client)["fedsieve_source_stale", "journal"] == 1
    assert "What is shown of it was written" in client.get("/").text


def test_an_empty_or_missing_folder_is_a_page_that_says_so(tmp_path):
    client = client_of(tmp_path / "not-there")
    assert client.get("/").text.count("nothing of it is shown") == 2
    assert samples(client)["fedsieve_source_readable", "serve"] == 0
    assert client.get("/healthz").text == "ok\n"


def test_nothing_can_be_changed(state):
    def content():
        return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in state.rglob("*") if path.is_file()}

    before, client = content(), client_of(state)
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        for address in ADDRESSES:
            assert client.request(method, address, content=b"{}").status_code == 405
    for address in ("/docs", "/openapi.json", "/redoc", "/serve.json", "/run/journal.json", "/..%2fserve.json"):
        assert client.get(address).status_code == 404
    for address in ADDRESSES:
        head = client.head(address)
        assert (head.status_code, head.content) == (200, b"")
    assert content() == before


def test_every_answer_is_guarded(state):
    client = client_of(state)
    for answer in (*(client.get(address) for address in ADDRESSES), client.get("/none"), client.post("/")):
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
    assert client.get("/metrics").headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"


def test_the_page_needs_nothing_from_elsewhere(state):
    text = client_of(state).get("/").text
    assert not re.findall(r"https?://", text)
    assert set(re.findall(r'(?:src|href)="([^"]*)"', text)) == {"data:,", "/status.json", "/metrics"}
    assert not re.findall(r"\son\w+=|\sstyle=", text), "the policy would refuse them"


@pytest.mark.parametrize(
    ("host", "answered"),
    [
        ("127.0.0.1:8081", True),
        ("127.0.0.1", True),
        ("localhost:9", True),
        ("LOCALHOST", True),
        ("[::1]:8081", True),
        ("evil.example", False),
        ("localhost.evil.example:8081", False),
        ("127.0.0.1.evil.example", False),
        ("10.0.0.1:8081", False),
        ("[::2]", False),
        ("", False),
    ],
)
def test_on_loopback_only_loopback_names_are_answered(state, host, answered):
    for address in ADDRESSES:
        answer = client_of(state).get(address, headers={"Host": host})
        assert answer.status_code == (200 if answered else 421)
        assert (str(CLIENTS) in answer.text) <= answered or address == "/healthz"
    assert client_of(state, host="0.0.0.0").get("/", headers={"Host": host}).status_code == 200


def test_host_headers_are_taken_apart():
    assert [host_name(one) for one in ("a:1", "a", "[::1]:2", "[::1]", "")] == ["a", "a", "::1", "::1", ""]
    assert is_loopback("127.9.9.9")
    assert not is_loopback("0.0.0.0")


def test_the_json_is_strict(state):
    def refuse(constant):
        raise AssertionError(constant)

    json.loads(client_of(state).get("/status.json").text, parse_constant=refuse)
