"""The views of django-oauth-toolkit's project for the rows."""

from __future__ import annotations

from django.urls import path
from oauth2_provider.views import JwksInfoView

from projects.hello import urlpatterns as hello
from projects.urls import urlpatterns as common

urlpatterns = [*common, *hello, path("jwks", JwksInfoView.as_view())]
