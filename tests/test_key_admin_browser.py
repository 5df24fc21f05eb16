"""The admin of the signing keys in a browser: Chromium, if it is installed."""

from __future__ import annotations

import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from admin_stage import project, user
from django.conf import settings
from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.servers.basehttp import ThreadedWSGIServer
from django.db import connections
from django.test import Client
from django.test.testcases import LiveServerThread, QuietWSGIRequestHandler
from keys_stage import Clock, keeper, rows

from django_baikal.testing import FakeAuthserver

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.common.exceptions import WebDriverException  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.remote.webelement import WebElement  # noqa: E402
from selenium.webdriver.support.expected_conditions import staleness_of  # noqa: E402
from selenium.webdriver.support.wait import WebDriverWait  # noqa: E402

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
DRIVER = shutil.which("chromedriver")
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
    "--window-size=1280,1000",
)
LIST = "/admin/django_baikal/signingkey/"

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None, reason="chromium and chromedriver are not installed"
    ),
]


@pytest.fixture(scope="module", autouse=True)
def _project(django_db_setup: None, django_db_blocker: pytest.FixtureRequest) -> Iterator[None]:
    with django_db_blocker.unblock(), project():
        yield


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    profile: Path = tmp_path_factory.mktemp("profile")
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    # The page's own errors are ours as well.
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def page(chromium: webdriver.Chrome, clock: Clock) -> Iterator[Page]:
    keeper().rotate()
    clock.pass_(days=1)
    with serving() as url:
        yield Page(chromium, url)
        chromium.delete_all_cookies()
        chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        chromium.get("about:blank")


class Server(ThreadedWSGIServer):
    """Waits for the threads of its connections, which share ours to the database."""

    daemon_threads = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.accepted: list[socket.socket] = []

    def process_request(self, request: Any, client_address: Any) -> None:
        self.accepted.append(request)
        super().process_request(request, client_address)

    def server_close(self) -> None:
        # Chromium opens connections that it may want to use, and keeps those that it has used.
        for each in self.accepted:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RD)
        super().server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        assert isinstance(sys.exception(), TimeoutError | ConnectionError)


class Serving(LiveServerThread):
    server_class = Server

    def _create_server(self, connections_override: Any = None) -> Any:
        server = super()._create_server(connections_override)
        server.RequestHandlerClass = QuietWSGIRequestHandler
        return server


@contextmanager
def serving() -> Iterator[str]:
    """Serve the project to a browser; give its address."""
    shared = {
        each.alias: each
        for each in connections.all()
        if each.vendor == "sqlite" and each.is_in_memory_db()
    }
    thread = Serving("127.0.0.1", static_handler=StaticFilesHandler, connections_override=shared)
    for each in shared.values():
        each.inc_thread_sharing()
    thread.start()
    thread.is_ready.wait()
    try:
        assert thread.error is None
        yield f"http://127.0.0.1:{thread.port}"
    finally:
        thread.terminate()
        for each in shared.values():
            each.dec_thread_sharing()


class Page:
    """What somebody who may do everything sees, and presses."""

    def __init__(self, driver: webdriver.Chrome, url: str) -> None:
        self.driver, self.url = driver, url
        visitor = Client()
        visitor.force_login(user("view", "rotate", "revoke"))
        driver.get(f"{url}/admin/login/")
        name = settings.SESSION_COOKIE_NAME
        driver.add_cookie({"name": name, "value": visitor.cookies[name].value})
        self.open(LIST)

    def open(self, path: str) -> None:
        self.driver.get(self.url + path)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    @property
    def messages(self) -> str:
        return "\n".join(each.text for each in self.all(".messagelist li"))

    def tab_to(self, wanted: str) -> WebElement:
        """Press Tab until what shows that text, or has that name, has the focus."""
        for _ in range(60):
            self.driver.switch_to.active_element.send_keys(Keys.TAB)
            focus = self.driver.switch_to.active_element
            shown = (focus.text, focus.get_attribute("value"), focus.get_attribute("name"))
            if wanted in shown:
                return focus
        raise AssertionError(f"{wanted!r} cannot be reached with Tab.")

    def enter(self, field: WebElement, *text: str) -> None:
        """Type into what has the focus, and Enter; wait for the page that it leads to."""
        field.send_keys(*text)
        # While one page goes and the next comes, the driver may know neither.
        with suppress(WebDriverException):
            field.send_keys(Keys.ENTER)
        wait = WebDriverWait(self.driver, 60, ignored_exceptions=[WebDriverException])
        wait.until(staleness_of(field))

    def looks(self, scheme: str, width: int) -> None:
        """Have a window of that width, and prefer light or dark."""
        tell = self.driver.execute_cdp_cmd
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        tell("Emulation.setDeviceMetricsOverride", size)
        preferred = {"name": "prefers-color-scheme", "value": scheme}
        tell("Emulation.setEmulatedMedia", {"features": [preferred]})


def test_the_list_opens_and_says_who_signs(page):
    assert page.one("h1").text == "Signing keys"
    assert [each.text for each in page.all(".baikal-state")] == ["○ pending", "● active"]
    picture = page.one("svg.baikal-timeline")
    assert picture.accessible_name == "Timeline of the ring default"
    assert picture.aria_role in ("img", "image")
    assert picture.size["width"] > 600


def test_the_standby_is_promoted_with_the_keyboard_alone(page, clock):
    standby = rows()[1]
    page.enter(page.tab_to("Promote standby"))
    assert f"Key {standby.kid}: Promoted" in page.messages
    assert [each.text for each in page.all(".baikal-state")] == ["● active", "◐ retiring"]
    # What cannot be pressed says why beside it.
    assert not page.one("form[action$='promote/'] button").is_enabled()
    assert "There is no standby" in page.one("form[action$='promote/'] span").text
    page.enter(page.tab_to("Schedule rotation"))
    assert f"Key {rows()[2].kid}: Made" in page.messages


def test_a_key_is_revoked_through_its_confirmation_with_the_keyboard_alone(page):
    active, standby = rows()
    page.open(f"{LIST}{active.pk}/change/")
    page.enter(page.tab_to("REVOKE…"))
    assert page.one("h1").text == "Revoke a signing key"
    assert "It signs now." in page.one(".baikal-consequences").text
    page.tab_to("kid").send_keys(standby.kid)
    page.tab_to("reason").send_keys("a laptop was lost")
    page.enter(page.tab_to("Revoke the key"))
    assert page.one(".errorlist").text == "This is not the kid of the key."
    assert rows()[0].revoked_at is None
    field = page.one("[name=kid]")
    field.clear()
    page.enter(field, active.kid)
    assert f"Key {active.kid}: Revoked: a laptop was lost" in page.messages
    assert rows()[0].revoked_at is not None
    states = [each.text for each in page.all(".baikal-state")]
    assert states == ["○ pending", "● active", "✕ revoked"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_every_page_can_be_read_in_each_scheme_and_width(page, scheme, width):
    page.looks(scheme, width)
    pk = rows()[0].pk
    for path in (LIST, f"{LIST}{pk}/change/", f"{LIST}{pk}/revoke/"):
        page.open(path)
        sees = page.driver.execute_script(CONTRASTS)
        assert sees and min(sees.values()) >= 4.5, sees
        # Nothing but the table, which scrolls by itself, is wider than the window.
        assert page.driver.execute_script("return document.body.scrollWidth") <= width
    errors = [each for each in page.driver.get_log("browser") if "favicon" not in each["message"]]
    assert errors == []


def test_the_doctors_page_can_be_used_with_the_keyboard_and_read_in_each_scheme(page):
    known = {"client": "secret"}
    with FakeAuthserver(endpoint="https://auth.example.com", clients=known).in_memory():
        page.enter(page.tab_to("FIND WHAT IS WRONG"))
        assert page.all(".baikal-doctor") == []
        page.enter(page.tab_to("Examine"))
    assert page.one("[role=status]").text.endswith("skipped.")
    shown = {each.text.split()[-1] for each in page.all(".baikal-doctor .baikal-state")}
    assert shown == {"passed", "failed", "skipped"}
    # The cache of the tests is not shared.
    assert "Let CACHE name" in page.one(".baikal-doctor .baikal-cure").text
    for scheme in ("light", "dark"):
        for width in (1280, 400):
            page.looks(scheme, width)
            sees = page.driver.execute_script(CONTRASTS)
            assert sees and min(sees.values()) >= 4.5, sees
            assert page.driver.execute_script("return document.body.scrollWidth") <= width
    errors = [each for each in page.driver.get_log("browser") if "favicon" not in each["message"]]
    assert errors == []


#: The contrast of each of our texts with what is behind it (WCAG 2.2, 1.4.3: 4.5 is enough).
CONTRASTS = """
const parts = colour => colour.match(/[\\d.]+/g).map(Number);
const light = colour => parts(colour).slice(0, 3).map(
    each => (each /= 255) <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4
).reduce((sum, each, at) => sum + each * [0.2126, 0.7152, 0.0722][at], 0);
const behind = element => {
    for (; element; element = element.parentElement) {
        const colour = getComputedStyle(element).backgroundColor;
        if ((parts(colour)[3] ?? 1) > 0) return colour;
    }
    return "rgb(255, 255, 255)";
};
const found = {};
const ours = ".baikal-ring p, .baikal-actions span, .baikal-legend li, .baikal-axis span, " +
    ".baikal-timeline text, .baikal-state, .baikal-kid, .baikal-copy, .baikal-event, " +
    ".baikal-seal-good, .baikal-kek, .baikal-public, .baikal-consequences li, " +
    ".baikal-revoke label, .baikal-doctor td, .baikal-doctor th, .baikal-cure";
for (const each of document.querySelectorAll(ours)) {
    const style = getComputedStyle(each);
    const one = light(each.closest("svg") ? style.fill : style.color), other = light(behind(each));
    found[each.className.baseVal ?? (each.className || each.tagName)] =
        (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
}
return found;
"""
