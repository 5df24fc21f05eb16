"""The layers of django_baikal: imports point down, or sideways inside one package.

Imports inside functions and under ``TYPE_CHECKING`` count as well: what a module needs to be
understood is what it depends on, whenever it is loaded.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import django_baikal

PACKAGE = Path(django_baikal.__file__).resolve().parent

# (layer, group, modules). In one layer a group may import itself, and nothing beside it. The errors
# are drawn above the core and yet lie below it, because the core raises them.
LAYERS = (
    (0, "errors", "exceptions"),
    (1, "core", "protocol"),
    (2, "config", "conf values signals correlation"),
    (3, "transports", "transports"),
    (3, "keys", "keys models migrations"),
    (4, "client", "handler client aio performers calls flights bearer_session"),
    (5, "engine", "authentication principals"),
    (6, "doors", "backends middleware decorators views checks doctor"),
    (7, "apps", "apps"),
    (7, "admin", "admin"),
    (7, "urls", "urls"),
    (7, "testing", "testing"),
    (8, "management", "management"),
    (8, "contrib", "contrib"),
)
# The rim (7 and 8) is imported by nobody; management may run the fake authserver of testing.
RIM, RIM_MAY = 7, {("management", "testing")}
CLIENT_SEES = "transports.base keys.base"
# Django, and what it brings, is for layer 2 and above.
DJANGO = "django asgiref"
THIRD_PARTY = {
    "django.core.exceptions": "exceptions",
    "jwt": "protocol.jwk protocol.jws keys",
    "cryptography": "protocol.jwk protocol.jws keys",
    # A session is one of requests, with a token.
    "requests": "transports.requests bearer_session",
    "urllib3": "transports.requests",
    "aiohttp": "transports.aiohttp",
    "yarl": "transports.aiohttp",
    "environ": "conf",
    "rest_framework": "contrib.rest_framework contrib.spectacular testing.rest_framework",
    "drf_spectacular": "contrib.spectacular",
    "ninja": "contrib.ninja",
    "prometheus_client": "contrib.prometheus",
    "opentelemetry": "contrib.opentelemetry",
    "pytest": "testing.fixtures",
}
# The core opens nothing, waits for nothing, and is told the time and what is random.
NOT_IN_CORE = "asyncio http.client os random secrets socket ssl threading time urllib.request uuid"


class Import(NamedTuple):
    target: str
    line: int
    at_import: bool


def inside(module: str, names: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in names.split())


def imports(node: ast.AST, package: list[str], at_import: bool = True) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, child.lineno, at_import)
        elif isinstance(child, ast.ImportFrom):
            base = package[: len(package) - child.level + 1] if child.level else []
            source = ".".join([*base, *filter(None, [child.module])])
            for alias in child.names:
                yield Import(f"{source}.{alias.name}", child.lineno, at_import)
        else:
            later = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) or (
                isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
            )
            yield from imports(child, package, at_import and not later)


def place(module: str) -> tuple[int, str] | None:
    return next(((n, group) for n, group, names in LAYERS if inside(module, names)), None)


def complaint(module: str, found: Import) -> str | None:
    """Say what is wrong with one import of ``module`` (names without ``django_baikal.``)."""
    target, _, at_import = found
    layer, group = place(module) or (0, "?")
    if not inside(target, "django_baikal"):
        if group == "core" and inside(target, NOT_IN_CORE):
            return "the core has no sockets, clock or randomness"
        if target.partition(".")[0] in sys.stdlib_module_names:
            return None
        if layer >= 2 and inside(target, DJANGO):
            return None
        allowed = (where for name, where in THIRD_PARTY.items() if inside(target, name))
        return None if any(inside(module, where) for where in allowed) else "not allowed here"
    name = target.removeprefix("django_baikal").removeprefix(".")
    if not module:  # django_baikal/__init__.py
        lazily = inside(name, "client handler") and not at_import
        fine = lazily or inside(name, "exceptions")
        return None if fine else "only the errors, and lazily the client"
    if not (placed := place(name)):
        return None if name == "__version__" else "import from the module, not from the package"
    below, their = placed
    if group == their:
        return None
    if below >= RIM and (group, their) not in RIM_MAY:
        return "nobody imports the rim"
    if below >= layer:
        return f"layer {layer} ({group}) may not import layer {below} ({their})"
    if group == "client" and below == 3 and at_import and not inside(name, CLIENT_SEES):
        return "chosen at run time: import it where it is used"
    return None


def name_of(path: Path, package: Path) -> str:
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def complaints(package: Path) -> list[str]:
    paths = {name_of(path, package): path for path in sorted(package.rglob("*.py"))}
    result = [f"{module}: has no layer" for module in paths if module and not place(module)]
    for module, path in paths.items():
        parents = ["django_baikal", *filter(None, module.split("."))]
        if path.name != "__init__.py":
            parents.pop()
        result += [
            f"{module or '__init__'}:{found.line}: {found.target}: {why}"
            for found in imports(ast.parse(path.read_text("utf-8")), parents)
            if (why := complaint(module, found))
        ]
    return result


def plant(directory: Path, module: str, line: str) -> list[str]:
    """Give the complaints about a bare tree in which only ``module`` imports anything."""
    for path in PACKAGE.rglob("*.py"):
        if place(name_of(path, PACKAGE)):
            bare = directory / path.relative_to(PACKAGE)
            bare.parent.mkdir(parents=True, exist_ok=True)
            bare.touch()
    (directory / f"{module}.py").parent.mkdir(parents=True, exist_ok=True)
    (directory / f"{module}.py").write_text(line, "utf-8")
    return complaints(directory)


def test_imports_point_down() -> None:
    assert complaints(PACKAGE) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("__init__", "from django_baikal.client import OpenIDClient"),
        ("__init__", "def f():\n    from django_baikal import conf"),
        ("exceptions", "from django.http import HttpResponse"),
        ("exceptions", "from django_baikal.protocol import jwk"),
        ("protocol/jwk", "from django.conf import settings"),
        ("protocol/jwk", "from django.core.exceptions import ImproperlyConfigured"),
        ("protocol/jwk", "import time"),
        ("protocol/jwk", "from urllib.request import urlopen"),
        ("protocol/flows", "import jwt"),
        ("protocol/flows", "def f():\n    from cryptography import x509"),
        ("protocol/flows", "from ..conf import client_config"),
        ("protocol/flows", "import asgiref.sync"),
        ("conf", "from django_baikal.keys.base import KeyStore"),
        ("conf", "import requests"),
        ("keys/formats", "from django_baikal.transports.base import Transport"),
        ("keys/formats", "import environ"),
        ("transports/aiohttp", "import requests"),
        ("transports/requests", "import aiohttp"),
        ("transports/requests", "from django_baikal import handler"),
        ("client", "from django_baikal.transports.requests import RequestsTransport"),
        ("client", "from django_baikal.keys import directory"),
        ("client", "from django_baikal.views import jwks"),
        ("client", "import unheard_of"),
        ("handler", "from django_baikal import clients"),
        ("handler", "def f():\n    from django_baikal.testing import FakeAuthserver"),
        ("handler", "if TYPE_CHECKING:\n    from django_baikal.middleware import Middleware"),
        ("principals", "from django_baikal.backends import IntrospectionBackend"),
        ("middleware", "from rest_framework.exceptions import APIException"),
        ("contrib/rest_framework/x", "import drf_spectacular"),
        ("contrib/spectacular", "from ninja import NinjaAPI"),
        ("views", "from django_baikal.urls import urlpatterns"),
        ("admin", "from django_baikal.apps import BaikalConfig"),
        ("testing/wire", "from django_baikal.management.commands import rotate_keys"),
        ("contrib/rest_framework/__init__", "from django_baikal.testing import FakeAuthserver"),
        ("management/commands/x", "from django_baikal.contrib.rest_framework import TokenHasScope"),
        ("unplaced", "import json"),
    ],
)
def test_a_planted_import_is_found(tmp_path: Path, module: str, line: str) -> None:
    found = plant(tmp_path, module, line)
    name = module.removesuffix("/__init__").replace("/", ".")
    assert [where.partition(":")[0] for where in found] == [name]


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("exceptions", "from django.core.exceptions import ImproperlyConfigured"),
        ("protocol/flows", "from django_baikal.exceptions import BaikalError"),
        ("keys/formats", "from . import base"),
        ("client", "from django_baikal.keys.base import KeyStore"),
        ("client", "def f():\n    from django_baikal.transports import requests"),
        ("management/commands/x", "from django_baikal.testing import FakeAuthserver"),
    ],
)
def test_what_is_allowed_is_not_complained_about(tmp_path: Path, module: str, line: str) -> None:
    assert plant(tmp_path, module, line) == []


@pytest.mark.parametrize(
    ("module", "further"),
    [
        ("django_baikal", {"django.db"}),
        # Django's own decorators load a part of django.db; a model would need settings.
        ("django_baikal.keys", {"django_baikal.models", "django_baikal.keys.operations"}),
    ],
)
def test_importing_the_package_is_cheap_and_needs_no_settings(
    module: str, further: set[str]
) -> None:
    heavy = {"requests", "aiohttp", "jwt", "cryptography", "environ", *further}
    heavy |= {"rest_framework", "drf_spectacular", "ninja", "pydantic"}
    environment = {k: v for k, v in os.environ.items() if k != "DJANGO_SETTINGS_MODULE"}
    loaded = subprocess.run(
        [sys.executable, "-c", f"import sys, {module}; print(*sys.modules)"],
        env=environment | {"PYTHONPATH": str(PACKAGE.parent)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert module in loaded
    assert heavy.isdisjoint(loaded)
