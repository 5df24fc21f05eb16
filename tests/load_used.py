"""The application of ``load_project``, at work before its server makes processes of it.

It has connections to the authserver by then, and has read its keys.
"""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor

from django.core.wsgi import get_wsgi_application
from django.db import connections

application = get_wsgi_application()

from django_baikal import AuthserverError, clients  # noqa: E402

#: How many connections there are, about.
AT_ONCE = 8


def ask(number: int) -> None:
    # The authserver cannot read our keys before there is a server, and refuses us.
    with contextlib.suppress(AuthserverError):
        clients["default"].introspect(f"token-{number}")
    connections.close_all()


assert clients["default"].get_jwk_set(dump_json=False)["keys"]
connections.close_all()  # as Django asks of whoever forks
with ThreadPoolExecutor(AT_ONCE) as pool:
    list(pool.map(ask, range(3 * AT_ONCE)))
