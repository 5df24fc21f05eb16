"""JSON as the security rules want it: UTF-8, an object, no duplicate names, no NaN (RFC 8259)."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn, TypeGuard

#: No answer of an authserver is nested so deeply; what is may be too deep for whoever writes it.
DEPTH = 50


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return result


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is out of range")
    return number


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=_float)


#: Gives the one text of a JSON value, or raises TypeError, ValueError or RecursionError. Made once:
#: ``json.dumps`` makes an encoder each time that it is told anything.
canonical = json.JSONEncoder(allow_nan=False, sort_keys=True).encode


def loads_object(data: bytes) -> dict[str, Any]:
    """Parse a JSON object; raise ValueError with a reason that quotes nothing of the data."""
    try:
        value = _DECODER.decode(data.decode("utf-8"))
    except UnicodeDecodeError:
        wrong = "it is not UTF-8"
    except json.JSONDecodeError:
        wrong = "it is not JSON"
    except RecursionError:
        wrong = "it is nested too deeply"
    else:
        if isinstance(value, dict) and not _is_too_deep(value):
            return value
        wrong = "it is nested too deeply" if isinstance(value, dict) else "it is not a JSON object"
    # Not raised where those were caught: they hold all of the data, and would be its context.
    raise ValueError(wrong)


def _is_too_deep(value: dict[str, Any]) -> bool:
    level: list[Any] = [value]
    for _ in range(DEPTH):
        items = (each.values() if isinstance(each, dict) else each for each in level)
        level = [item for found in items for item in found if isinstance(item, dict | list)]
        if not level:
            return False
    return True


def is_number(value: Any) -> TypeGuard[float]:
    """Tell whether ``value`` is a JSON number: a finite int or float, never a bool."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e15  # larger ones are no time at all, and overflow when added to
