"""``path("", include("django_baikal.urls"))``: our public keys and metadata, of alias ``default``.

An issuer that ends in a slash is resolved by the platform to ``//.well-known/...``; hence the
optional slash.
"""

from __future__ import annotations

from django.urls import re_path

from django_baikal.views import IssuerMetadataView, JWKSView

app_name = "django_baikal"
urlpatterns = [
    re_path(r"^(?:/)?\.well-known/jwks\.json\Z", JWKSView.as_view(), name="jwks"),
    re_path(
        r"^(?:/)?\.well-known/jwks/(?P<ring>[A-Za-z0-9_-]{1,64})\.json\Z",
        JWKSView.as_view(),
        name="jwks-ring",
    ),
    re_path(
        r"^(?:/)?\.well-known/openid-configuration\Z",
        IssuerMetadataView.as_view(),
        name="openid-configuration",
    ),
]
