"""What both scripts need: each package in an environment of its own, and what this machine is."""

from __future__ import annotations

import datetime as dt
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
#: Where the environments are made, and kept.
CACHE = HERE.parent / ".tox" / "benchmarks"


class NotMeasuredError(Exception):
    """A package could not be measured; says why, in a sentence."""


def say(text: str) -> None:
    """Show progress."""
    print(text, file=sys.stderr, flush=True)


def about() -> str:
    """Say when and on what this is measured."""
    today = dt.datetime.now(tz=dt.UTC).date()
    return (
        f"{today}, Python {platform.python_version()}, {platform.system()}, {os.cpu_count()} CPUs"
    )


def run(command: list[str], **options: Any) -> str:
    """Run a command, give what it prints; raise NotMeasuredError with its last line."""
    options = {"stdout": subprocess.PIPE, "text": True, **options}
    done: subprocess.CompletedProcess[str] = subprocess.run(command, check=False, **options)
    if done.returncode:
        last = ((done.stderr or done.stdout or "").strip() or "it said nothing").splitlines()[-1]
        raise NotMeasuredError(last)
    return done.stdout


def interpreter(version: str) -> str:
    """Find a Python of this version ("3.11"); raises NotMeasuredError."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = [str(path) for path in pyenv.glob(f"versions/{version}.*/bin/python")]
    found += filter(None, [shutil.which(f"python{version}")])
    check = f"import sys; sys.exit('%d.%d' % sys.version_info[:2] != {version!r})"
    for candidate in [sys.executable, *found]:
        if subprocess.run([candidate, "-c", check], capture_output=True, check=False).returncode:
            continue
        return candidate
    raise NotMeasuredError(f"Python {version} is needed, and there is none here.")


def environment(
    name: str, requirements: Iterable[str], cache: Path, base: str = sys.executable
) -> str:
    """Give the interpreter of an environment with these packages, made by ``base`` if need be.

    Raises NotMeasuredError.
    """
    asked = 'import sys; print("%d%d" % sys.version_info[:2])'
    place = cache / f"{name}-py{run([base, '-c', asked]).strip()}"
    python = str(place / ("Scripts" if os.name == "nt" else "bin") / "python")
    wanted = "\n".join(requirements)
    stamp = place / "installed.txt"
    if stamp.is_file() and stamp.read_text("utf-8") == wanted:
        return python
    say(f"{name}: is being installed into {place}")
    shutil.rmtree(place, ignore_errors=True)
    try:
        run([base, "-m", "venv", str(place)], stderr=subprocess.PIPE)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        run([*pip, *wanted.splitlines()], stderr=subprocess.PIPE)
    except NotMeasuredError as error:
        raise NotMeasuredError(f"{name} could not be installed, and is left out: {error}") from None
    stamp.write_text(wanted, "utf-8")
    return python
