import io
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks are not installed

from rich.console import Console

from benchmarks.kept_results import kept, map_and_keep


def slept(seconds):
    if seconds < 0:
        raise ValueError("less than nothing")
    time.sleep(seconds)
    return seconds


def test_results_are_kept_as_they_come_and_returned_in_the_order_of_their_tasks(tmp_path):
    path, console = tmp_path / "out.jsonl", Console(file=io.StringIO())
    assert kept(path) == []
    with ProcessPoolExecutor(2) as pool:
        assert map_and_keep(pool, slept, [2.0, 0.0, 0.1], path, console) == [2.0, 0.0, 0.1]
        assert map_and_keep(pool, slept, [], tmp_path / "nothing.jsonl", console) == []
    assert kept(path) == [0.0, 0.1, 2.0]
    assert console.file.getvalue().splitlines() == ["out: 1 of 3", "out: 2 of 3", "out: 3 of 3"]
    assert not (tmp_path / "nothing.jsonl").exists()


def noted(folder, seconds):
    folder.joinpath(f"{time.monotonic_ns()}").touch()
    return slept(seconds)


def test_what_was_there_before_a_failure_is_kept_and_what_waits_is_not_begun(tmp_path):
    path, begun = tmp_path / "out.jsonl", tmp_path / "begun"
    begun.mkdir()
    tasks = [0.0, -1.0, *[0.2] * 20]
    with ProcessPoolExecutor(1) as pool, pytest.raises(ValueError, match="less than nothing"):
        map_and_keep(pool, partial(noted, begun), tasks, path, Console(file=io.StringIO()))
    assert kept(path) == [0.0]
    # A worker may have been handed a few already.
    assert len(list(begun.iterdir())) < len(tasks) - 10
