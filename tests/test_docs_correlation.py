"""The pages on sessions and on the correlator are true: what they show does as they say."""

from __future__ import annotations

import asyncio
import http.server
import inspect
import logging
import logging.config
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import test_docs
from django.conf import settings
from django.http import HttpResponse
from django.test import Client, override_settings
from django.urls import path
from doors_stage import urls
from test_docs import COMMENT, DOCS, Page, blocks, code, shown_signature, table

from django_baikal import correlation
from django_baikal.correlation import bound

TRACE = DOCS / "howto" / "trace-requests.md"
CALL = DOCS / "howto" / "call-an-api.md"

page_runner = test_docs.page_runner


def test_the_settings_that_are_shown_write_the_correlator_into_each_line(
    page_runner: Page, capfd: Any
) -> None:
    (block,) = [block for block in blocks(TRACE) if block.text.startswith("# settings.py")]
    page_runner.run(block)

    def view(request: Any) -> HttpResponse:
        logging.getLogger("myapp").info("hello")
        return HttpResponse(status=418)

    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    try:
        logging.config.dictConfig(settings.LOGGING)
        with override_settings(ROOT_URLCONF=urls(path("", view))):
            answer = Client().get("/", headers={"X-Correlator": "c-1"})
            Client().get("/", headers={"X-Correlator": "c 2"})
        logging.getLogger("myapp").info("by itself")
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers
    assert answer.headers["X-Correlator"] == "c-1"
    said = capfd.readouterr().err.splitlines()
    assert said[:2] == [
        "INFO [c-1] myapp: hello",
        "WARNING [c-1] django.request: I'm a Teapot: /",
    ]
    assert re.fullmatch(r"INFO \[[0-9a-f-]{36}\] myapp: hello", said[2])
    assert said[4:] == ["INFO [-] myapp: by itself"]


def test_the_characters_that_the_page_names_are_those_that_are_accepted() -> None:
    shown = re.search(r"of the characters `A-Z a-z 0-9 ([^`]+)`", TRACE.read_text("utf-8"))
    assert shown
    named = set(shown[1].split())
    for character in map(chr, range(0x180)):
        with bound(character) as found:
            accepted = found == character
        assert accepted == ((character.isascii() and character.isalnum()) or character in named)


def test_what_the_module_has_is_in_the_reference() -> None:
    rows = table(DOCS / "reference" / "logging.md", "name")
    public = {
        name: each
        for name, each in vars(correlation).items()
        if getattr(each, "__module__", "") == correlation.__name__ and not name.startswith("_")
    }
    assert {code(row[0]) for row in rows} == {
        name if inspect.isclass(each) else name + shown_signature(each)
        for name, each in public.items()
    }


# -- sessions ---------------------------------------------------------------------------------


class Api(http.server.BaseHTTPRequestHandler):
    """Answers the first request with 401."""

    protocol_version = "HTTP/1.1"
    seen: list[Any]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append(self.headers)
        body = b'{"verificationResult": "TRUE"}'
        self.send_response(401 if len(self.seen) == 1 else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def served() -> Iterator[tuple[str, list[Any]]]:
    seen: list[Any] = []
    handler = type("Handler", (Api,), {"seen": seen})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as api:
        thread = threading.Thread(target=api.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{api.server_port}", seen
        finally:
            api.shutdown()
            thread.join()


def shown(page_runner: Page, name: str, url: str) -> Any:
    """Give the module of that name that the page shows, with an API at ``url``."""
    for block in blocks(CALL):
        if (named := COMMENT.match(block.text)) and named[1] == name:
            assert "https://api.example.com" in block.text
            block.text = block.text.replace("https://api.example.com", url)
            page_runner.run(block)
            return sys.modules[name.removesuffix(".py").replace("/", ".")]
    raise AssertionError(name)


def test_the_session_that_is_shown_calls_the_api(page_runner: Page) -> None:
    with served() as (url, seen), bound("c-1"):
        near = shown(page_runner, "myapp/location.py", url).is_near("+34600000000", {})
    assert near is True
    assert len({each["Authorization"] for each in seen}) == 2
    assert [each["X-Correlator"] for each in seen] == ["c-1", "c-1"]


def test_the_coroutine_that_is_shown_does_the_same(page_runner: Page) -> None:
    aiohttp = pytest.importorskip("aiohttp")

    async def main(url: str) -> bool:
        module = shown(page_runner, "myapp/async_location.py", url)
        async with aiohttp.ClientSession() as session:
            with bound("c-1"):
                near: bool = await module.is_near(session, {})
        return near

    with served() as (url, seen):
        assert asyncio.run(main(url)) is True
    assert len({each["Authorization"] for each in seen}) == 2
    assert [each["X-Correlator"] for each in seen] == ["c-1", "c-1"]
