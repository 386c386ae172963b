import time
from dataclasses import replace

import numpy as np
import pytest
from status_state import CLIENTS, ROUNDS, run_journal, serve_record

from deployment.status.metrics import metrics_text
from deployment.status.page import page
from deployment.status.snapshot import FEWEST_REPLIES, SHOWN_ROUNDS, STALE_SECONDS, make_snapshot
from deployment.status.sources import Reading
from personalization.wire.statistics import SCALARS, from_wire


def snapshot_of(journal=None, serve=None, *, now=None, **changes):
    now = now or time.time()
    return make_snapshot(
        Reading(serve if serve is not None else serve_record(), now),
        Reading(journal if journal is not None else run_journal(), now),
        now,
        **changes,
    )


def test_rounds_say_what_the_journal_says():
    journal = run_journal()
    snapshot = snapshot_of(journal)
    assert [record["plan_version"] for record in snapshot["rounds"]] == [1, 2, 3, 4]
    assert [record["final"] for record in snapshot["rounds"]] == [False] * ROUNDS + [True]
    assert [record["probes"] for record in snapshot["rounds"]] == [6, 6, 6, 0]
    for shown, kept in zip(snapshot["rounds"], [*journal["rounds"], journal["final"]], strict=True):
        assert (shown["asked"], shown["replied"], shown["seconds"]) == (CLIENTS, CLIENTS, kept["seconds"])
        assert (shown["bytes_up"], shown["bytes_down"]) == (kept["uplink_bytes"], kept["downlink_bytes"])
        assert shown["learned"] == ("fleet" in kept)
        for key in set(SCALARS) - {"entropy_increase"} if shown["learned"] else ():
            assert shown["means"][key] == kept["fleet"][key]
    scaled = journal["rounds"][0]["fleet"]["entropy_increase"]
    assert snapshot["rounds"][0]["means"]["entropy_increase"] == from_wire(np.array([scaled]))[0]
    assert snapshot["totals"]["bytes_up"] == sum(record["bytes_up"] for record in snapshot["rounds"])
    assert snapshot["totals"]["first_contacts"] == CLIENTS
    assert snapshot["plan_version"] == ROUNDS + 1


def test_the_passes_of_earlier_runs_stand_between_the_rounds_of_their_time():
    journal = run_journal()
    later = [{**journal["rounds"][0], "round": number} for number in (4, 5)]
    journal |= {"finals": [journal["final"]], "rounds": [*journal["rounds"], *later], "final": None}
    shown = snapshot_of(journal)["rounds"]
    assert [record["final"] for record in shown] == [False, False, False, True, False, False]
    assert [record["plan_version"] for record in shown] == [1, 2, 3, 4, 4, 5]


def test_only_the_last_rounds_are_shown_and_all_are_counted():
    journal = run_journal()
    journal["rounds"] = [{**journal["rounds"][0], "round": n + 1, "failures": {"no_reply": 1}} for n in range(200)]
    journal["final"] = None
    snapshot = snapshot_of(journal)
    assert [record["plan_version"] for record in snapshot["rounds"]] == list(range(201 - SHOWN_ROUNDS, 201))
    assert (snapshot["totals"]["rounds"], snapshot["totals"]["failures"]) == (200, {"no_reply": 200})
    assert "150 earlier rounds" in page(snapshot)


@pytest.mark.parametrize("replied", range(FEWEST_REPLIES + 1))
def test_means_of_too_few_replies_are_withheld(replied):
    journal = run_journal()
    last = journal["rounds"][-1]
    last["clients_replied"], last["fleet"] = replied, dict.fromkeys(SCALARS, 0.731234)
    snapshot = snapshot_of(journal)
    shown = replied >= FEWEST_REPLIES
    everything = page(snapshot) + metrics_text(snapshot).decode() + str(snapshot)
    assert ("731234" in everything) == ("73.1 %" in everything) == shown
    assert ("Withheld" in page(snapshot)) == (not shown)
    assert bool(snapshot["layers"]) == shown, "what a round added could be told from what was known before"
    assert (b"fedsieve_layer_dropped_share{" in metrics_text(snapshot)) == shown


def test_the_threshold_stands_on_the_page():
    assert "fewer than 3 replies are withheld" in page(snapshot_of())
    raised = snapshot_of(fewest_replies=CLIENTS + 1)
    assert f"fewer than {CLIENTS + 1} replies are withheld" in page(raised)
    assert all(record["means"] is None for record in raised["rounds"])


def test_a_missing_count_of_replies_withholds():
    journal = run_journal()
    for record in journal["rounds"]:
        del record["clients_replied"]
    assert all(record["means"] is None for record in snapshot_of(journal)["rounds"])


def test_serve_is_out_of_date_when_it_has_stopped_writing():
    record, now = serve_record(), time.time()
    fresh = snapshot_of(serve=record, now=now + 1)
    late = snapshot_of(serve=record, now=now + STALE_SECONDS + 5)
    assert not fresh["sources"]["serve"]["stale"]
    assert late["sources"]["serve"]["stale"]
    assert "last written" in page(late)
    assert "last written" not in page(fresh)
    assert fresh["revision"] != late["revision"]


def test_what_can_no_longer_be_read_is_shown_as_out_of_date():
    now = time.time()
    last = Reading(run_journal(), now - 600, "journal.json: damaged or half-written")
    snapshot = make_snapshot(Reading(serve_record(), now), last, now)
    assert snapshot["sources"]["journal"] == {"problem": last.problem, "age_seconds": 600.0, "stale": True}
    assert snapshot["rounds"]
    assert '<span data-age="journal">10 min</span> ago' in page(snapshot)
    gone = make_snapshot(Reading(serve_record(), now), replace(last, record=None, written=None), now)
    assert gone["rounds"] == []
    assert "nothing of it is shown" in page(gone)


def test_the_revision_changes_with_content_and_not_with_time():
    record, now = serve_record(), time.time()
    first = snapshot_of(serve=record, now=now)["revision"]
    assert snapshot_of(serve=record, now=now + 7)["revision"] == first
    assert snapshot_of(serve={**record, "phase": "idle"}, now=now)["revision"] != first


def test_layers_that_cannot_be_read_leave_the_rest():
    journal = run_journal()
    journal["knowledge"]["precision"] = "lost"
    snapshot = snapshot_of(journal)
    assert (snapshot["layers"], len(snapshot["rounds"])) == ([], ROUNDS + 1)
    assert "cannot be read" in page(snapshot)


def test_text_is_escaped():
    text = '<script>alert("x")</script>'
    record = serve_record(server=text, runs=[{"number": 1, "state": "failed", "reason": text}])
    assert text not in page(snapshot_of(serve=record))
    assert "&lt;script&gt;" in page(snapshot_of(serve=record))


JUNK = (None, True, -1, 1e308, "x", [], [1], {}, {"a": {"b": 1}}, [{"round": []}], 10**40)


@pytest.mark.parametrize("junk", JUNK, ids=repr)
def test_whatever_stands_in_a_field_there_is_a_page(junk):
    journal, serve = run_journal(), serve_record()
    cases = [({**journal, key: junk}, serve) for key in journal]
    cases += [({**journal, "rounds": [{**journal["rounds"][0], key: junk}]}, serve) for key in journal["rounds"][0]]
    cases += [({**journal, "knowledge": {**journal["knowledge"], key: junk}}, serve) for key in journal["knowledge"]]
    cases += [(journal, {**serve, key: junk}) for key in serve]
    cases += [(journal, {**serve, "runs": [{**serve["runs"][0], key: junk}]}) for key in serve["runs"][0]]
    cases += [(journal, {**serve, key: {"superlink": junk, "online": junk}}) for key in ("processes", "nodes")]
    cases += [(journal, {**serve, "processes": {"proxy": {"state": junk, "restarts": junk}}})]
    for changed_journal, changed_serve in cases:
        snapshot = snapshot_of(changed_journal, changed_serve)
        assert page(snapshot).endswith("</html>\n")
        assert metrics_text(snapshot).endswith(b"\n")
