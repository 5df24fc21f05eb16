"""The doors in real servers: forks, event loops that come and go, an authserver that is slow."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import programs
import pytest
import requests
from stage import counted
from timing import PATIENCE, until

import django_baikal
from django_baikal.testing import FakeAuthserver

HERE = Path(__file__).resolve().parent
ROOT = Path(django_baikal.__file__).resolve().parent.parent
pytestmark = pytest.mark.programs
needs_aiohttp = pytest.mark.skipif(
    importlib.util.find_spec("aiohttp") is None, reason="aiohttp is not installed"
)


def environment(server: FakeAuthserver, **more: str) -> dict[str, str]:
    entry = server.settings(INTROSPECTION_TIMEOUT=2 * PATIENCE, TIMEOUT=2 * PATIENCE)
    entry |= {"VERIFY_CERTS": more.pop("ca")} if "ca" in more else {}
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE)]),
        "DJANGO_SETTINGS_MODULE": "door_project",
        "DOOR_BAIKAL": json.dumps({"default": entry}),
        **more,
    }


@contextmanager
def served(command: list[str], variables: dict[str, str]) -> Iterator[programs.Program]:
    pytest.importorskip(command[0])
    with programs.running([sys.executable, "-m", *command], variables) as program:
        yield program


def get(url: str, token: str | None = None) -> requests.Response:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return requests.get(url, headers=headers, timeout=2 * PATIENCE)


def by_threads(url: str, tokens: list[str]) -> list[requests.Response]:
    with ThreadPoolExecutor(len(tokens)) as pool:
        return list(pool.map(lambda token: get(url, token), tokens))


# -- F13 --------------------------------------------------------------------------------------


GUNICORN = ["gunicorn", "--bind=127.0.0.1:0", "--preload", "--workers=3", "--threads=4"]


def forked(pid: int) -> list[int]:
    """Give the children of a process."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(each) for each in children.read_text().split()] if children.exists() else []


@pytest.mark.parametrize("at", ["/", "/protected", "/async"])
def test_fault_13_workers_that_are_forked_after_a_request_share_no_connection(
    at: str, tmp_path: Path, scale: Any
) -> None:
    """The parent has a TLS connection when it forks: two processes on it would garble it."""
    trustme = pytest.importorskip("trustme")
    ssl = pytest.importorskip("ssl")
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    with counted(context) as (server, network):
        warm = server.issue_token(sub="warm")
        variables = environment(server, ca=str(tmp_path / "ca.pem"), DOOR_WARM=warm)
        with served([*GUNICORN, "door_project:wsgi()"], variables) as site:
            before = network.connections
            assert before >= 1
            pids = set()
            for each in range(scale(3, 30)):
                subjects = [f"user-{each}-{number}" for number in range(24)]
                tokens = [server.issue_token(sub=subject) for subject in subjects]
                answers = by_threads(site.url + at, tokens)
                assert [answer.status_code for answer in answers] == [200] * 24
                assert [answer.json()["subject"] for answer in answers] == subjects
                pids |= {answer.json()["pid"] for answer in answers}
            assert get(site.url + at, warm).json()["subject"] == "warm"
            assert len(pids) > 1
            # Each worker has made its own.
            assert network.connections >= before + len(pids)


# -- F14 --------------------------------------------------------------------------------------


def elsewhere(script: str, server: FakeAuthserver) -> str:
    """Run a script in a process of its own, with every warning shown; give what it wrote."""
    start = """
        import asyncio, gc, json, sys, threading
        import django
        django.setup()
        from asgiref.sync import async_to_sync
        from django.test import AsyncClient, Client

        def header(token):
            return {"authorization": f"Bearer {token}"}

        async def ask(path, *tokens):
            calls = [AsyncClient().get(path, headers=header(token)) for token in tokens]
            return [answer.json()["subject"] for answer in await asyncio.gather(*calls)]
    """
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "always::ResourceWarning",
            "-c",
            textwrap.dedent(start) + textwrap.dedent(script),
        ],
        env=environment(server),
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("path", ["/", "/async", "/async-protected"])
def test_fault_14_the_middleware_works_in_one_event_loop_after_the_other(path: str) -> None:
    with FakeAuthserver().serve() as server:
        tokens = [server.issue_token(sub=f"user-{number}") for number in range(12)]
        said = elsewhere(
            f"""
            tokens = {tokens!r}
            found = []
            for number in range(3):  # a loop each, as with async views under WSGI
                found += asyncio.run(ask({path!r}, *tokens[number * 2:number * 2 + 2]))
            for token in tokens[6:8]:
                found += async_to_sync(ask)({path!r}, token)
            threads = [
                threading.Thread(target=lambda t=token: found.extend(asyncio.run(ask({path!r}, t))))
                for token in tokens[8:11]
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            found.append(Client().get({path!r}, headers=header(tokens[11])).json()["subject"])
            gc.collect()
            print(json.dumps(sorted(found)))
            """,
            server,
        )
        asked = server.requests.count("introspection")
    assert said.strip() == json.dumps(sorted(f"user-{number}" for number in range(12)))
    assert asked == 12


def test_fault_14_two_loops_at_once_do_not_mix() -> None:
    """Both wait for the authserver, and each gets its own answer in its own loop."""
    with FakeAuthserver().serve() as server:
        tokens = [server.issue_token(sub=f"user-{number}") for number in range(20)]
        with server.fail("introspection", delay=0.3):
            said = elsewhere(
                f"""
                tokens, found = {tokens!r}, {{}}
                def run(name, mine):
                    found[name] = asyncio.run(ask("/async", *mine))
                threads = [
                    threading.Thread(target=run, args=(n, tokens[n * 10:n * 10 + 10]))
                    for n in (0, 1)
                ]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                gc.collect()
                print(json.dumps(found[0] + found[1]))
                """,
                server,
            )
    assert said.strip() == json.dumps([f"user-{number}" for number in range(20)])


def test_fault_14_an_asgi_server_can_be_started_again_in_its_process() -> None:
    """As a reload does it: the application stays, and its event loop does not."""
    pytest.importorskip("uvicorn")
    with FakeAuthserver().serve() as server:
        tokens = [server.issue_token(sub=f"user-{number}") for number in range(9)]
        said = elsewhere(
            f"""
            import requests, socket, uvicorn
            from django.core.asgi import get_asgi_application

            tokens, found, application = {tokens!r}, [], get_asgi_application()

            def drive(server, port, mine):
                url = f"http://127.0.0.1:{{port}}/async"
                with requests.Session() as session:
                    for token in mine:
                        found.append(session.get(url, headers=header(token)).json()["subject"])
                server.should_exit = True

            for number in range(3):
                with socket.socket() as listener:
                    listener.bind(("127.0.0.1", 0))
                    listener.listen()
                    config = uvicorn.Config(application, lifespan="off", log_level="warning")
                    server = uvicorn.Server(config)
                    mine = tokens[number * 3:number * 3 + 3]
                    port = listener.getsockname()[1]
                    driver = threading.Thread(target=drive, args=(server, port, mine))
                    driver.start()
                    server.run([listener])
                    driver.join()
            gc.collect()
            print(json.dumps(found))
            """,
            server,
        )
    assert said.strip() == json.dumps([f"user-{number}" for number in range(9)])


# -- F15 --------------------------------------------------------------------------------------


UVICORN = ["uvicorn", "--port=0", "--factory", "django.core.asgi:get_asgi_application"]


@needs_aiohttp
@pytest.mark.slow
@pytest.mark.parametrize("at", ["/async", "/async-protected"])
def test_fault_15_a_slow_authserver_does_not_stop_the_event_loop(at: str, scale: Any) -> None:
    """A hundred requests wait for it, and others are answered meanwhile."""
    # The loop is held up for as long as the authserver hangs, or not at all.
    seconds, limit = scale(3.0, 6.0), scale(PATIENCE / 2, 0.05)
    with FakeAuthserver().serve() as server, served(UVICORN, environment(server)) as site:
        known = server.issue_token(sub="known")
        assert get(site.url + at, known).status_code == 200
        subjects = [f"user-{number}" for number in range(100)]
        tokens = [server.issue_token(sub=subject) for subject in subjects]
        measured: dict[str, list[float]] = {}

        def measure() -> None:
            measured.update(get(f"{site.url}/lag?seconds={seconds}").json())

        with ThreadPoolExecutor(101) as pool, server.fail("introspection", hang=True) as fault:
            measuring = pool.submit(measure)
            waiting = [pool.submit(get, site.url + at, token) for token in tokens]
            until(lambda: fault.hits == 100, "all wait, and not one after the other")
            others = [get(site.url + at, known), get(f"{site.url}/async")]
            measuring.result()
            done = sum(each.done() for each in waiting)
            fault.lift()
            answers = [each.result() for each in waiting]
    assert [each.status_code for each in others] == [200, 200]
    assert done == 0
    assert [answer.json()["subject"] for answer in answers] == subjects
    assert fault.hits == 100
    lags = measured["lags"]
    assert lags[int(len(lags) * 0.99)] < limit, (len(lags), lags[-10:])
