"""Fixtures for pytest: ``pytest_plugins = ["django_baikal.testing.fixtures"]`` in conftest.py."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from django.test import override_settings

from django_baikal import conf
from django_baikal.testing.authserver import FakeAuthserver
from django_baikal.testing.override import override_token

#: Settings about the real authserver that would not be true of the fake one.
_NOT_ITS_OWN = ("AUTHSERVER_ISSUER", "CLIENT_AUTH_METHOD", "ENDPOINT_ORIGINS")


@pytest.fixture
def baikal_authserver() -> Iterator[FakeAuthserver]:
    """Give a ``FakeAuthserver`` in memory, in place of the authserver of the alias ``default``.

    It knows the alias's CLIENT_ID, or else ``test-client``; all other settings stay. Each has a URL
    of its own, so no test finds in the cache what another one left there.
    """
    entries = conf.entries()
    own = conf.merged("default") if "default" in conf.aliases() else {}
    server = FakeAuthserver(
        endpoint=f"https://{secrets.token_hex(4)}.authserver.test",
        clients={own.get("CLIENT_ID") or "test-client": "test-secret"},
    )
    entry = {name: value for name, value in own.items() if name not in _NOT_ITS_OWN}
    settings = {**entries, "default": {**entry, **server.settings()}}
    with server.in_memory(), override_settings(BAIKAL=settings):
        yield server


@pytest.fixture
def baikal_token() -> Iterator[Callable[..., str]]:
    """Give ``override_token`` as a function: from its call on, until the end of the test."""
    with ExitStack() as stack:

        def begin(*args: Any, **options: Any) -> str:
            override = override_token(*args, **options)
            token = override.enable()
            stack.callback(override.disable)
            return token

        yield begin
