"""A real browser for tests of pages: one headless Chromium for all of them, and what it complained of.

    def test_leaderboard_is_sorted_by_a_click(open_page, tmp_path):
        page = open_page(write_sweep_page(folder))            # fails at the end on errors of the console or the policy
        page.find("th button").click()
        assert page.texts("tbody td:nth-child(2)") == [...]

Put such tests into `tests/browser/test_<page>.py`. They are skipped where there is no Chromium or no chromedriver.
`open_page(path, width=360, height=800, dark=True)` shows it as a phone does, or at night; `page.screenshot(path)` keeps
what is seen; `page.script("return ...")` runs JavaScript; `page.browser` is selenium's own driver.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)
PATIENCE_SECONDS = 30


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """One Chromium for all tests of a process, in a folder of its own."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("Chromium or chromedriver is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    options.add_experimental_option("perfLoggingPrefs", {"enableNetwork": True, "enablePage": False})
    service = webdriver.ChromeService(executable_path=driver)
    started = webdriver.Chrome(options=options, service=service)
    started.set_page_load_timeout(PATIENCE_SECONDS)
    started.set_script_timeout(PATIENCE_SECONDS)
    started.get("about:blank")  # away from Chromium's own first page, which is busy for a while
    yield started
    started.quit()


@dataclass(frozen=True)
class Page:
    """A page that is shown."""

    browser: Any

    def find(self, selector: str) -> Any:
        """The first element of a CSS selector."""
        return self.browser.find_element("css selector", selector)

    def find_all(self, selector: str) -> list[Any]:
        return self.browser.find_elements("css selector", selector)

    def texts(self, selector: str) -> list[str]:
        """What the elements say, also those that are not seen."""
        return self.script(
            "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent.trim())", selector
        )

    def script(self, text: str, *values: Any) -> Any:
        return self.browser.execute_script(text, *values)

    def hover(self, element: Any, *, across: float = 0.5, down: float = 0.5) -> None:
        """Rests the pointer on an element, at shares of its width and height."""
        from selenium.webdriver import ActionChains

        self.script("arguments[0].scrollIntoView({block: 'center'})", element)
        size = element.rect
        x, y = round((across - 0.5) * size["width"]), round((down - 0.5) * size["height"])
        ActionChains(self.browser, duration=0).move_to_element_with_offset(element, x, y).perform()

    def press(self, element: Any, *keys: str) -> None:
        """Focuses an element and presses keys, of selenium's `Keys`."""
        self.script("arguments[0].focus()", element)
        self.browser.switch_to.active_element.send_keys(*keys)

    def color_of(self, selector: str, name: str = "color") -> str:
        return self.find(selector).value_of_css_property(name)

    @property
    def is_wider_than_the_window(self) -> bool:
        """Whether people would have to push the whole page to the side."""
        return self.script("return document.documentElement.scrollWidth > document.documentElement.clientWidth")

    def complaints(self) -> list[str]:
        """Errors and warnings of the console since the last call, among them breaches of the page's policy."""
        return [e["message"] for e in self.browser.get_log("browser") if e["level"] in ("SEVERE", "WARNING")]

    def requests(self) -> list[str]:
        """Addresses that were asked for since the page was opened, itself left out."""
        import json

        messages = [json.loads(e["message"])["message"] for e in self.browser.get_log("performance")]
        here = self.browser.current_url
        sent = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        urls = [
            one["request"]["url"] for one in sent if one["documentURL"] == here
        ]  # not those of Chromium's first tab
        return [url for url in urls if url != here and not url.startswith("data:")]

    def screenshot(self, path: Path) -> Path:
        """The whole page, not only what fits the window, as a PNG file."""
        import base64

        shot = self.browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
        path.write_bytes(base64.b64decode(shot["data"]))
        return path


@pytest.fixture
def open_page(browser):
    """Opens a file: `open_page(path, width=1200, height=900, dark=False)`; complaints of the console fail the test."""
    pages = []

    def open_at(path: Path, *, width: int = 1200, height: int = 900, dark: bool = False) -> Page:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
        for kind in ("browser", "performance"):
            browser.get_log(kind)
        browser.get(Path(path).resolve().as_uri())
        pages.append(Page(browser))
        return pages[-1]

    yield open_at
    if pages:
        assert pages[-1].complaints() == []
