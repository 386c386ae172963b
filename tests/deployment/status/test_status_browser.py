import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from browser import artefacts, open_browser, requested, resize, screenshot
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from status_state import CLIENTS, make_state, run_journal, serve_record, write_journal, write_serve

from deployment.status.app import make_app
from deployment.status.server import listen

PARTS = ["now", "means", "rounds", "layers", "errors", "runs", "processes"]
WAIT_SECONDS = 30


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with open_browser(tmp_path_factory.mktemp("chromium") / "profile") as browser:
        yield browser


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return make_state(tmp_path)


@contextmanager
def served(state: Path) -> Iterator[str]:
    """The address of the page, from a thread."""
    with listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(make_app(state), log_level="warning", lifespan="off", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{port}/"
        finally:
            server.should_exit = True
            thread.join(WAIT_SECONDS)
        assert not thread.is_alive()


@pytest.fixture
def address(state: Path) -> Iterator[str]:
    with served(state) as address:
        yield address


@pytest.fixture
def page(chromium: Chrome, address: str) -> Iterator[Chrome]:
    """The page, newly opened; whatever happens to it, it asks its own server only and complains about nothing."""
    resize(chromium, 1280, 900)
    chromium.get("about:blank")
    requested(chromium)
    chromium.get_log("browser")
    chromium.get(address)
    yield chromium
    assert chromium.get_log("browser") == []
    assert set(requested(chromium)) <= {address, f"{address}status.json"}
    chromium.get("about:blank")


def text_of(page: Chrome, part: str) -> str:
    return page.find_element(By.ID, part).text


def wait_for(page: Chrome, part: str, text: str) -> None:
    WebDriverWait(page, WAIT_SECONDS).until(lambda _: text in text_of(page, part))


def keep_screenshot(page: Chrome, name: str) -> None:
    file = artefacts(Path(page.capabilities["chrome"]["userDataDir"]).parent) / name
    screenshot(page, file)
    assert file.read_bytes().startswith(b"\x89PNG")


def test_every_part_is_there(page: Chrome) -> None:
    assert [part.get_attribute("id") for part in page.find_elements(By.CSS_SELECTOR, "[data-part]")] == PARTS
    assert "running" in text_of(page, "now")
    assert "9 enrolled, 1 revoked" in text_of(page, "now")
    assert f"{CLIENTS} of {CLIENTS}" in text_of(page, "rounds")
    assert "no client of 4 replied" in text_of(page, "runs")
    assert "restarting" in text_of(page, "processes")
    assert len(page.find_elements(By.CSS_SELECTOR, "#layers svg.bars")) == 2
    assert len(page.find_elements(By.CSS_SELECTOR, "#layers svg.bars g")) == 8
    assert not page.find_element(By.ID, "connection").is_displayed()
    assert not page.find_element(By.ID, "still").is_displayed()
    keep_screenshot(page, "status-1280.png")


def test_what_is_read_aloud_has_a_name(page: Chrome) -> None:
    page.find_element(By.CSS_SELECTOR, "#layers summary").click()
    roles = {"region", "table", "image", "img", "group"}
    for part in page.find_elements(By.CSS_SELECTOR, "table, [role=region], svg, svg g"):
        assert part.aria_role in roles
        assert part.accessible_name
    assert page.execute_script("return document.documentElement.lang") == "en"
    assert [heading.text for heading in page.find_elements(By.TAG_NAME, "h1")] == ["Fleet 7eee75e1"]


def test_it_follows_the_journal_by_itself(page: Chrome, state: Path) -> None:
    page.find_element(By.CSS_SELECTOR, "#layers summary").click()
    journal = run_journal()
    journal["rounds"][-1]["failures"] = {"data_unusable": 5}
    journal["knowledge"]["dropped"] = []
    write_journal(state, journal)
    wait_for(page, "errors", "data_unusable 5")
    assert "0.0 % (0 of 16 parts)" in text_of(page, "layers"), "what was opened stays open"
    assert page.execute_script("return performance.getEntriesByType('navigation')[0].type") == "navigate"
    write_serve(state, serve_record(phase="idle"))
    wait_for(page, "now", "idle")
    assert page.title == "fedsieve fleet 7eee75e1: idle"


def test_it_says_when_a_file_is_damaged_and_when_it_is_whole_again(page: Chrome, state: Path) -> None:
    (state / "serve.json").write_text('{"phase": "ru')
    wait_for(page, "now", "damaged or half-written")
    assert "running" in text_of(page, "now")
    age = page.find_element(By.CSS_SELECTOR, "[data-age=serve]")
    before = age.text
    WebDriverWait(page, WAIT_SECONDS).until(lambda _: age.text != before)
    write_serve(state, serve_record())
    WebDriverWait(page, WAIT_SECONDS).until(lambda _: "damaged" not in text_of(page, "now"))


def test_it_says_when_its_own_server_is_gone(chromium: Chrome, state: Path) -> None:
    with served(state) as address:
        chromium.get(address)
    connection = chromium.find_element(By.ID, "connection")
    WebDriverWait(chromium, WAIT_SECONDS).until(lambda _: "cannot be reached" in connection.text)
    assert f"{CLIENTS} of {CLIENTS}" in text_of(chromium, "rounds")
    chromium.get("about:blank")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_telephone_shows_it_without_sideways_scrolling(page: Chrome, address: str, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    resize(page, 390, 844, phone=True)
    page.get(address)
    page.find_element(By.CSS_SELECTOR, "#layers summary").click()
    assert page.execute_script("return document.documentElement.scrollWidth") <= 390
    back = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (back == "rgb(255, 255, 255)") == (scheme == "light")
    keep_screenshot(page, f"status-390-{scheme}.png")
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_without_a_script_it_is_a_picture_of_the_moment(page: Chrome, address: str, state: Path) -> None:
    page.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        page.get(address)
        assert f"{CLIENTS} of {CLIENTS}" in text_of(page, "rounds")
        assert "reload it" in page.find_element(By.TAG_NAME, "footer").text
        assert "running" in text_of(page, "now")
        write_serve(state, serve_record(phase="idle"))
        page.get(address)
        assert "idle" in text_of(page, "now")
    finally:
        page.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
