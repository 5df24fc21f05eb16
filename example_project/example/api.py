"""An API of this site, for whoever has a token of the user's."""

from __future__ import annotations

from django.http import HttpRequest, JsonResponse

from django_baikal.decorators import token_required
from example.telling import USER_SCOPE


@token_required(scopes=USER_SCOPE)
def me(request: HttpRequest) -> JsonResponse:
    """Tell whom the token speaks for; the authserver alone knows their telephone number."""
    token = request.auth  # type: ignore[attr-defined]
    return JsonResponse({"you": request.user.pk, "scope": " ".join(sorted(token.scopes))})
