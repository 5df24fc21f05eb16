"""The SDK itself, in an environment of its own, against the development authserver."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from stage import pem, publishing

TESTS = Path(__file__).resolve().parent
SDK = "baikal-sdk==1.2.5"
RUNNING = re.compile(r"running at (http://127\.0\.0\.1:\d+)/")
#: What pip says when it does not get through to the package index.
UNREACHABLE = re.compile(
    r"NewConnectionError|NameResolutionError|Connection(Reset|Refused)?Error|TimeoutError|"
    r"timed out|Max retries|ProxyError|from versions: none",
    re.IGNORECASE,
)
#: Ours must not be found by the SDK's interpreter, nor a proxy be asked for loopback.
NOT_FOR_IT = ("PYTHONPATH", "PYTHONHOME", "PYTHONWARNINGS", "DJANGO_SETTINGS_MODULE")


def outer_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in NOT_FOR_IT}


def python_3_11() -> str | None:
    """Find an interpreter that can make an environment for the SDK, which needs this version."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    candidates = [
        getattr(sys, "_base_executable", sys.executable),
        *sorted(map(str, pyenv.glob("versions/3.11*/bin/python")), reverse=True),
        *filter(None, [shutil.which("python3.11")]),
        "/usr/bin/python3.11",
        "/usr/local/bin/python3.11",
    ]
    check = "import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 11))"
    for candidate in candidates:
        if os.path.exists(candidate):
            done = subprocess.run(
                [candidate, "-c", check], env=outer_environment(), capture_output=True, check=False
            )
            if done.returncode == 0:
                return candidate
    return None


def place() -> Path:
    """Say where the SDK's environment is kept for the next time."""
    if named := os.environ.get("DJANGO_BAIKAL_SDK_VENV"):
        return Path(named)
    if tox := os.environ.get("TOX_WORK_DIR"):
        return Path(tox) / "baikal-sdk-1.2.5"
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return caches / "django-baikal" / "baikal-sdk-1.2.5"


def install(directory: Path, python: str) -> None:
    """Make the environment; skip where there is no index, but never where CI is set."""
    subprocess.run([python, "-m", "venv", "--clear", directory], check=True, timeout=300)
    done = subprocess.run(
        [
            directory / "bin" / "python",
            "-m",
            "pip",
            "install",
            "-q",
            "--no-input",
            "--retries",
            "2",
            SDK,
        ],
        env=outer_environment(),
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    if done.returncode == 0:
        return
    shutil.rmtree(directory)
    last = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
    if UNREACHABLE.search(done.stderr) and os.environ.get("CI", "").lower() not in ("true", "1"):
        pytest.skip(f"{SDK} cannot be installed, the package index is not reached: {last}")
    pytest.fail(f"{SDK} cannot be installed: {done.stderr[-2000:]}")


@pytest.fixture(scope="module")
def sdk() -> Callable[..., Any]:
    """A function that runs a program with the SDK, and gives the JSON that it prints last."""
    directory = place()
    directory.parent.mkdir(parents=True, exist_ok=True)
    interpreter = directory / "bin" / "python"
    probe = [interpreter, "-c", "import clients.baikal_client, clients.aio.baikal_client"]
    with open(f"{directory}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # other workers may want to make the same
        ready = interpreter.exists() and not subprocess.run(
            probe, env=outer_environment(), capture_output=True, check=False
        ).returncode  # fmt: skip
        if not ready:
            python = python_3_11()
            if python is None:
                pytest.skip("The baikal-sdk needs Python 3.11, and there is none here.")
            install(directory, python)

    def run(program: str, **environment: str) -> Any:
        done = subprocess.run(
            [interpreter, "-c", textwrap.dedent(program)],
            env={**outer_environment(), "NO_PROXY": "127.0.0.1", **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


class Authserver:
    """``manage.py baikal_authserver`` in a process of its own; ``log`` is what it prints."""

    def __init__(self, *options: str) -> None:
        program = "import sys; from django.core.management import execute_from_command_line as run"
        options = ("--port", "0", "--client-id", "sdk", "--client-secret", "secret", *options)
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"{program}; run(['manage.py', 'baikal_authserver', *sys.argv[1:]])",
                *options,
            ],
            cwd=TESTS,
            env={**os.environ, "DJANGO_SETTINGS_MODULE": "settings"},
            stdout=subprocess.PIPE,
            text=True,
        )
        self.log: list[str] = []
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.log.append(line)
            if line.startswith("  revocation"):
                break
        found = RUNNING.search("".join(self.log))
        assert found, self.log
        self.endpoint = found[1]
        self._reader = threading.Thread(target=self.log.extend, args=(self.process.stdout,))
        self._reader.start()

    def stop(self) -> str:
        """End it; give all that it printed."""
        self.process.terminate()
        self.process.wait(60)
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return "".join(self.log)


@pytest.fixture
def start() -> Iterator[Callable[..., Authserver]]:
    started: list[Authserver] = []

    def begin(*options: str) -> Authserver:
        started.append(Authserver(*options))
        return started[-1]

    yield begin
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
            each.stop()


TOKEN_AND_INTROSPECTION = """
    import asyncio, json, os
    from clients.baikal_client import OpenIDClient
    from clients.aio.baikal_client import OpenIDClient as AsyncOpenIDClient

    client = OpenIDClient(os.environ["ENDPOINT"], "sdk", "secret")
    answer = client.grant_client(["a", "b"], ["p"], full_authserver_response=True)
    sync = answer, client.introspect(answer["access_token"]), client.introspect("unknown")

    async def main():
        client = AsyncOpenIDClient(os.environ["ENDPOINT"], "sdk", "secret")
        answer = await client.grant_client(["a", "b"], ["p"], full_authserver_response=True)
        token = answer["access_token"]
        return answer, await client.introspect(token), await client.introspect("unknown")

    print(json.dumps([sync, asyncio.run(main())]))
"""


def test_the_sdk_gets_a_client_token_and_introspects_it(
    sdk: Callable[..., Any], start: Callable[..., Authserver]
) -> None:
    authserver = start()
    for answer, introspected, unknown in sdk(TOKEN_AND_INTROSPECTION, ENDPOINT=authserver.endpoint):
        assert answer["token_type"] == "Bearer"
        assert answer["expires_in"] == 3600
        assert introspected["active"] is True
        assert introspected["client_id"] == "sdk"
        assert introspected["scope"] == "a b"
        assert introspected["purpose"] == "p"
        assert unknown == {"active": False}
    log = authserver.stop()
    assert log.count("POST token  sdk  200 ok  client_credentials") == 2
    assert log.count("POST introspection  sdk  200 ok") == 4


PUBLIC_KEYS = """
    import os
    from clients.baikal_client import OpenIDClient
    print(OpenIDClient("http://x", "sdk", "x", None, os.environ["CERTS"]).get_jwk_set())
"""
GRANT_USER = """
    import asyncio, json, os
    from clients.baikal_client import OpenIDClient
    from clients.aio.baikal_client import OpenIDClient as AsyncOpenIDClient
    from clients.exceptions import AuthserverError

    arguments = [os.environ[name] for name in ("ENDPOINT", "SECRET", "ISSUER", "CERTS")]
    arguments.insert(1, "sdk")
    client = OpenIDClient(*arguments)

    def told(error):
        return {"error": str(error)}

    try:
        sync = client.introspect(client.grant_user("tel:+34600000000", ["a"], ["p"]))
    except AuthserverError as error:
        sync = told(error)

    async def main():
        client = AsyncOpenIDClient(*arguments)
        try:
            token = await client.grant_user("tel:+34600000000", ["a"], ["p"])
        except AuthserverError as error:
            return told(error)
        return await client.introspect(token)

    print(json.dumps([sync, asyncio.run(main())]))
"""


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    # Two keys: the SDK takes either at random, and says in its assertion not which.
    for number in (0, 1):
        (tmp_path / f"{number}.pem").write_text(pem("RS256", number))
    return tmp_path


def test_the_sdks_user_grant_is_refused_for_its_missing_kid(
    sdk: Callable[..., Any], start: Callable[..., Authserver], certs: Path
) -> None:
    keys = json.dumps(sdk(PUBLIC_KEYS, CERTS=str(certs)))
    authserver = start()
    with publishing(lambda: keys) as issuer:
        told = sdk(
            GRANT_USER,
            ENDPOINT=authserver.endpoint,
            SECRET="secret",
            ISSUER=issuer,
            CERTS=str(certs),
        )
    for outcome in told:
        assert "invalid_grant" in outcome["error"]
        assert "its header has no kid" in outcome["error"]
        assert "name the key that signed" in outcome["error"]
    log = authserver.stop()
    assert log.count("400 invalid_grant") == 2
    assert "no kid" in log
    assert "34600000000" not in log


def test_the_sdks_user_grant_is_accepted_by_a_lenient_authserver(
    sdk: Callable[..., Any], start: Callable[..., Authserver], certs: Path
) -> None:
    keys = json.dumps(sdk(PUBLIC_KEYS, CERTS=str(certs)))
    assert all("kid" not in key for key in json.loads(keys)["keys"]), "as the SDK publishes them"
    authserver = start("--lenient")
    with publishing(lambda: keys) as issuer:
        introspected = sdk(
            GRANT_USER,
            ENDPOINT=authserver.endpoint,
            SECRET="secret",
            ISSUER=issuer,
            CERTS=str(certs),
        )
    for answer in introspected:
        assert answer["active"] is True, answer
        assert (answer["sub"], answer["scope"], answer["purpose"]) == ("tel:+34600000000", "a", "p")
    assert "34600000000" not in authserver.stop()


def test_a_lenient_authserver_still_refuses_the_key_of_somebody_else(
    sdk: Callable[..., Any], start: Callable[..., Authserver], certs: Path, tmp_path: Path
) -> None:
    others = tmp_path / "others"
    others.mkdir()
    (others / "2.pem").write_text(pem("RS256", 2))
    (certs / "1.pem").unlink()
    keys = json.dumps(sdk(PUBLIC_KEYS, CERTS=str(others)))
    authserver = start("--lenient")
    with publishing(lambda: keys) as issuer:
        told = sdk(
            GRANT_USER,
            ENDPOINT=authserver.endpoint,
            SECRET="secret",
            ISSUER=issuer,
            CERTS=str(certs),
        )
    for outcome in told:
        assert "no published key verifies it" in outcome["error"]
