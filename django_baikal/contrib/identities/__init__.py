"""Which Django user is whom at an authserver: an app of its own, for ``USER_RESOLVER``."""

from __future__ import annotations

from typing import Any

from django_baikal.protocol.bearer import TokenInfo


def linked_user(token: TokenInfo) -> Any:
    """Give the Django user that the token's user was linked to, or None.

    By issuer and subject alone: a name, an e-mail address or a phone number is no identity
    (OpenID Connect Core section 5.7). One query.
    """
    from django_baikal.contrib.identities.models import ExternalIdentity

    found = ExternalIdentity.objects.select_related("user").filter(identity=token.identity).first()
    return None if found is None else found.user
