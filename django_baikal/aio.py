"""The async client under the SDK's names: ``grant_user`` is a coroutine, as is its alias
``async_grant_user``.

It is for code that comes from ``clients.aio.baikal_client``; new code has the same coroutines at
``clients["default"].agrant_user`` and so on.
"""

from __future__ import annotations

from django_baikal.client import BaseClient


class OpenIDClient(BaseClient):
    """An async client of one authserver; see ``django_baikal.OpenIDClient`` for each method."""

    grant_client = async_grant_client = BaseClient.agrant_client
    grant_user = async_grant_user = BaseClient.agrant_user
    grant_code = BaseClient.agrant_code
    refresh = BaseClient.arefresh
    revoke = BaseClient.arevoke
    authorize = BaseClient.aauthorize
    start_authorization = BaseClient.astart_authorization
    introspect = async_introspect = BaseClient.aintrospect
    get_token = BaseClient.aget_token
    forget_token = BaseClient.aforget_token
