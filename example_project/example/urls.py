"""The page at ``/``, an API, and the two documents that the authserver reads."""

from __future__ import annotations

from django.apps import apps
from django.urls import include, path

from example.api import me
from example.views import CallView, PageView

urlpatterns = [
    path("", include("django_baikal.urls")),
    path("api/me", me, name="me"),
    path("call", CallView.as_view(), name="call"),
    path("", PageView.as_view(), name="page"),
]
if apps.is_installed("drf_spectacular"):
    urlpatterns.append(path("api/rest/", include("example.rest")))
