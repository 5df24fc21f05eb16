"""``clients``: the project's clients by alias, in step with the settings."""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

from django.views.decorators.debug import sensitive_variables

from django_baikal import conf
from django_baikal.client import OpenIDClient
from django_baikal.exceptions import ConfigurationError


class _Made(NamedTuple):
    """A client, and what it was made from: as it is kept (None: ask each time), and as read."""

    origins: tuple[Any, ...] | None
    settings: dict[str, Any]
    client: OpenIDClient

    def __repr__(self) -> str:
        return "***"


class ClientHandler:
    """The clients of ``BAIKAL``: ``clients["default"]``, ``clients.default``, ``"eu" in clients``.

    A client is made when it is first asked for, and made anew when its entry of the settings, or
    its part of the environment, is not what it was made from.
    """

    def __init__(self) -> None:
        self._clients: dict[str, _Made] = {}
        self._renew_lock()
        # Another thread of the parent may hold the lock at the moment of the fork.
        if hasattr(os, "register_at_fork"):  # pragma: no branch: there is no fork on Windows
            os.register_at_fork(after_in_child=self._renew_lock)

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()

    def __getitem__(self, alias: str) -> OpenIDClient:
        made = self._clients.get(alias)
        if made is None or made.origins != conf.origins(alias):
            made = self._made(alias)
        return made.client

    @sensitive_variables()
    def _made(self, alias: str) -> _Made:
        origins, now = conf.origins(alias), conf.merged(alias)
        with self._lock:
            made = self._clients.get(alias)
            if made is not None and made.settings == now:
                found, client = made.settings, made.client
            else:
                found, client = copy.deepcopy(now), OpenIDClient.of(conf.client_config(alias))
            kept = copy.deepcopy(origins) if conf.is_settled(origins) else None
            made = self._clients[alias] = _Made(kept, found, client)
        return made

    def __getattr__(self, alias: str) -> OpenIDClient:
        # Names with an underscore are asked for by copy, pickle and others, never by people.
        if alias.startswith("_"):
            raise AttributeError(alias)
        try:
            return self[alias]
        except ConfigurationError as error:
            if alias in self:
                raise
            raise AttributeError(str(error)) from None

    def __contains__(self, alias: object) -> bool:
        return alias in conf.aliases()

    def __iter__(self) -> Iterator[str]:
        return iter(conf.aliases())


clients = ClientHandler()
