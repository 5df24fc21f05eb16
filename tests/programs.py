"""Programs in processes of their own that listen on loopback, and packages that npm installs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

OTHERS = Path(__file__).resolve().parent / "others"
_LISTENING = re.compile(r"(?:Listening at:|running (?:at|on)) (http://127\.0\.0\.1:\d+)")


@dataclass
class Program:
    """A program that runs: where it listens, and what it has printed so far."""

    url: str
    said: list[str]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


@contextmanager
def running(
    command: Sequence[str], environment: Mapping[str, str], *, cwd: Path | None = None
) -> Iterator[Program]:
    """Run a program, wait until it says where it listens, and end it."""
    with subprocess.Popen(
        command,
        env=environment,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        said: list[str] = []
        # It must not wait until somebody reads what it prints.
        reader = threading.Thread(target=said.extend, args=(process.stdout,))
        try:
            for line in process.stdout:
                said.append(line)
                if found := _LISTENING.search(line):
                    break
            else:
                pytest.fail("".join(said))
            reader.start()
            yield Program(found[1], said)
        finally:
            process.terminate()
            process.wait(60)
            if reader.ident is not None:
                reader.join(60)


def npm_packages() -> Path:
    """Give the directory that npm has installed the others' packages into; skip without npm.

    It is kept for the next time.
    """
    import fcntl  # not on Windows

    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("npm is not here, and with it neither oidc-provider nor jose")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True)
    if int(version.stdout[1:].partition(".")[0]) < 20:
        pytest.skip(f"oidc-provider needs Node.js 20, and this is {version.stdout.strip()}")
    caches = os.environ.get("TOX_WORK_DIR") or Path.home() / ".cache" / "django-baikal"
    directory = Path(caches) / "npm"
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # other workers may want to install the same
        if not (directory / "node_modules" / "oidc-provider").exists():
            shutil.copy(OTHERS / "package.json", directory)
            done = subprocess.run(
                [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts"],
                cwd=directory,
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            if done.returncode and not os.environ.get("CI"):
                pytest.skip(f"npm installs nothing: {done.stderr[-300:]}")
            assert not done.returncode, done.stderr[-2000:]
    return directory


def node(packages: Path, program: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """Give the command that runs a program of others/ on node, and its environment."""
    command = [shutil.which("node") or "node", str(OTHERS / program), *arguments]
    return command, {**os.environ, "PACKAGES": str(packages)}
