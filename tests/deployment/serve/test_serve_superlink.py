"""Flower's SuperLink, patient with its database: where a Flower upgrade puts the setting elsewhere, this fails."""

import sqlite3

from flwr.supercore import sql_mixin

from deployment.serve.superlink import PATIENCE_MILLISECONDS, main, patient


def test_a_connection_waits_for_who_writes_and_is_else_as_flower_wants_it(tmp_path, monkeypatch):
    own = dict(sql_mixin.SQLITE_PRAGMAS)
    started = []
    monkeypatch.setattr(sql_mixin, "SQLITE_PRAGMAS", sql_mixin.SQLITE_PRAGMAS)
    monkeypatch.setattr("sys.argv", ["superlink"])
    monkeypatch.setattr("flwr.superlink.cli.flower_superlink", lambda: started.append(True))
    main()
    assert started
    assert {**own, "busy_timeout": str(PATIENCE_MILLISECONDS)} == dict(sql_mixin.SQLITE_PRAGMAS)
    connection = sqlite3.connect(tmp_path / "state.db")
    sql_mixin._set_sqlite_pragmas(connection, None)
    assert connection.execute("PRAGMA busy_timeout").fetchone() == (PATIENCE_MILLISECONDS,)
    connection.close()
    assert patient([("a", "b")]) == (("a", "b"),)
