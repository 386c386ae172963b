"""The tests that the documentation names exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_NAMED = re.compile(r"`(tests/[\w/]+\.py)?(?:::(test_\w+))?`")


def named_tests(text: str) -> list[tuple[str, str]]:
    """File and function of each test that is named; a function alone is in the file named last."""
    found, file = [], ""
    for path, function in _NAMED.findall(text):
        file = path or file
        found += [(file, function)] if path or function else []
    return found


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_every_test_that_a_page_names_exists(page):
    for file, function in named_tests(page.read_text()):
        source = ROOT / file
        assert source.is_file(), file
        assert not function or f"def {function}(" in source.read_text(), f"{file}::{function}"


def test_privacy_names_the_function_that_shows_each_line():
    named = named_tests((ROOT / "docs" / "privacy.md").read_text())
    assert len([function for _, function in named if function]) > 20


def test_a_function_alone_is_in_the_file_named_last():
    text = "`tests/a.py::test_one`, `::test_two` and `tests/b.py`, `code`"
    assert named_tests(text) == [("tests/a.py", "test_one"), ("tests/a.py", "test_two"), ("tests/b.py", "")]
