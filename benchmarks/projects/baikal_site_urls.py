"""The views of django-baikal's project for the rows."""

from __future__ import annotations

from django.conf import settings
from django.urls import path
from rest_framework.permissions import IsAuthenticated

from django_baikal.contrib.rest_framework import IntrospectionAuthentication
from django_baikal.views import JWKSView
from projects.baikal_urls import urlpatterns as baikal
from projects.hello import urlpatterns as hello
from projects.urls import Hello


class Tls(IntrospectionAuthentication):
    """Asks an authserver on https."""

    using = "tls"


class Jwt(IntrospectionAuthentication):
    """Asks nobody, but takes JWTs alone."""

    using = "jwt"


urlpatterns = [
    *baikal,
    *hello,
    path("tls", Hello.as_view(authentication_classes=[Tls], permission_classes=[IsAuthenticated])),
    path("jwt", Hello.as_view(authentication_classes=[Jwt], permission_classes=[IsAuthenticated])),
    *(
        path(f"jwks/{alias}", JWKSView.as_view(using=alias))
        for number in settings.KEYS
        for alias in (f"settings-{number}", f"files-{number}", f"database-{number}")
    ),
]
