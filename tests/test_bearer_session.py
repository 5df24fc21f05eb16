"""Sessions: who gets the token and the correlator, and who must not, whatever leads there."""

from __future__ import annotations

import gc
import io
import os
import ssl
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
import requests
from django.test import RequestFactory, override_settings
from django.views.debug import ExceptionReporter
from loopback import Connection, Server, free_port, proxying, reply, running
from requests.adapters import BaseAdapter, HTTPAdapter
from stage import both_ways, counted, pem, publishing

from django_baikal import OpenIDClient, clients
from django_baikal.bearer_session import BearerSession
from django_baikal.correlation import bound
from django_baikal.exceptions import AuthserverUnavailable, ConfigurationError
from django_baikal.testing import FakeAuthserver

trustme = pytest.importorskip("trustme")


@pytest.fixture
def authserver(settings: Any) -> Iterator[FakeAuthserver]:
    backend = "django.core.cache.backends.locmem.LocMemCache"
    settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": str(uuid.uuid4())}}
    with publishing(lambda: str(OpenIDClient().get_jwk_set())) as issuer, counted() as (fake, _):
        entry = fake.settings(ISSUER=issuer, CLIENT_KEYS=[{"key": pem()}])
        with override_settings(BAIKAL={"default": entry}):
            yield fake


class Api:
    """An API on loopback that keeps what it gets, and answers as ``answer`` says: bytes."""

    def __init__(self, answer: Callable[[bytes], bytes] = lambda raw: reply(b"fine")) -> None:
        self.answer = answer
        self.server: Server = None  # type: ignore[assignment]

    def handle(self, connection: Connection) -> None:
        while raw := connection.request():
            if b"\r\ntransfer-encoding: chunked" in raw.lower():
                while not connection._buffer.endswith(b"0\r\n\r\n"):
                    connection._more()
                self.server.requests[-1] += connection._buffer
                connection._buffer = b""
            connection.send(self.answer(raw))

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def requests(self) -> list[bytes]:
        return self.server.requests

    def headers(self, name: str) -> list[str | None]:
        """Give the header of each request that came, None where it has none."""
        found: list[str | None] = []
        for raw in self.requests:
            head = raw.partition(b"\r\n\r\n")[0].decode("latin-1")
            named = [line.split(": ", 1) for line in head.split("\r\n")[1:]]
            values = [value for key, value in named if key.lower() == name.lower()]
            assert len(values) <= 1
            found.append(values[0] if values else None)
        return found

    @property
    def tokens(self) -> list[str | None]:
        return self.headers("Authorization")


@pytest.fixture
def api_of() -> Iterator[Callable[..., Api]]:
    """Give what runs APIs."""
    with ExitStack() as stack:

        def run(answer: Any = None, tls: ssl.SSLContext | None = None) -> Api:
            made = Api(answer) if answer else Api()
            made.server = stack.enter_context(running(made.handle, tls))
            return made

        yield run


class Recorder(BaseAdapter):
    """Keeps what would be sent, and answers with what ``answers`` has for the URL."""

    def __init__(self, answers: dict[str, tuple[int, dict[str, str]]] | None = None) -> None:
        super().__init__()
        self.answers = answers or {}
        self.sent: list[requests.PreparedRequest] = []
        self.options: list[dict[str, Any]] = []

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> Any:
        self.sent.append(request)
        self.options.append(options)
        answer = requests.Response()
        answer.status_code, headers = self.answers.get(str(request.url), (200, {}))
        answer.headers.update(headers)
        answer.url, answer.request, answer.raw = str(request.url), request, io.BytesIO()
        return answer

    def close(self) -> None:
        pass


def refusing(*, until: int = 1, status: str = "401 Unauthorized") -> Callable[[bytes], bytes]:
    """Answer so many requests with 401, and then with 200."""
    left = [until]

    def answer(raw: bytes) -> bytes:
        left[0] -= 1
        return reply(b"no", status=status) if left[0] >= 0 else reply(b"fine")

    return answer


def redirecting(status: int, to: Callable[[], str]) -> Callable[[bytes], bytes]:
    """Answer the path / with a redirect, and others with 200."""

    def answer(raw: bytes) -> bytes:
        if raw.split(b" ", 2)[1] == b"/":
            return reply(b"", status=f"{status} -", headers=(f"Location: {to()}",))
        return reply(b"fine")

    return answer


# -- what is added ----------------------------------------------------------------------------


def test_requests_to_the_origin_have_the_token(authserver: Any, api_of: Any) -> None:
    api = api_of()
    with clients["default"].session("read", origin=api.url) as session:
        assert session.get(f"{api.url}/a").text == "fine"
        assert session.post(f"{api.url}/b?c=d", json={"e": "f"}).ok
    assert api.tokens == [f"Bearer {clients['default'].get_token('read')}"] * 2
    assert api.requests[1].endswith(b'{"e": "f"}')
    assert authserver.requests.count("token") == 1


def test_the_token_is_that_of_get_token_for_the_same_arguments(
    authserver: Any, api_of: Any
) -> None:
    api, client = api_of(), clients["default"]
    identifier = {"type": "phone_number", "id": "+34600000001"}
    whom: dict[str, Any] = {
        "sub": "anna",
        "authorization_id": "1",
        "identifier": identifier,
        "acr": "2",
    }
    scopes = (name for name in ("read", "write"))  # can be read once
    session = client.session(scopes, ["fraud"], origin=api.url, **whom)
    wanted = client.get_token("read write", "fraud", **whom)
    identifier["id"] = "+34600000002"  # the session stays that of the first
    for _ in range(2):
        session.get(api.url)
    session.close()
    assert api.tokens == [f"Bearer {wanted}"] * 2
    assert authserver.requests.count("token") == 1


def test_the_correlator_goes_along_if_there_is_one(authserver: Any, api_of: Any) -> None:
    api = api_of()
    with clients["default"].session("read", origin=api.url) as session:
        with bound("c-1"):
            session.get(api.url)
            session.get(api.url, headers={"x-correlator": "mine"})
        session.get(api.url)
    assert api.headers("X-Correlator") == ["c-1", "mine", None]


def test_threads_that_share_a_session_send_each_its_own(authserver: Any, api_of: Any) -> None:
    api = api_of(reply)
    with clients["default"].session("read", origin=api.url) as session:

        def one(number: int) -> bool:
            with bound(f"c-{number}-"):
                answer = session.get(f"{api.url}/{number}-")
            return answer.text.startswith(f"GET /{number}- ") and f": c-{number}-\r" in answer.text

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(one, range(40)))
    assert authserver.requests.count("token") == 1


def test_what_is_mounted_is_used(authserver: Any) -> None:
    recorder = Recorder()
    with clients["default"].session("read", origin="https://api.example") as session:
        session.mount("https://", recorder)
        session.get("https://api.example/a")
    assert recorder.sent[0].headers["Authorization"].startswith("Bearer ")


def test_a_request_without_a_timeout_has_the_clients(authserver: Any) -> None:
    recorder = Recorder({"https://api.example/r": (302, {"Location": "/"})})
    with OpenIDClient(timeout=3).session(origin="https://api.example") as session:
        session.mount("https://", recorder)
        session.get("https://api.example/r")
        session.get("https://api.example/", timeout=(1, 2))
        session.send(session.prepare_request(requests.Request("GET", "https://api.example/")))
    assert [each["timeout"] for each in recorder.options] == [3, 3, (1, 2), 3]


def test_an_api_that_hangs_is_not_waited_for(authserver: Any) -> None:
    with running(lambda connection: connection.hang() if connection.request() else None) as api:
        client = OpenIDClient(timeout=2)
        client.get_token("read", timeout=60)
        with client.session("read", origin=api.url) as session, pytest.raises(requests.Timeout):
            session.get(api.url)
        api.stopping.set()


def test_the_authservers_tls_settings_are_not_the_apis(authserver: Any) -> None:
    client = OpenIDClient(verify_certs=False, trust_env=False)
    with client.session("read", origin="https://api.example") as session:
        assert (session.verify, session.cert, session.trust_env) == (True, None, False)
    with OpenIDClient().session("read", origin="https://api.example") as session:
        assert session.trust_env is True


def test_a_client_loads_no_requests_for_a_session_that_nobody_makes() -> None:
    script = "import sys; from django_baikal import clients; print(*sys.modules)"
    environment = {k: v for k, v in os.environ.items() if k != "DJANGO_SETTINGS_MODULE"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert {"django_baikal.client"} <= set(done.stdout.split())
    assert {"requests", "django_baikal.bearer_session"}.isdisjoint(done.stdout.split())


# -- the origin -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "origin"),
    [
        ("https://api.example", "https://api.example"),
        ("https://API.Example:443/", "https://api.example"),
        ("HTTPS://api.example:8443", "https://api.example:8443"),
        ("http://localhost", "http://localhost"),
        ("http://127.0.0.1:80/", "http://127.0.0.1"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_an_origin_has_one_spelling(given: str, origin: str) -> None:
    assert clients["default"].session(origin=given).origin == origin


@pytest.mark.parametrize(
    "given",
    [
        *[
            "",
            "api.example",
            "//api.example",
            "ftp://api.example",
            "https://",
            "https:/api.example",
        ],
        *["https://api.example/v1", "https://api.example/?a=b", "https://api.example/#a"],
        *[
            "https://user:pass@api.example",
            "https://api.example\\.evil.example",
            "https://b\u00fc.ch",
        ],
        *["https://api.example\r\n", " https://api.example", "https://api.example:x", None, 1],
    ],
)
def test_what_is_no_origin_is_refused(given: Any) -> None:
    with pytest.raises(ConfigurationError, match="origin of a session must be https://host"):
        clients["default"].session(origin=given)


def test_plain_http_is_for_this_machine_or_allowed() -> None:
    with pytest.raises(ConfigurationError, match="ALLOW_HTTP lets plain http pass"):
        clients["default"].session(origin="http://api.example")
    client = OpenIDClient(allow_http=True)
    assert client.session(origin="http://api.example").origin == "http://api.example"


def test_wrong_arguments_are_refused_at_once() -> None:
    for wrong in ({"scopes": "a\u00e4"}, {"acr": "2"}, {"sub": ""}):
        with pytest.raises(ConfigurationError):
            clients["default"].session(origin="https://api.example", **wrong)


@pytest.mark.parametrize(
    "url",
    [
        "https://api.example",
        "https://API.EXAMPLE/a",
        "HTTPS://api.example:443/a?b=c#d",
        "https://api.example/@evil.example/%20/\u00e4|^{}",
        "  https://api.example/",
        "https://api.example?a=b@evil.example",
        "https://api.example\\@evil.example/",  # a path, as requests writes it
    ],
)
def test_the_same_origin_in_another_spelling_is_the_same(authserver: Any, url: str) -> None:
    recorder = Recorder()
    with clients["default"].session("read", origin="https://api.example") as session:
        session.mount("https://", recorder)
        session.get(url)
    assert "Authorization" in recorder.sent[0].headers


OTHERS = [
    "http://api.example/",
    "https://api.example:8443/",
    "https://api.example:80/",
    "https://api.example./",
    "https://evil.example/",
    "https://api.example.evil.example/",
    "https://xapi.example/",
    "https://sub.api.example/",
    "https://api.example@evil.example/",
    "https://evil.example@api.example/",
    "https://user:password@api.example/",
    "https://api.example%2eevil.example/",
    "https://evil.example\\@api.example/",
    "https://evil.example#@api.example/",
    "https://evil.example?@api.example/",
    "https://\u0430pi.example/",  # a Cyrillic "a"
]


@pytest.mark.parametrize("url", OTHERS)
def test_a_request_to_another_origin_is_refused(authserver: Any, url: str) -> None:
    recorder = Recorder()
    with clients["default"].session("read", origin="https://api.example") as session:
        for prefix in ("https://", "http://"):
            session.mount(prefix, recorder)
        with pytest.raises(
            ConfigurationError, match=r"for https://api\.example, and not"
        ) as caught:
            session.get(url)
        assert caught.value.code == "other_origin"
        assert "password" not in str(caught.value)
        # Whoever makes the request by hand gets it sent, and nothing of ours with it.
        made = requests.Request("GET", url, headers={"X-Correlator": "mine"}).prepare()
        made.headers["Authorization"] = "Basic of-somebody"
        with bound("c-1"):
            session.send(made)
    (sent,) = recorder.sent
    assert {"Authorization", "X-Correlator"}.isdisjoint(sent.headers)
    assert len(authserver.requests) == 0


@pytest.mark.parametrize(
    "url",
    [
        *["https:///a", "https://", "mailto:a@b.c", "https://[::1", "a/b"],
        *["https://\uff41pi.example/", "https://api\u3002example/"],  # wide letter, wide dot
    ],
)
def test_what_is_no_url_gets_no_token(authserver: Any, url: str) -> None:
    recorder = Recorder()
    with clients["default"].session("read", origin="https://api.example") as session:
        for prefix in ("https://", "http://", "mailto:"):
            session.mount(prefix, recorder)
        with pytest.raises((ConfigurationError, requests.RequestException)):
            session.get(url)
    assert recorder.sent == []


@pytest.mark.parametrize("host", ["localhost", "127.1", "2130706433", "0x7f.1", "127.0.0.2"])
def test_another_name_of_the_same_machine_is_another_origin(
    authserver: Any, api_of: Any, host: str
) -> None:
    api = api_of()
    with clients["default"].session("read", origin=api.url) as session:
        with pytest.raises(ConfigurationError):
            session.get(f"http://{host}:{api.server.port}/")
        other = f"http://{host}:{api.server.port}"
        assert clients["default"].session(origin="http://localhost:1").origin != other
    assert api.requests == []


@pytest.mark.parametrize(
    "given",
    [{"auth": ("user", "password")}, {"headers": {"authorization": "Basic x"}}],
)
def test_other_credentials_are_refused(authserver: Any, api_of: Any, given: Any) -> None:
    api = api_of()
    with clients["default"].session("read", origin=api.url) as session:
        with pytest.raises(ConfigurationError, match="sets Authorization itself") as caught:
            session.get(api.url, **given)
        assert caught.value.code == "unsendable_request"
    assert api.requests == []


# -- redirects --------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_redirect_to_another_origin_is_followed_without_token_and_correlator(
    authserver: Any, api_of: Any, status: int, method: str
) -> None:
    other = api_of()
    api = api_of(redirecting(status, lambda: f"{other.url}/there"))
    with clients["default"].session("read", origin=api.url) as session, bound("c-1"):
        answer = session.request(method, api.url, data=None if method == "GET" else b"body")
    assert answer.text == "fine"
    assert api.tokens == [f"Bearer {clients['default'].get_token('read')}"]
    assert len(other.requests) == 1
    everything = b"".join(other.requests).lower()
    assert b"authorization" not in everything
    assert b"bearer" not in everything
    assert b"correlator" not in everything
    assert b"c-1" not in everything


def test_a_correlator_of_the_callers_own_stays_at_the_origin_too(
    authserver: Any, api_of: Any
) -> None:
    other = api_of()
    api = api_of(redirecting(302, lambda: other.url))
    with clients["default"].session("read", origin=api.url) as session:
        session.headers["X-Correlator"] = "mine"
        session.get(api.url)
    assert api.headers("X-Correlator") == ["mine"]
    assert other.headers("X-Correlator") == [None]


@pytest.mark.parametrize("to", ["/there", "there", "{url}/there", "//{host}/there"])
def test_a_redirect_within_the_origin_keeps_both(authserver: Any, api_of: Any, to: str) -> None:
    made: list[Api] = []
    api = api_of(
        redirecting(302, lambda: to.format(url=made[0].url, host=made[0].url.partition("://")[2]))
    )
    made.append(api)
    with clients["default"].session("read", origin=api.url) as session, bound("c-1"):
        answer = session.get(api.url)
    assert answer.url == f"{api.url}/there"
    assert api.tokens == [f"Bearer {clients['default'].get_token('read')}"] * 2
    assert api.headers("X-Correlator") == ["c-1", "c-1"]


@pytest.mark.parametrize(
    "to",
    [
        "http://localhost:{port}/there",
        "http://user:password@127.0.0.1:{port}/there",
        "http://127.0.0.1:{port}@127.0.0.1:{other}/there",
        "http://127.0.0.1:{other}\\@127.0.0.1:{port}/there",
        "\\\\127.0.0.1:{other}/there",
        "/\\127.0.0.1:{other}/there",
        "//127.0.0.1:{other}/there",
        "///127.0.0.1:{other}/there",
        "http:127.0.0.1:{other}/there",
        "http:///127.0.0.1:{other}/there",
        "HTTP://127.0.0.1:{other}/there",
        "\thttp://127.0.0.1:{other}/there",
        "http://127.0.0.1:{other}#@127.0.0.1:{port}/there",
        "http://127.0.0.1:{other}?@127.0.0.1:{port}/there",
        "http://127.0.0.1%3a{port}@127.0.0.1:{other}/there",
    ],
)
def test_no_spelling_of_a_redirect_takes_the_token_elsewhere(
    authserver: Any, api_of: Any, to: str
) -> None:
    """Wherever requests goes: what arrives at the other server, or by another name, has none."""
    other = api_of()
    made: list[Api] = []

    def target() -> str:
        return to.format(port=made[0].server.port, other=other.server.port)

    api = api_of(redirecting(302, target))
    made.append(api)
    session = clients["default"].session("read", origin=api.url)
    with session, bound("c-1"), suppress(requests.RequestException):
        session.get(f"{api.url}/")
    assert all(value is None for value in other.tokens + other.headers("X-Correlator"))
    for raw, token in zip(api.requests, api.tokens, strict=True):
        host = f"\r\nHost: {api.url.partition('://')[2]}\r\n".encode()
        assert host in raw or token is None


def test_whoever_was_led_to_does_not_choose_what_comes_with_the_token(
    authserver: Any, api_of: Any
) -> None:
    made: list[Api] = []
    other = api_of(redirecting(307, lambda: f"{made[0].url}/delete-everything"))
    api = api_of(redirecting(307, lambda: f"{other.url}/"))
    made.append(api)
    with clients["default"].session("read", origin=api.url) as session, bound("c-1"):
        session.post(f"{api.url}/", data=b"body")
        first, second = api.tokens
        assert first
        assert second is None
        assert api.headers("X-Correlator") == ["c-1", None]
        # And it is forgotten with the request.
        session.get(f"{api.url}/again")
    assert api.tokens[2] == first


def test_a_redirect_that_the_caller_follows_is_no_other(authserver: Any, api_of: Any) -> None:
    made: list[Api] = []
    other = api_of(redirecting(302, lambda: f"{made[0].url}/back"))
    api = api_of(redirecting(302, lambda: f"{other.url}/"))
    made.append(api)
    with clients["default"].session("read", origin=api.url) as session, bound("c-1"):
        answer = session.get(f"{api.url}/", allow_redirects=False)
        for _ in range(2):
            assert answer.next is not None
            assert "Authorization" not in answer.next.headers
            answer = session.send(answer.next, allow_redirects=False)
    assert answer.text == "fine"
    assert other.tokens == [None]
    assert api.tokens[1] is None


@pytest.mark.parametrize(
    ("origin", "to"),
    [
        # What requests itself lets pass with Authorization.
        ("http://localhost", "https://localhost/"),
        ("http://localhost", "https://localhost:443/"),
        ("https://api.example", "http://api.example/"),
        ("https://api.example", "http://api.example:443/"),
    ],
)
def test_another_scheme_is_another_origin(authserver: Any, origin: str, to: str) -> None:
    recorder = Recorder({f"{origin}/a": (302, {"Location": to})})
    with clients["default"].session("read", origin=origin) as session, bound("c-1"):
        for prefix in ("https://", "http://"):
            session.mount(prefix, recorder)
        session.get(f"{origin}/a")
    first, second = recorder.sent
    assert {"Authorization", "X-Correlator"} <= set(first.headers)
    assert {"Authorization", "X-Correlator"}.isdisjoint(second.headers)
    assert second.url == to


# -- the environment --------------------------------------------------------------------------


def test_a_netrc_is_never_read(
    authserver: Any, api_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password s3cret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    other = api_of()
    api = api_of(redirecting(302, lambda: other.url))
    assert b"Basic " in sent_plainly(api)  # requests itself does
    with clients["default"].session("read", origin=api.url) as session:
        session.get(api.url)
    assert api.tokens[1] == f"Bearer {clients['default'].get_token('read')}"
    assert other.tokens[-1] is None


def sent_plainly(api: Api) -> bytes:
    requests.get(api.url, timeout=60)
    return api.requests[0]


def test_plain_http_on_this_machine_goes_through_no_proxy(
    authserver: Any, api_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is allowed because it does not leave this machine; the proxy would read the token."""
    api, proxy = api_of(), api_of()
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    requests.get(api.url, timeout=60)
    assert len(proxy.requests) == 1  # so that one would be used
    with clients["default"].session("read", origin=api.url) as session:
        session.get(api.url)
        session.proxies = {"http": proxy.url}
        session.get(api.url)
        session.get(api.url, proxies={"http": proxy.url})
    assert len(api.requests) == 3
    assert len(proxy.requests) == 1


def test_a_proxy_sees_neither_of_a_request_over_tls(
    authserver: Any, api_of: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    api = api_of(None, context)
    with running(proxying()) as proxy:
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("https_proxy", proxy.url)
        # requests itself would prefer it to what is set at the session.
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", requests.certs.where())
        with clients["default"].session("read", origin=api.url) as session, bound("c-1"):
            with pytest.raises(requests.exceptions.SSLError):
                session.get(api.url)  # nobody said that this authority is trusted
            session.verify = str(tmp_path / "ca.pem")
            assert session.get(api.url).text == "fine"
        assert len(proxy.requests) == 2
        assert all(raw.startswith(b"CONNECT ") for raw in proxy.requests)
        assert all(b"earer" not in raw and b"c-1" not in raw for raw in proxy.requests)
    assert len(api.requests) == 1
    assert api.headers("X-Correlator") == ["c-1"]


# -- 401 --------------------------------------------------------------------------------------


def test_after_a_401_the_request_is_sent_once_more_with_a_new_token(
    authserver: Any, api_of: Any
) -> None:
    client = clients["default"]
    old = client.get_token("read")

    def knows(raw: bytes) -> bytes:
        token = raw.partition(b"Bearer ")[2].partition(b"\r\n")[0].decode()
        known = client.introspect(token)["active"]
        return reply(b"fine") if known else reply(b"no", status="401 Unauthorized")

    api = api_of(knows)
    authserver.revoke_token(old)
    with client.session("read", origin=api.url) as session, bound("c-1"):
        answer = session.get(f"{api.url}/a?b=c", headers={"Mine": "1"})
        assert (answer.status_code, answer.text, answer.history) == (200, "fine", [])
        new = client.get_token("read")
        assert session.get(api.url).ok
    assert api.tokens == [f"Bearer {old}", f"Bearer {new}", f"Bearer {new}"]
    first, second = api.requests[:2]
    assert first.replace(old.encode(), new.encode()) == second
    assert authserver.requests.count("token") == 2


def test_an_api_that_says_401_to_all_gets_two_requests(authserver: Any, api_of: Any) -> None:
    api = api_of(refusing(until=100))
    with clients["default"].session("read", origin=api.url) as session:
        answer = session.get(api.url)
        assert (answer.status_code, answer.text) == (401, "no")
    assert len(api.requests) == len(set(api.tokens)) == 2
    assert authserver.requests.count("token") == 2


@pytest.mark.parametrize("status", ["400 -", "403 Forbidden", "404 -", "429 -", "500 -", "503 -"])
def test_other_answers_are_the_callers(authserver: Any, api_of: Any, status: str) -> None:
    api = api_of(refusing(status=status))
    with clients["default"].session("read", origin=api.url) as session:
        assert session.get(api.url).status_code == int(status[:3])
    assert len(api.requests) == 1
    assert authserver.requests.count("token") == 1


def test_the_same_token_is_not_tried_again(authserver: Any, api_of: Any) -> None:
    answer = {"access_token": "always-this", "token_type": "Bearer", "expires_in": 3600}
    api = api_of(refusing())
    with (
        authserver.fail("token", status=200, body=answer),
        clients["default"].session("read", origin=api.url) as session,
    ):
        found = session.get(api.url)
    assert (found.status_code, found.text) == (401, "no")
    assert api.tokens == ["Bearer always-this"]
    assert authserver.requests.count("token") == 2


def test_each_request_of_a_redirect_may_be_refused_once(authserver: Any, api_of: Any) -> None:
    """And what is sent once more is that request, not the first."""
    refuse = refusing()
    redirect = redirecting(307, lambda: "/there")

    def answer(raw: bytes) -> bytes:
        return refuse(raw) if raw.split(b" ", 2)[1] == b"/there" else redirect(raw)

    api = api_of(answer)
    with clients["default"].session("read", origin=api.url) as session:
        found = session.post(f"{api.url}/", data=b"body")
    assert (found.text, len(found.history)) == ("fine", 1)
    assert [raw.split(b" ", 2)[1] for raw in api.requests] == [b"/", b"/there", b"/there"]
    assert all(raw.endswith(b"\r\n\r\nbody") for raw in api.requests)
    assert len(set(api.tokens)) == 2


def test_another_origins_401_costs_no_token(authserver: Any, api_of: Any) -> None:
    other = api_of(refusing(until=100))
    api = api_of(redirecting(302, lambda: other.url))
    with clients["default"].session("read", origin=api.url) as session:
        assert session.get(api.url).status_code == 401
    assert len(other.requests) == 1
    assert authserver.requests.count("token") == 1


def bodies() -> list[Any]:
    def text_file() -> io.BytesIO:
        opened = io.BytesIO(b"skipped:whole")
        opened.seek(8)
        return opened

    return [
        pytest.param(lambda path: {"data": b"whole"}, id="bytes"),
        pytest.param(lambda path: {"data": "whole"}, id="str"),
        pytest.param(lambda path: {"data": {"a": "whole"}}, id="form"),
        pytest.param(lambda path: {"json": ["whole"]}, id="json"),
        pytest.param(lambda path: {"files": {"a": io.BytesIO(b"whole")}}, id="multipart"),
        pytest.param(lambda path: {"data": text_file()}, id="from-the-middle-of-a-file"),
        pytest.param(lambda path: {"data": path.open("rb")}, id="file"),
    ]


@pytest.mark.parametrize("body", bodies())
def test_a_body_that_is_still_there_is_sent_again_whole(
    authserver: Any, api_of: Any, body: Any, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"whole" * 50_000)
    api, given = api_of(refusing()), body(path)
    with clients["default"].session("read", origin=api.url) as session:
        assert session.post(api.url, **given).text == "fine"
    if hasattr(given.get("data"), "close"):
        given["data"].close()
    first, second = (raw.partition(b"\r\n\r\n")[2] for raw in api.requests)
    assert b"whole" in first
    assert first == second
    assert b"skipped" not in first


class Pipe(io.RawIOBase):
    """A file that cannot be read twice."""

    def __init__(self) -> None:
        self._parts = [b"whole"]

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._parts.pop() if self._parts else b""


class Once(io.BytesIO):
    """A file that is closed by whoever has read it."""

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        if not data:
            self.close()
        return data


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(lambda: (part for part in [b"whole"]), id="generator"),
        pytest.param(Pipe, id="pipe"),
        pytest.param(lambda: Once(b"whole"), id="closed"),
    ],
)
def test_a_body_that_is_used_up_is_not_sent_again_and_the_token_is_forgotten(
    authserver: Any, api_of: Any, body: Any
) -> None:
    api = api_of(refusing())
    with clients["default"].session("read", origin=api.url) as session:
        answer = session.post(api.url, data=body())
        assert (answer.status_code, answer.text) == (401, "no")
        assert len(api.requests) == 1
        assert session.get(api.url).ok
    assert len(set(api.tokens)) == 2
    assert authserver.requests.count("token") == 2


def test_the_refusals_connection_is_used_again(authserver: Any, api_of: Any) -> None:
    api = api_of(refusing())
    with clients["default"].session("read", origin=api.url) as session:
        assert session.get(api.url).ok
        assert session.get(api.url, stream=True).raw.read() == b"fine"
    assert len(api.requests) == 3
    assert api.server.connections == 1


def test_a_refusal_without_an_end_is_not_read_to_it(authserver: Any) -> None:
    sent = [0]

    def endless(connection: Connection) -> None:
        connection.request()
        if connection.server.connections > 1:
            connection.send(reply(b"fine"))
            return
        connection.send(b"HTTP/1.1 401 -\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            connection.send(b"1000\r\n" + b"x" * 4096 + b"\r\n")
            sent[0] += 4096

    with running(endless) as api:
        with clients["default"].session("read", origin=api.url) as session:
            assert session.get(api.url, stream=True).text == "fine"
        api.wait_until_idle()
        assert api.connections == 2
    assert sent[0] < 64 << 20


def test_a_refusal_that_breaks_off_is_no_obstacle(authserver: Any) -> None:
    def cut(connection: Connection) -> None:
        connection.request()
        if connection.server.connections > 1:
            connection.send(reply(b"fine"))
        else:
            connection.send(b"HTTP/1.1 401 -\r\nContent-Length: 100\r\n\r\nno")

    with running(cut) as api, clients["default"].session("read", origin=api.url) as session:
        assert session.get(api.url).text == "fine"


def test_an_authserver_that_fails_meanwhile_is_said_as_that(authserver: Any, api_of: Any) -> None:
    api = api_of(refusing())
    with clients["default"].session("read", origin=api.url) as session:
        clients["default"].get_token("read")
        with (
            authserver.fail("token", status=503),
            pytest.raises(AuthserverUnavailable) as caught,
        ):
            session.get(api.url, stream=True)
        api.server.wait_until_idle()  # the refusal was closed, and not by its last reference
        assert caught.value.status == 503
        assert session.get(api.url).ok
    assert len(api.requests) == 2


def test_workers_that_are_refused_together_make_one_new_token(authserver: Any, api_of: Any) -> None:
    client = clients["default"]
    old = client.get_token("read")
    barrier = threading.Barrier(8)

    def knows(raw: bytes) -> bytes:
        if old.encode() not in raw:
            return reply(b"fine")
        barrier.wait(60)  # all have the old one, and are told so at once
        return reply(b"no", status="401 -")

    api = api_of(knows)
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda _: fetched(client, api.url), range(8))
        assert list(found) == ["fine"] * 8
    assert len(set(api.tokens)) == 2
    assert authserver.requests.count("token") == 2


def fetched(client: Any, url: str) -> str:
    with client.session("read", origin=url) as session:
        return str(session.get(url).text)


@both_ways
def test_a_token_that_somebody_has_replaced_is_not_forgotten(authserver: Any, call: Any) -> None:
    client = clients["default"]
    old = call(client, "get_token", "read")
    call(client, "forget_token", "read", token="another")
    assert call(client, "get_token", "read") == old
    call(client, "forget_token", "read", token=old)
    new = call(client, "get_token", "read")
    assert new != old
    call(client, "forget_token", "read", token=old)
    assert call(client, "get_token", "read") == new
    call(client, "forget_token", "read")
    assert call(client, "get_token", "read") not in (old, new)
    call(client, "forget_token", "never asked for", token=old)
    assert authserver.requests.count("token") == 3


# -- nothing tells the token ------------------------------------------------------------------


def reported(error: BaseException) -> str:
    """Give all that reports show of an error: Django's page, and each frame's variables."""
    request = RequestFactory().get("/")
    with override_settings(DEBUG=True):
        html = ExceptionReporter(request, type(error), error, error.__traceback__)
        shown = [html.get_traceback_html(), html.get_traceback_text(), repr(error), str(error)]
    seen: BaseException | None = error
    while seen is not None:
        shown += [repr(frame.f_locals) for frame in frames(seen.__traceback__)]
        seen = seen.__cause__ or seen.__context__
    return "\n".join(shown)


def frames(traceback: TracebackType | None) -> Iterator[Any]:
    while traceback is not None:
        yield traceback.tb_frame
        traceback = traceback.tb_next


def failing(connection: Connection) -> None:
    connection.request()  # and hangs up


def refusing_first(connection: Connection) -> None:
    if connection.request() and connection.server.connections == 1:
        connection.send(reply(b"no", status="401 -", headers=("Connection: close",)))


def garbage(connection: Connection) -> None:
    connection.request()
    connection.send(b"no HTTP at all\r\n\r\n")


@pytest.mark.parametrize("handler", [failing, refusing_first, garbage, None])
def test_an_error_of_the_api_tells_no_token(authserver: Any, handler: Any) -> None:
    client = clients["default"]
    with running(handler or failing) as api:
        url = api.url
        if handler is None:
            url = f"http://127.0.0.1:{free_port()}"
        with client.session("read", origin=url) as session:
            with pytest.raises(requests.RequestException) as caught:
                session.get(f"{url}/a", headers={"Mine": "1"})
            problem = caught.value
            assert isinstance(problem.request, requests.PreparedRequest)
            assert problem.request.headers["Mine"] == "1"
            assert "Authorization" not in problem.request.headers
            assert "127.0.0.1" in str(problem) or "Connection" in str(problem)
            text = reported(problem)
    tokens = {
        raw.partition(b"Bearer ")[2].partition(b"\r\n")[0].decode() for raw in api.requests
    } | {client.get_token("read")}
    assert all(token and token not in text for token in tokens)


def test_an_error_of_somebody_elses_adapter_tells_no_token(authserver: Any) -> None:
    class Broken(Recorder):
        def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> Any:
            headers = dict(request.headers)
            raise ZeroDivisionError(len(headers))

    with clients["default"].session("read", origin="https://api.example") as session:
        session.mount("https://", Broken())
        with pytest.raises(ZeroDivisionError) as caught:
            session.get("https://api.example")
    text = reported(caught.value)
    assert clients["default"].get_token("read") not in text


def test_an_answer_tells_no_token(authserver: Any, api_of: Any) -> None:
    other = api_of()
    api = api_of(redirecting(302, lambda: f"{other.url}/a"))
    with clients["default"].session("read", origin=api.url) as session:
        answer = session.get(f"{api.url}/", headers={"Mine": "1"})
        for each in (*answer.history, answer):
            assert each.request.headers["Mine"] == "1"
            assert "Authorization" not in each.request.headers
        assert clients["default"].get_token("read") not in repr(vars(session))


def test_what_was_sent_is_not_kept(authserver: Any, api_of: Any) -> None:
    """A session may live as long as its process."""
    other = api_of()
    api = api_of(redirecting(302, lambda: other.url))
    with clients["default"].session("read", origin=api.url) as session:
        for _ in range(3):
            session.get(f"{api.url}/")
        gc.collect()
        assert len(session._astray) == 0


def test_a_session_is_one_of_requests(authserver: Any) -> None:
    session = clients["default"].session("read", origin="https://api.example")
    assert isinstance(session, BearerSession)
    assert isinstance(session, requests.Session)
    assert isinstance(requests.Session.get_adapter(session, "https://a"), HTTPAdapter)
