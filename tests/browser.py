"""A headless Chromium for the tests of pages, and what such a test asks of it."""

import base64
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,900",
)


@contextmanager
def open_browser(profile: Path) -> Iterator[Chrome]:
    """Start Chromium with the empty folder `profile`; where there is none the test skips, or fails if it has to run."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        reason = "no chromium and chromedriver on the path; on Debian `make browser` installs them"
        if os.environ.get("FEDSIEVE_REQUIRE_BROWSER") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    options = ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = Chrome(options=options, service=ChromeService(executable_path=driver))
    try:
        yield browser
    finally:
        browser.quit()


def resize(browser: Chrome, width: int, height: int, *, phone: bool = False) -> None:
    """Give the page a width and height in CSS pixels, narrower than a window could be made."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def requested(browser: Chrome) -> list[str]:
    """The addresses that were asked for since the last call, without what a page holds itself (data: and blob:)."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    addresses = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [address for address in addresses if not address.startswith(("data:", "blob:"))]


def artefacts(fallback: Path) -> Path:
    """The folder that keeps screenshots: FEDSIEVE_ARTEFACTS, else `fallback`."""
    folder = Path(os.environ.get("FEDSIEVE_ARTEFACTS") or fallback)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def screenshot(browser: Chrome, file: Path) -> None:
    """Write the whole page, not only what the window shows, as PNG."""
    taken = browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
    file.write_bytes(base64.b64decode(taken["data"]))
