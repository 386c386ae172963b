from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import artefacts, open_browser, requested, resize, screenshot
from comparison_summary import ARMS, STRATEGIES, make_summary
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.ui import WebDriverWait

from simulations.report.comparison.metrics import format_estimate, format_value, method_label
from simulations.report.comparison.page import write_comparison

METHODS = STRATEGIES + ARMS
SUMMARY = make_summary(sweep={"budget": [0.2, 0.4], "attack.kind": ["none", "random", "mimic"]})
# The methods that a figure shows: those of its traces, or the lines of its one heat map, without their line breaks.
SHOWN = """
const traces = document.getElementById('figure-' + arguments[0]).data;
return traces[0]?.type === 'heatmap' ? traces[0].y.map(name => name.replace(/<br>/g, ''))
  : [...new Set(traces.filter(trace => trace.meta).map(trace => trace.meta.method))];
"""
# The middle of a figure's mark that belongs to a method, after it has been brought into view.
MIDDLE = """
const [number, method] = arguments, division = document.getElementById('figure-' + number);
const trace = division._fullData.find(one => one.meta?.method === method && one.marker?.size === 11);
const mark = division.querySelector(`.trace${trace.uid} .point`);
mark.scrollIntoView({block: 'center'});
const box = mark.getBoundingClientRect();
return [Math.round(box.x + box.width / 2), Math.round(box.y + box.height / 2)];
"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with open_browser(tmp_path_factory.mktemp("chromium") / "profile") as browser:
        yield browser


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("page") / "report.html"
    write_comparison(SUMMARY, file)
    return file.as_uri()


@pytest.fixture
def page(chromium: Chrome, address: str) -> Iterator[Chrome]:
    """The page, newly opened at the width of a desk; whatever a test does to it, it must not complain."""
    resize(chromium, 1280, 900)
    chromium.get("about:blank")
    requested(chromium)
    chromium.get_log("browser")
    chromium.get(address)
    yield chromium
    assert chromium.get_log("browser") == []
    assert set(requested(chromium)) == {address}


def figure_count(page: Chrome) -> int:
    return len(page.find_elements(By.CSS_SELECTOR, "[id^='figure-']"))


def heading_of(page: Chrome, number: int) -> str:
    return str(
        page.execute_script(
            "return document.getElementById('figure-' + arguments[0]).closest('section').querySelector('h2').innerText",
            number,
        )
    )


def visible_rows(page: Chrome) -> list[str]:
    rows = page.find_elements(By.CSS_SELECTOR, "table.wide tbody tr")
    return [row.text for row in rows if row.is_displayed()]


def tick(page: Chrome, method: str) -> None:
    page.find_element(By.CSS_SELECTOR, f"#filter input[value='{method}']").click()


def keep_screenshot(page: Chrome, name: str) -> None:
    file = artefacts(Path(page.capabilities["chrome"]["userDataDir"]).parent) / name
    screenshot(page, file)
    assert file.read_bytes().startswith(b"\x89PNG")


def test_all_figures_are_drawn(page: Chrome) -> None:
    headings = [heading_of(page, number) for number in range(figure_count(page))]
    assert headings == [
        "Accuracy",
        "Difference from the first",
        "Accuracy over budget",
        "Accuracy, worst tenth over budget",
        "Accuracy by attack.kind",
        "Accuracy against size",
        "Accuracy against bytes up",
        "Evaluations",
        "Rounds to target",
        "Time",
        "Which layers are personal",
    ]
    for number in range(len(headings)):
        assert page.find_elements(By.CSS_SELECTOR, f"#figure-{number} .point, #figure-{number} .hm image"), number
    assert len(visible_rows(page)) == len(METHODS)
    keep_screenshot(page, "comparison-1280.png")


def test_the_pointer_shows_the_interval(page: Chrome) -> None:
    row = next(row for row in SUMMARY["rows"] if (row["point"], row["method"]) == (0, "median"))
    assert not page.find_elements(By.CSS_SELECTOR, ".hovertext")
    x, y = page.execute_script(MIDDLE, 0, "median")
    actions = ActionChains(page, duration=0)
    actions.w3c_actions.pointer_action.move_to_location(x - 3, y - 3).move_to_location(x, y)
    actions.perform()
    shown = WebDriverWait(page, 5).until(
        lambda _: "".join(element.text for element in page.find_elements(By.CSS_SELECTOR, ".hovertext"))
    )
    assert "median" in shown
    assert format_estimate(row["metrics"]["personal_accuracy"], "share") in shown


def test_a_method_leaves_all_figures_and_tables_and_comes_back(page: Chrome) -> None:
    everywhere = [page.execute_script(SHOWN, number) for number in range(figure_count(page))]
    assert all("median" in methods for methods in everywhere)
    tick(page, "median")
    for number, before in enumerate(everywhere):
        after = page.execute_script(SHOWN, number)
        assert after == [method for method in before if method != "median"]
    assert len(visible_rows(page)) == len(METHODS) - 1
    assert not any(line.startswith("median") for line in visible_rows(page))
    legends = page.find_elements(By.CSS_SELECTOR, "[data-method='median']")
    assert legends
    assert not any(element.is_displayed() for element in legends)
    tick(page, "median")
    assert [page.execute_script(SHOWN, number) for number in range(len(everywhere))] == everywhere


def test_none_is_an_empty_page_and_all_brings_it_back(page: Chrome) -> None:
    page.find_element(By.ID, "none").click()
    assert visible_rows(page) == []
    assert not any(page.execute_script(SHOWN, number) for number in range(figure_count(page)))
    page.find_element(By.ID, "all").click()
    assert len(visible_rows(page)) == len(METHODS)


def test_the_selector_changes_headline_table_and_figures(page: Chrome) -> None:
    chosen = next(number for number, point in enumerate(SUMMARY["points"]) if point["settings"]["budget"] == 0.4)
    headline = page.find_element(By.CSS_SELECTOR, "p.lead[data-point='0']")
    before, drawn = visible_rows(page), page.execute_script("return document.getElementById('figure-0').data[0].x")
    assert headline.is_displayed()
    Select(page.find_element(By.ID, "point")).select_by_visible_text(SUMMARY["points"][chosen]["label"])
    assert not headline.is_displayed()
    assert page.find_element(By.CSS_SELECTOR, f"p.lead[data-point='{chosen}']").is_displayed()
    assert page.execute_script("return document.getElementById('figure-0').data[0].x") != drawn
    rows = [row for row in SUMMARY["rows"] if row["point"] == chosen]
    after = visible_rows(page)
    assert after != before
    assert len(after) == len(rows)
    for text, row in zip(after, rows, strict=True):
        assert text.replace("\n", "").startswith(method_label(row["method"]))
        assert format_value(row["metrics"]["personal_accuracy"]["mean"], "share") in text


def test_the_front_is_that_of_the_methods_shown(page: Chrome) -> None:
    number = [heading_of(page, n) for n in range(figure_count(page))].index("Accuracy against size")

    def shown_front(hidden: set[str]) -> list[str]:
        rows = [row for row in SUMMARY["rows"] if row["point"] == 0 and row["method"] not in hidden]
        places = [(r["metrics"]["bytes"]["mean"], r["metrics"]["personal_accuracy"]["mean"], r["method"]) for r in rows]
        best = [one for one in places if not any(o[0] <= one[0] and o[1] >= one[1] and o != one for o in places)]
        return [method_label(method) for _, _, method in sorted(best)]

    def told() -> str:
        return str(
            page.execute_script(
                "return document.getElementById('figure-' + arguments[0]).closest('section')"
                ".querySelector('.note').textContent",
                number,
            )
        )

    assert told() == "On the front: " + ", ".join(shown_front(set()))
    gone = next(row["method"] for row in SUMMARY["rows"] if method_label(row["method"]) == shown_front(set())[0])
    tick(page, gone)
    assert told() == "On the front: " + ", ".join(shown_front({gone}))


def test_a_telephone_shows_it_without_sideways_scrolling(page: Chrome, address: str) -> None:
    resize(page, 390, 844, phone=True)
    page.get(address)
    assert page.execute_script("return document.documentElement.scrollWidth") <= 390
    assert page.find_element(By.ID, "point").is_displayed()
    assert not page.find_element(By.ID, "all").is_displayed(), "the check boxes are folded away"
    page.find_element(By.CSS_SELECTOR, "#filter summary").click()
    assert page.find_element(By.ID, "all").is_displayed()
    assert page.execute_script("return document.documentElement.scrollWidth") <= 390
    keep_screenshot(page, "comparison-390.png")
