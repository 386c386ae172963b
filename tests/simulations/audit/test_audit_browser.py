from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import artefacts, open_browser, requested, resize, screenshot
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from simulations.audit.tally import GROUPS
from simulations.report.audit.page import write_audit

KINDS = (
    "announce a reply",
    "look whether the server is there",
    "reply: shares of self masks",
    "error 1013: state_unwritable",
    "reply: list of records",
)
AUDIT = {
    "verdict": "clean",
    "messages": 50,
    "bytes": 50_000,
    "clients": ["hall"],
    "findings": [],
    "groups": [{"group": group, "bytes": 10_000} for group in GROUPS],
    "fields": [
        {"field": "metadata.reply_to_message_id", "meaning": "which message it answers", "messages": 50, "bytes": 900}
    ],
    "kinds": [
        {"kind": kind, "messages": 10, "bytes": 10_000, "groups": dict.fromkeys(GROUPS, 2_000)} for kind in KINDS
    ],
    "examples": [
        {
            "kind": kind,
            "client": "client 3",
            "fields": [{"field": "raw", "meaning": "", "start": 0, "bytes": 64, "value": "ab" * 64}],
        }
        for kind in KINDS
    ],
    "search": {},
    "inference": {
        "results": [
            {
                "attack": attack,
                "view": view,
                "attacker": "a network on features of the vector",
                "auc": 0.51,
                "low": 0.49,
                "high": 0.53,
                "trials": 6_400,
                "clients": 80,
            }
            for attack in ("membership", "classes", "linkage")
            for view in ("plain vector", "secure sum of 100", "secure sum of 10, noise of epsilon 4")
        ],
    },
}
# How far texts and bars reach beyond the two sides of the figure that they belong to, in CSS pixels.
BEYOND = """
const figure = document.getElementById('figure-' + arguments[0]).getBoundingClientRect();
const drawn = document.querySelectorAll(`#figure-${arguments[0]} :is(text, .point path, .point)`);
const boxes = [...drawn].map(one => one.getBoundingClientRect()).filter(box => box.width);
return [boxes.length, ...boxes.map(box => Math.max(figure.left - box.left, box.right - figure.right))];
"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with open_browser(tmp_path_factory.mktemp("chromium") / "profile") as browser:
        yield browser


@pytest.mark.parametrize(("width", "phone"), [(1280, False), (390, True)])
def test_the_page_and_what_its_figures_show_fit_the_screen(
    chromium: Chrome, tmp_path: Path, width: int, phone: bool
) -> None:
    file = tmp_path / "audit.html"
    write_audit(AUDIT, file)
    resize(chromium, width, 844, phone=phone)
    requested(chromium)
    chromium.get(file.as_uri())
    for details in chromium.find_elements(By.CSS_SELECTOR, "details summary"):
        details.click()
    assert chromium.execute_script("return document.documentElement.scrollWidth") <= width
    for number in range(2):
        boxes, *beyond = chromium.execute_script(BEYOND, number)
        assert boxes > 10
        assert max(beyond) <= 0, number
    picture = artefacts(tmp_path) / f"audit-{width}.png"
    screenshot(chromium, picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert chromium.get_log("browser") == []
    assert set(requested(chromium)) == {file.as_uri()}
