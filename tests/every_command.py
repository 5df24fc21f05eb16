"""Run each command that keeps keys, in one process, and print a line of JSON for each.

The line has the exit status, the sentence on standard error, and what else was printed. A
traceback ends it all.
"""

from __future__ import annotations

import io
import json
import sys

import django

django.setup()

from django.core.management import CommandError, call_command  # noqa: E402

UNTIL = "2036-01-01T00:00:00Z"


def commands(kid: str, path: str) -> list[list[str]]:
    """Give each command; of those that change something, with all that they need."""
    return [
        ["rotate_keys"],
        ["rotate_keys", "--check"],
        ["rotate_keys", "--now"],
        ["rotate_keys", "--emergency"],
        ["rotate_keys", "--emergency", f"--kid={kid}"],
        ["rotate_keys", "--dry-run"],
        ["rotate_keys", "--format=json"],
        ["baikal_keys", "list"],
        ["baikal_keys", "show", kid],
        ["baikal_keys", "generate"],
        ["baikal_keys", "import", path],
        ["baikal_keys", "export", kid],
        ["baikal_keys", "postpone", kid, f"--until={UNTIL}"],
        ["baikal_keys", "revoke", kid, "--reason=test"],
        ["baikal_keys", "prune"],
        ["baikal_keys", "reencrypt"],
        ["baikal_keys", "reencrypt", "--check"],
    ]


def attempt(command: list[str], *more: str) -> tuple[int, str, str]:
    """Run a command: its exit status, what it says on standard error, and what it prints."""
    out, err = io.StringIO(), io.StringIO()
    try:
        call_command(*command, *more, stdout=out, stderr=err)
    except CommandError as error:
        return error.returncode, err.getvalue() + str(error), out.getvalue()
    return 0, err.getvalue(), out.getvalue()


if __name__ == "__main__":
    for each in commands(*sys.argv[1:]):
        print(json.dumps(attempt(each)))  # noqa: T201
