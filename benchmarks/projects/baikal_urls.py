"""The views of django-baikal's project: two more than the others have."""

from __future__ import annotations

from django.urls import path

from django_baikal.contrib.rest_framework import IntrospectionAuthentication
from projects.urls import Hello
from projects.urls import urlpatterns as common


class Users(IntrospectionAuthentication):
    """Gives Django users."""

    using = "users"


class Fresh(IntrospectionAuthentication):
    """Asks the authserver each time."""

    fresh = True


urlpatterns = [
    *common,
    path("users", Hello.as_view(authentication_classes=[Users])),
    path("fresh", Hello.as_view(authentication_classes=[Fresh])),
]
