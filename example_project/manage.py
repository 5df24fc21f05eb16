#!/usr/bin/env python
"""Django's command line: the door of the developer, hence DEBUG unless told otherwise."""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import ExitStack

from django.core.management import execute_from_command_line


def main(arguments: list[str]) -> None:
    """Run a command; the demo's keys are in a database of its own, which is gone afterwards."""
    with ExitStack() as stack:
        if arguments[1:2] == ["demo"]:
            # What the shell has exported is meant for another project.
            for name in ("DJANGO_SETTINGS_MODULE", "DEBUG", "SECURE_SSL_REDIRECT", "CACHE_URL"):
                os.environ.pop(name, None)
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="example-"))
            os.environ["DEMO_DATABASE"] = os.path.join(directory, "keys.sqlite3")
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example.settings")
        os.environ.setdefault("DEBUG", "true")
        execute_from_command_line(arguments)


if __name__ == "__main__":
    main(sys.argv)
