"""``BearerSession``: a session of requests that brings a token to the API at one origin."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from requests import PreparedRequest, Request, RequestException, Response, Session
from requests.adapters import BaseAdapter
from requests.exceptions import UnrewindableBodyError
from requests.utils import rewind_body

from django_baikal import correlation
from django_baikal.exceptions import ConfigurationError
from django_baikal.protocol.config import ClientConfig
from django_baikal.protocol.urls import is_loopback, split_http_url
from django_baikal.protocol.urls import origin as origin_of

#: How much of a refusal is read, so many chunks of such a size, to use its connection again.
_CHUNKS, _CHUNK = 16, 4096


class BearerSession(Session):
    """Adds the token and the correlator to requests to ``origin``, and to none elsewhere.

    A request to elsewhere is refused with ConfigurationError; a redirect there is followed without
    the two, and so is all that comes after it. When the API answers 401, the token is forgotten,
    and the request sent once more with a new one, if there is one and the body can be sent again.
    TIMEOUT is for requests that have none of their own, in seconds as requests counts them. Made
    by ``OpenIDClient.session``.
    """

    def __init__(
        self,
        config: ClientConfig,
        origin: str,
        *,
        get_token: Callable[[], str],
        forget_token: Callable[[str], None],
    ) -> None:
        super().__init__()
        self.origin = _checked(origin, config)
        self.trust_env = config.trust_env
        self.auth = _no_other
        self._get_token = get_token
        self._forget_token = forget_token
        self._timeout = config.timeout
        self._astray: WeakSet[PreparedRequest] = WeakSet()

    def prepare_request(self, request: Request) -> PreparedRequest:
        """Make what ``send`` takes; raises ConfigurationError for what must not be sent."""
        prepared = super().prepare_request(request)
        found = _origin(prepared)
        if found != self.origin:
            raise ConfigurationError(
                f"This session is for {self.origin}, and not for {found or 'this URL'}: it sends "
                "its token to one origin only. Make another session; without a token, use requests "
                "itself.",
                code="other_origin",
            )
        if "Authorization" in prepared.headers:
            raise ConfigurationError(
                "A session sets Authorization itself; leave out auth= and that header.",
                code="unsendable_request",
            )
        return prepared

    def merge_environment_settings(
        self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any
    ) -> Any:
        """Let ``verify`` of the session count; requests prefers a variable of the environment."""
        if verify is None and self.verify is not True:
            verify = self.verify
        return super().merge_environment_settings(url, proxies, stream, verify, cert)

    def send(self, request: PreparedRequest, **kwargs: Any) -> Response:
        """Send it; raises what ``get_token`` raises, and for the API what requests raises."""
        if kwargs.get("timeout") is None:
            kwargs["timeout"] = self._timeout
        return super().send(request, **kwargs)

    def get_adapter(self, url: Any) -> BaseAdapter:
        """Give what sends to ``url``: what is mounted there, with the token on its way."""
        return _Bearing(self, super().get_adapter(url))

    def rebuild_auth(self, prepared_request: PreparedRequest, response: Response) -> None:
        """Note where a redirect leads away: whoever is there may not choose the way back."""
        away = _origin(prepared_request) != self.origin
        if away or response.request in self._astray:
            self._astray.add(prepared_request)

    def _may_bear(self, request: PreparedRequest) -> bool:
        return _origin(request) == self.origin and request not in self._astray

    def _bearing(self, request: PreparedRequest) -> PreparedRequest:
        """Give a copy with the token and the correlator."""
        outgoing = request.copy()
        outgoing.headers["Authorization"] = f"Bearer {self._get_token()}"
        if (correlator := correlation.current()) is not None:
            outgoing.headers.setdefault(correlation.HEADER, correlator)
        return outgoing

    def _forget(self, refused: PreparedRequest) -> None:
        self._forget_token(refused.headers["Authorization"].partition(" ")[2])


class _Bearing(BaseAdapter):
    """Sends one request through another adapter; redirects are requests of their own."""

    def __init__(self, session: BearerSession, adapter: BaseAdapter) -> None:
        super().__init__()
        self._session = session
        self._adapter = adapter

    def send(self, request: PreparedRequest, *args: Any, **kwargs: Any) -> Response:
        session = self._session
        if session._may_bear(request):
            if session.origin.startswith("http:") and is_loopback(session.origin):
                kwargs["proxies"] = {}  # allowed because it does not leave this machine
            response = self._borne(request, *args, **kwargs)
        else:
            outgoing = request.copy()
            for name in ("Authorization", correlation.HEADER):
                outgoing.headers.pop(name, None)
            response = self._sent(request, outgoing, *args, **kwargs)
        # Without the token: redirects begin with it, and logs may show it.
        response.request = request
        return response

    def _borne(self, request: PreparedRequest, *args: Any, **kwargs: Any) -> Response:
        session = self._session
        outgoing = session._bearing(request)
        response = self._sent(request, outgoing, *args, **kwargs)
        if response.status_code != 401:
            return response
        session._forget(outgoing)
        if not _rewound(request):
            return response
        try:
            again = session._bearing(request)
        except BaseException:
            response.close()
            raise
        if again.headers["Authorization"] == outgoing.headers["Authorization"]:
            return response
        _release(response)
        return self._sent(request, again, *args, **kwargs)

    def _sent(
        self, request: PreparedRequest, outgoing: PreparedRequest, *args: Any, **kwargs: Any
    ) -> Response:
        try:
            return self._adapter.send(outgoing, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 - all come out, without their frames
            problem = error
        # Reports show the variables of frames, and those of the libraries hold the token.
        problem.__cause__ = problem.__context__ = None
        if isinstance(problem, RequestException):
            problem.request = request
        raise problem.with_traceback(None)


def _checked(given: str, config: ClientConfig) -> str:
    """Give the one spelling of an origin that may have a token."""
    try:
        parts = split_http_url(given)
        if parts.path not in ("", "/") or parts.query:
            raise ValueError("it has more than scheme, host and port")
        if parts.scheme == "http" and not (config.allow_http or is_loopback(given)):
            raise ValueError("ALLOW_HTTP lets plain http pass, for development only")
    except ValueError as error:
        raise ConfigurationError(
            f"BAIKAL[{config.alias!r}]: the origin of a session must be https://host[:port]: "
            f"{error}."
        ) from None
    return origin_of(given)


def _origin(request: PreparedRequest) -> str | None:
    # requests connects to what urlsplit finds in the URL, and so does this.
    try:
        return origin_of((request.url or "").partition("#")[0])
    except ValueError:
        return None


def _no_other(request: PreparedRequest) -> PreparedRequest:
    """Be there, so that requests takes no credentials from a .netrc or from the URL."""
    return request


def _rewound(request: PreparedRequest) -> bool:
    """Tell whether the body can be sent again; a file is then where it was before."""
    body: Any = request.body
    if body is None or isinstance(body, (str, bytes)):
        return True
    try:
        rewind_body(request)
    except (UnrewindableBodyError, ValueError):
        return False
    return True


def _release(response: Response) -> None:
    """Give back the connection if there is not much left to read, or close it."""
    try:
        for _ in itertools.islice(response.iter_content(_CHUNK), _CHUNKS):
            pass
    except RequestException:
        pass  # the new request makes a connection of its own
    finally:
        response.close()
