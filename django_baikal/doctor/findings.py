"""What an examination comes to: it passed, it failed and has a cure, or it was skipped."""

from __future__ import annotations

from typing import NamedTuple

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"


class Finding(NamedTuple):
    """What one examination found: what was seen, and what to do if it ``status`` is "failed"."""

    name: str
    status: str
    what: str
    cure: str = ""


class Failed(Exception):
    """Something is wrong: what was seen, and what to do."""

    def __init__(self, what: str, cure: str) -> None:
        super().__init__(what)
        self.cure = cure


class Skipped(Exception):
    """It cannot be told; ``needs``: the examination whose result is missing, if that is why."""

    def __init__(self, why: str = "", *, needs: str = "") -> None:
        super().__init__(why)
        self.needs = needs
