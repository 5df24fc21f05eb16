"""Performing effects: what a flow asks for, done with this process's means, sync or async."""

from __future__ import annotations

import contextvars
import copy
import dataclasses
import json
import logging
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, TypeVar

from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured

from django_baikal import correlation
from django_baikal.calls import Call
from django_baikal.exceptions import AuthserverUnavailable, ConfigurationError
from django_baikal.flights import Abandoned, Flights
from django_baikal.protocol import effects
from django_baikal.protocol.config import ClientConfig
from django_baikal.protocol.driver import arun, run
from django_baikal.protocol.recent import Recent
from django_baikal.protocol.strict_json import canonical
from django_baikal.protocol.urls import origin
from django_baikal.transports.base import AsyncTransport, Transport, routes

if TYPE_CHECKING:
    from django_baikal.keys.base import Keyring, KeyStore

T = TypeVar("T")

logger = logging.getLogger("django_baikal.client")
cache_logger = logging.getLogger("django_baikal.cache")

#: Threads of one client for what coroutines must not do themselves: signing, and the cache.
THREADS = 8
#: Copies of the cache, and with Redis so many connections, that a client keeps for its callers.
COPIES = 64
#: With less time than this nobody begins to run for others, in seconds.
IN_TIME = 0.05
#: How long a coroutine may take to clean up after its deadline, in seconds.
CLEANUP = 0.1
_AtOnce: TypeAlias = (
    effects.Now | effects.Recall | effects.Remember | effects.RandomToken | effects.Background
)
_CACHE_KEY = "cache-key"
_CACHE_VALUE = "cache-value"


class Caches:
    """Django's cache of one alias, each copy of it lent to one caller at a time.

    Django makes one for each thread, and in async code for each request. One of Redis would connect
    anew each time, and the connection would stay until the garbage is collected.
    """

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self._free: list[tuple[Any, Any]] = []

    def take(self) -> tuple[Any, Any]:
        """Give a copy, as the second of two, to be given back; raises ImproperlyConfigured."""
        settings = caches.settings
        try:
            kept = self._free.pop()
            if kept[0] is settings:
                return kept
        except IndexError:  # there is none, or not any more
            pass
        # In a context of its own, where there is no copy yet that somebody else uses.
        return settings, contextvars.Context().run(caches.__getitem__, self.alias)

    def give_back(self, taken: tuple[Any, Any]) -> None:
        """Let the next caller have it, unless more are free than a busy process needs."""
        if len(self._free) < COPIES:
            self._free.append(taken)


class Process:
    """What belongs to one process of one client, and is made anew after a fork."""

    def __init__(self, config: ClientConfig) -> None:
        self.config = config
        self.flights = Flights()
        # Apart from those of the threads: a thread that waited for a task of the event loop that
        # it blocks would wait for ever.
        self.async_flights = Flights()
        self.caches = Caches(config.cache)
        self._made: dict[str, Any] = {}
        self.executor = ThreadPoolExecutor(THREADS, thread_name_prefix="django-baikal-aside")
        if config.allow_http:
            logger.warning(
                "BAIKAL[%r]: ALLOW_HTTP is True: secrets and tokens may travel in clear.",
                config.alias,
            )

    @property
    def transport(self) -> Transport:
        """The pooled sync transport."""
        if "sync" not in self._made:
            from django_baikal.transports.requests import RequestsTransport

            self._made.setdefault("sync", RequestsTransport(self.config))
        made: Transport = self._made["sync"]
        return made

    @property
    def async_transport(self) -> AsyncTransport:
        """The async transport: aiohttp where it is installed, else threads over the sync one."""
        if "async" not in self._made:
            new: AsyncTransport
            try:
                from django_baikal.transports.aiohttp import AiohttpTransport
            except ImportError:
                from django_baikal.transports.threaded import ThreadedTransport

                new = ThreadedTransport(self.transport)
            else:
                new = AiohttpTransport(self.config)
            self._made.setdefault("async", new)
        made: AsyncTransport = self._made["async"]
        return made


def key_stores(config: ClientConfig) -> list[KeyStore]:
    """Make the stores of our keys, the one whose key signs first."""
    stores: list[KeyStore] = []
    if config.keys:
        from django.utils.module_loading import import_string

        try:
            backend = import_string(config.keys["BACKEND"])
        except ImportError as error:
            raise ConfigurationError(
                f"BAIKAL[{config.alias!r}]: KEYS: BACKEND cannot be imported: {error}"
            ) from None
        stores.append(backend(config, config.keys["OPTIONS"]))
    if config.client_keys:
        from django_baikal.keys.settings import SettingsKeyStore

        stores.append(SettingsKeyStore(config.client_keys))
    if config.private_certs_path:
        from django_baikal.keys.directory import DirectoryKeyStore

        stores.append(DirectoryKeyStore(config.private_certs_path))
    return stores


class Runtime:
    """What a client keeps between calls: its keys, its memory, and the means of each process."""

    def __init__(self, config: ClientConfig) -> None:
        self.config = config
        self.memory: dict[str, Any] = {}
        self.recent = Recent()
        self._processes: dict[int, Process] = {}
        self._keyring: Keyring | None = None

    @property
    def process(self) -> Process:
        """This process's means; a child never touches its parent's connections."""
        pid = os.getpid()
        found = self._processes.get(pid)
        if found is None:
            found = self._processes.setdefault(pid, Process(self.config))
        return found

    @property
    def keyring(self) -> Keyring:
        """Our keys."""
        if self._keyring is None:
            from django_baikal.keys.base import Keyring

            self._keyring = Keyring(key_stores(self.config))
        return self._keyring

    def sign(self, claims: Any) -> str:
        """Sign with the key that signs now."""
        return self.keyring.signing_key().sign(claims)


class Performer:
    """Performs the effects of one call, within ``timeout`` seconds in all.

    Its requests carry the correlator that is bound where it is made.
    """

    def __init__(self, runtime: Runtime, timeout: float) -> None:
        self.runtime = runtime
        self.correlator = correlation.current()
        self.timeout = timeout
        self.deadline = time.monotonic() + timeout
        self._cache_failed = False
        self._cache_keys: dict[tuple[Any, ...], str] = {}

    def left(self) -> float:
        """Give the seconds that are left, or raise AuthserverUnavailable."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            self._too_late()
        return left

    def _too_late(self) -> NoReturn:
        raise AuthserverUnavailable(
            f"BAIKAL[{self.runtime.config.alias!r}]: no answer within {self.timeout:g} seconds.",
            code="timeout",
        )

    def _correlated(self, request: effects.Request) -> effects.Request:
        """Add the correlator, unless there is none, or the caller gave a header of that name."""
        if self.correlator is None or any(
            name.lower() == correlation.HEADER.lower() for name in request.headers
        ):
            return request
        headers = {**request.headers, correlation.HEADER: self.correlator}
        return dataclasses.replace(request, headers=headers)

    # -- sync -------------------------------------------------------------------------------------

    def perform(self, effect: effects.Effect) -> Any:
        """Perform ``effect`` and wait for it."""
        if isinstance(effect, _AtOnce):  # most are
            return self._at_once(effect)
        match effect:
            case effects.CacheGet(name):
                key = self._key(name)
                return _opened(self._tried("get", key), key)
            case effects.Fetch(request, endpoint):
                transport = routes.get(origin(request.url)) or self.runtime.process.transport
                left = self.left()
                with Call(self.runtime.config.alias, endpoint) as call:
                    return call.answered(transport.send(self._correlated(request), timeout=left))
            case effects.Share(name, work):
                return self._share(name, work)
            case effects.Sign(claims):
                return self.runtime.sign(claims)
            case effects.Sleep(seconds):
                time.sleep(min(seconds, self.left()))
                return None
            case effects.CacheSet(name, value, ttl):
                key = self._key(name)
                self._tried("set", key, _sealed(value, key), ttl)
                return None
            case effects.CacheAdd(name, value, ttl):
                key = self._key(name)
                return self._tried("add", key, _sealed(value, key), ttl, otherwise=True)
            case effects.CacheDelete(name):
                self._tried("delete", self._key(name), always=True)
                return None
            case _:  # pragma: no cover: every effect is listed here or there
                raise TypeError(effect)

    def _at_once(self, effect: _AtOnce) -> Any:
        """Perform what waits for nothing, and is the same in async code."""
        match effect:
            case effects.Now():
                now = time.monotonic()
                return effects.Instant(time.time(), now, self.deadline - now)
            case effects.RandomToken(size):
                return secrets.token_urlsafe(size)
            case effects.Recall(name):
                return self.runtime.memory.get(name)
            case effects.Remember(name, value):
                self.runtime.memory[name] = value
            case _:
                self._aside(effect.name, effect.work)
        return None

    def _share(self, name: object, work: Any) -> Any:
        flights = self.runtime.process.flights
        while True:
            future, runs = flights.join(name)
            if runs:
                try:
                    result = run(work(), self.perform)
                except BaseException as error:
                    flights.fail(name, future, error)
                    raise
                flights.land(name, future, result)
                return result
            try:
                failure = future.exception(self.left())
            except TimeoutError:
                flights.leave(name, future)
                self._too_late()
            if not self._runs_itself(failure):
                return _outcome(future, failure)

    def _runs_itself(self, error: BaseException | None) -> bool:
        """Tell whether the failure was only the other caller's, so that this one has to try."""
        if isinstance(error, Abandoned):
            return True
        hurried = isinstance(error, AuthserverUnavailable) and error.code == "timeout"
        return hurried and self.deadline - time.monotonic() > IN_TIME

    def _aside(self, name: object, work: Any) -> None:
        flights = self.runtime.process.flights
        future, runs = flights.join(("background", name))
        if not runs:
            return
        performer = Performer(self.runtime, self.runtime.config.timeout)

        def target() -> None:
            correlation.adopt(performer.correlator)
            try:
                run(work(), performer.perform)
            except Exception:
                logger.exception("BAIKAL[%r]: a renewal failed.", self.runtime.config.alias)
            finally:
                flights.land(("background", name), future, None)

        try:
            # A thread in async code too: a task would die with its event loop.
            threading.Thread(target=target, name="django-baikal", daemon=True).start()
        except RuntimeError:
            flights.land(("background", name), future, None)
            logger.warning("BAIKAL[%r]: no thread for a renewal.", self.runtime.config.alias)

    def _key(self, name: tuple[Any, ...]) -> str:
        """Give the cache's key for ``name``, which nobody can guess it from."""
        if (known := self._cache_keys.get(name)) is not None:
            return known
        from django_baikal.keys import sealing

        try:
            key = sealing.digest(canonical(name).encode(), purpose=_CACHE_KEY)
        except ImproperlyConfigured as error:
            raise self._unusable(error) from None
        return self._cache_keys.setdefault(name, f"django_baikal.{key}")

    def _unusable(self, error: Exception) -> ConfigurationError:
        return ConfigurationError(
            f"BAIKAL[{self.runtime.config.alias!r}]: cached tokens need Django's cache and "
            f"SECRET_KEY: {error}"
        )

    def _tried(
        self, operation: str, *args: Any, otherwise: Any = None, always: bool = False
    ) -> Any:
        """Do a cache operation; a cache that fails is as good as an empty one.

        Once it has failed, the call goes on without it: each operation may take until its timeout.
        """
        if self._cache_failed and not always:
            return otherwise
        caches = self.runtime.process.caches
        try:
            taken = caches.take()
        except ImproperlyConfigured as error:
            raise self._unusable(error) from None
        try:
            return getattr(taken[1], operation)(*args)
        except Exception as error:  # noqa: BLE001 - each cache library raises its own
            self._cache_failed = True
            cache_logger.warning(
                "The cache failed (%s); going on without it.", type(error).__name__
            )
            return otherwise
        finally:
            caches.give_back(taken)

    # -- async ------------------------------------------------------------------------------------

    async def aperform(self, effect: effects.Effect) -> Any:
        """Perform ``effect`` without holding up the event loop."""
        import asyncio

        if isinstance(effect, _AtOnce):
            return self._at_once(effect)
        match effect:
            case effects.Fetch(request, endpoint):
                transport = routes.get(origin(request.url)) or self.runtime.process.async_transport
                left = self.left()
                with Call(self.runtime.config.alias, endpoint) as call:
                    return call.answered(
                        await transport.asend(self._correlated(request), timeout=left)
                    )
            case effects.Share(name, work):
                return await self._ashare(name, work)
            case effects.Sleep(seconds):
                await asyncio.sleep(min(seconds, self.left()))
                return None
            case _:  # a signature, or the cache
                return await self._in_thread(effect)

    async def _in_thread(self, effect: effects.Effect) -> Any:
        """Perform ``effect`` in a thread of our own, for no longer than the call has time.

        Neither the loop's own threads nor asgiref's one for sync code: both may be held up by code
        that waits for this very call.
        """
        import asyncio

        executor = self.runtime.process.executor
        context = contextvars.copy_context()
        left = self.deadline - time.monotonic()
        if isinstance(effect, effects.CacheGet | effects.CacheDelete):
            left = max(left, CLEANUP)  # a lock is given back after the deadline, too
        try:
            async with asyncio.timeout(left):
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(
                    executor, lambda: context.run(and_disconnect, self.perform, effect)
                )
        except TimeoutError:
            self._too_late()

    async def _ashare(self, name: object, work: Any) -> Any:
        import asyncio

        flights = self.runtime.process.async_flights
        while True:
            future, runs = flights.join(name, asyncio.get_running_loop())
            if runs:
                try:
                    result = await arun(work(), self.aperform)
                except BaseException as error:
                    flights.fail(name, future, error)
                    raise
                flights.land(name, future, result)
                return result
            try:
                async with asyncio.timeout(self.left()):
                    failure = await asyncio.wrap_future(_own_view(future))
            except TimeoutError:
                flights.leave(name, future)
                self._too_late()
            if not self._runs_itself(failure):
                return _outcome(future, failure)


def and_disconnect(work: Callable[..., T], *args: Any) -> T:
    """Do ``work`` in a thread that is nobody's: close the connections that it has opened."""
    try:
        return work(*args)
    finally:
        from django.conf import settings

        if settings.configured and (database := sys.modules.get("django.db")):
            database.connections.close_all()


def _own_view(future: Future[Any]) -> Future[BaseException | None]:
    """Give a waiter's own future of the error or None: cancelling it cancels nobody else's."""
    seen: Future[BaseException | None] = Future()

    def report(done: Future[Any]) -> None:
        if seen.set_running_or_notify_cancel():
            seen.set_result(done.exception())

    future.add_done_callback(report)
    return seen


def _outcome(future: Future[Any], error: BaseException | None) -> Any:
    if error is not None:
        # A copy: one exception raised in many threads would collect all their tracebacks.
        # And not "from error": its frames hold what belongs to somebody else.
        raise copy.copy(error)
    return future.result()


def _sealed(value: Any, key: str) -> bytes:
    from django_baikal.keys import sealing

    return sealing.seal(json.dumps(value).encode(), purpose=_CACHE_VALUE, name=key.encode())


def _opened(sealed: Any, key: str) -> Any:
    if sealed is None:
        return None
    from django_baikal.keys import sealing

    data = sealing.unseal(sealed, purpose=_CACHE_VALUE, name=key.encode())
    return None if data is None else json.loads(data)
