"""``keys_project`` as an application that knows its keys before a server forks."""

from __future__ import annotations

from django.core.wsgi import get_wsgi_application
from django.db import connections

from django_baikal import clients

application = get_wsgi_application()
for _alias in clients:
    clients[_alias].get_jwk_set()
# A process must not share them with those that it forks.
connections.close_all()
