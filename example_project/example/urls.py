"""The page at ``/``, and the two documents that the authserver reads."""

from __future__ import annotations

from django.urls import include, path

from example.views import PageView

urlpatterns = [
    path("", include("django_baikal.urls")),
    path("", PageView.as_view(), name="page"),
]
