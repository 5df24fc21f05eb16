"""What Django packages do with the same bearer tokens, measured side by side.

    python benchmarks/bearer_table.py

Installs each package from the package index into an environment of its own, and measures it there
against one authserver on loopback: see README.md beside this file. Exit status: 0; 1 if a row of
django-baikal misses its target; 2 if another package could not be measured, which leaves it out.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import authserver
from environments import CACHE, HERE, NotMeasuredError, about, environment, run, say

OURS = "django-baikal"
Facts = dict[str, Any]


class Project(NamedTuple):
    """A package to measure: its module in ``projects``, and what pip installs for it."""

    module: str
    requirements: tuple[str, ...]


PROJECTS = {
    OURS: Project("baikal", ("-e", f"{HERE.parent}[rest-framework]")),
    "django-oauth-toolkit": Project("oauth_toolkit", ("django-oauth-toolkit",)),
    "mozilla-django-oidc": Project("mozilla", ("mozilla-django-oidc",)),
    "drf-oidc-auth": Project("drf_oidc_auth", ("drf-oidc-auth",)),
    "django-pyoidc": Project("pyoidc", ("django-pyoidc[drf]",)),
}
COMMON = (
    "Django>=6.1,<6.2" if sys.version_info >= (3, 12) else "Django>=5.2,<6",
    "djangorestframework>=3.16.1,<4",
    "requests",
)


# -- the rows -------------------------------------------------------------------------------------


class Row(NamedTuple):
    """A line of the table: what is shown of the facts, and whether they are at the target."""

    name: str
    target: str
    show: Callable[[Facts], str]
    met: Callable[[Facts], bool]


#: How long the tokens live that are issued, in seconds.
LIFETIME = 86400
#: The most that our warm authentication may add to a request, in ms.
ADDED = 0.1


def full(answer: Facts) -> str:
    """Show a status with the whole challenge."""
    challenge = answer["challenge"]
    return f"{answer['status']} `{challenge}`" if challenge else brief(answer)


def brief(answer: Facts) -> str:
    """Show a status with what a client can learn from it."""
    if answer["status"] == 200:
        return "200 anonymous" if answer["user"] == "AnonymousUser" else f"200 {answer['user']}"
    if answer["status"] == 503:
        return "503" + (" + Retry-After" if answer["retry_after"] else ", no Retry-After")
    challenge = answer["challenge"] or ""
    error = re.search(r'error="(\w+)"', challenge)
    if error:
        return f"{answer['status']} {error[1]}"
    nothing = ", no `error`" if challenge else ", no challenge"
    return str(answer["status"]) + (nothing if answer["status"] in (401, 403) else "")


def refused(answer: Facts) -> bool:
    """Tell whether a bad token got what RFC 6750 says."""
    return answer["status"] == 401 and 'error="invalid_token"' in (answer["challenge"] or "")


def shown_revoked(found: Facts) -> str:
    """Show for how long a revoked token goes on being accepted."""
    ends = {0: "refused at once", LIFETIME: "accepted until it expires"}
    text = ends.get(found["accepted"], f"accepted for {found['accepted']} s")
    return f"{text}; fresh view: {found['fresh']}" if found["fresh"] else text


def shown_calls(found: Facts) -> str:
    """Show the calls, and what else than 200 was answered."""
    other = {status: n for status, n in found["statuses"].items() if status != "200"}
    return f"{found['calls']}" + "".join(f"; {n} x {status}" for status, n in other.items())


def shown_good(found: Facts) -> str:
    """Show calls and queries; with users of Django's apart, where the package can do without."""
    numbers = [f"{found['queries']:g}"]
    if found["queries_user"] != found["queries"]:
        numbers.append(f"{found['queries_user']:g} with a Django user")
    return f"{found['calls']}; {', '.join(numbers)}"


def added(facts: Facts) -> float:
    """Give what authenticating costs, in ms."""
    return float(facts["cost"]["protected"] - facts["cost"]["open"])


def shown_cost(facts: Facts) -> str:
    """Show the ratio, and the difference."""
    ratio = facts["cost"]["protected"] / facts["cost"]["open"]
    return f"x {ratio:.2f}; +{added(facts):.3f} ms"


ROWS = (
    Row(
        "no token, protected view",
        '401 `Bearer realm="api"`',
        lambda facts: full(facts["no_token"]),
        lambda facts: (
            facts["no_token"]["status"] == 401
            and facts["no_token"]["challenge"] == 'Bearer realm="api"'
        ),
    ),
    Row(
        "bad token, protected view",
        "401 invalid_token",
        lambda facts: brief(facts["bad_token"]),
        lambda facts: refused(facts["bad_token"]),
    ),
    Row(
        "bad token, AllowAny view",
        "401 invalid_token",
        lambda facts: brief(facts["bad_token_anyone"]),
        lambda facts: refused(facts["bad_token_anyone"]),
    ),
    Row(
        "same bad token x 10: authserver calls",
        "1",
        lambda facts: str(facts["bad_repeated"]["calls"]),
        lambda facts: facts["bad_repeated"]["calls"] == 1,
    ),
    Row(
        "good token x 10, warm: authserver calls; queries per request",
        "0; 0, 1 with a Django user",
        lambda facts: shown_good(facts["good_repeated"]),
        lambda facts: facts["good_repeated"] == {"calls": 0, "queries": 0, "queries_user": 1},
    ),
    Row(
        "deactivated Django user",
        "401 invalid_token",
        lambda facts: brief(facts["deactivated"]),
        lambda facts: refused(facts["deactivated"]),
    ),
    Row(
        "client_credentials token",
        "200 ServicePrincipal",
        lambda facts: brief(facts["client"]),
        lambda facts: brief(facts["client"]) == "200 ServicePrincipal",
    ),
    Row(
        "token revoked at the authserver",
        "accepted for 60 s at most; a fresh view: 401",
        lambda facts: shown_revoked(facts["revoked"]),
        lambda facts: facts["revoked"]["accepted"] <= 60 and facts["revoked"]["fresh"] == 401,
    ),
    Row(
        "authserver answers 503: known token",
        "200",
        lambda facts: str(facts["failing"]["known"]["status"]),
        lambda facts: facts["failing"]["known"]["status"] == 200,
    ),
    Row(
        "authserver answers 503: new token",
        "503 + Retry-After",
        lambda facts: brief(facts["failing"]["new"]),
        lambda facts: brief(facts["failing"]["new"]) == "503 + Retry-After",
    ),
    Row(
        "20 callers at once, one cold token: authserver calls",
        "1",
        lambda facts: shown_calls(facts["concurrent"]),
        lambda facts: shown_calls(facts["concurrent"]) == "1",
    ),
    Row(
        "raw token at rest",
        "nowhere",
        lambda facts: ", ".join(facts["at_rest"]) or "nowhere",
        lambda facts: not facts["at_rest"],
    ),
    Row(
        "warm request: ratio to an unauthenticated view; added",
        f"+{ADDED:g} ms at most",
        shown_cost,
        lambda facts: added(facts) <= ADDED,
    ),
    Row(
        "tables that it adds to the database",
        "2 at most, none of them used",
        lambda facts: str(len(facts["tables"])),
        lambda facts: len(facts["tables"]) <= 2 and facts["good_repeated"]["queries"] == 0,
    ),
)


# -- measuring ------------------------------------------------------------------------------------


def measure(name: str, python: str) -> Facts:
    """Measure one package, with an authserver and a database of its own."""
    with authserver.running() as origin, tempfile.TemporaryDirectory() as directory:
        settings = {"BENCH_AUTHSERVER": origin, "BENCH_DATABASE": f"{directory}/db.sqlite3"}
        try:
            printed = run(
                [python, str(HERE / "worker.py"), PROJECTS[name].module, name],
                env={**os.environ, **settings},
            )
        except NotMeasuredError:
            raise NotMeasuredError(
                f"{name} could not be measured, and is left out: see its error above."
            ) from None
    found: Facts = json.loads(printed)
    return found


def judged(facts: Facts) -> dict[str, bool]:
    """Tell of each row whether these facts are at its target."""
    return {row.name: row.met(facts) for row in ROWS}


# -- the output -----------------------------------------------------------------------------------


def markdown(found: dict[str, Facts]) -> str:
    """Give the table, and a line that says what was measured."""
    heads = [f"{name} {facts['versions'][name]}" for name, facts in found.items()]
    lines = [
        "| | Target | " + " | ".join(heads) + " |",
        "|---" * (len(heads) + 2) + "|",
    ]
    for row in ROWS:
        cells = [row.show(facts) for facts in found.values()]
        if OURS in found:
            at = list(found).index(OURS)
            cells[at] += f" **{'ok' if row.met(found[OURS]) else 'short'}**"
        lines.append(f"| {row.name} | {row.target} | " + " | ".join(cells) + " |")
    common = {name: v for f in found.values() for name, v in f["versions"].items()}
    with_ = ", ".join(f"{name} {common[name]}" for name in ("Django", "djangorestframework"))
    return "\n".join([*lines, "", f"Measured on {about()}, {with_}."])


def as_json(found: dict[str, Facts]) -> str:
    """Give all that was found."""
    return json.dumps(
        {
            "measured": about(),
            "targets": {row.name: row.target for row in ROWS},
            "shown": {n: {row.name: row.show(f) for row in ROWS} for n, f in found.items()},
            "ok": judged(found[OURS]) if OURS in found else None,
            "facts": found,
        },
        indent=2,
    )


def main(arguments: Iterable[str] | None = None) -> int:
    """Measure, print, and give the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--only", action="append", choices=PROJECTS, help="measure this one; may be repeated"
    )
    parser.add_argument(
        "--here", action="store_true", help=f"measure the {OURS} of this interpreter"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, with all that was found")
    parser.add_argument(
        "--cache",
        type=Path,
        default=CACHE,
        help="where the environments are made, and kept (%(default)s)",
    )
    options = parser.parse_args(None if arguments is None else list(arguments))
    found: dict[str, Facts] = {}
    problems = []
    for name in options.only or PROJECTS:
        try:
            own = options.here and name == OURS
            wanted = (*PROJECTS[name].requirements, *COMMON)
            cache = options.cache.resolve()
            python = sys.executable if own else environment(name, wanted, cache)
            found[name] = measure(name, python)
        except NotMeasuredError as error:
            say(str(error))
            problems.append(name)
    if found:
        print(as_json(found) if options.json else markdown(found))
    short = [row for row, ok in judged(found[OURS]).items() if not ok] if OURS in found else []
    for row in short:
        say(f"{OURS} misses its target: {row}.")
    return 1 if short or OURS in problems else 2 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
