"""An API with Django REST framework and its OpenAPI document, where drf-spectacular is there."""

from __future__ import annotations

from typing import ClassVar

from django.urls import path
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularAPIView
from rest_framework import serializers
from rest_framework.exceptions import NotFound
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from django_baikal.contrib.rest_framework import TokenHasPurpose, TokenHasScope
from example.telling import PURPOSE, SCOPE, USER_SCOPE

CATALOGUE = {"tea": 250, "coffee": 320}


class ProfileSerializer(serializers.Serializer[dict[str, str]]):
    """Whom a token speaks for."""

    you = serializers.CharField(read_only=True, help_text="A name that is no telephone number.")
    language = serializers.ChoiceField(["en", "es", "pt"], default="en")


class ArticleSerializer(serializers.Serializer[dict[str, object]]):
    """Something to buy."""

    name = serializers.CharField()
    cents = serializers.IntegerField()


class Profile(APIView):
    """What a user has chosen; nobody keeps it."""

    permission_classes = (TokenHasScope & TokenHasPurpose,)
    required_scopes: ClassVar = {"GET": USER_SCOPE, "PUT": [USER_SCOPE, "profile:write"]}
    required_purposes = PURPOSE

    @extend_schema(responses=ProfileSerializer)
    def get(self, request: Request) -> Response:
        """Tell it."""
        return Response({"you": str(request.user.pk), "language": "en"})

    @extend_schema(request=ProfileSerializer, responses=ProfileSerializer)
    def put(self, request: Request) -> Response:
        """Change it."""
        asked = ProfileSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        return Response({"you": str(request.user.pk), **asked.validated_data})


class Article(APIView):
    """An article of the catalogue, for sites and for users."""

    required_scopes: ClassVar = [[SCOPE], [USER_SCOPE]]

    @extend_schema(responses=ArticleSerializer)
    def get(self, request: Request, name: str) -> Response:  # noqa: ARG002 - the framework's
        """Tell the price."""
        if name not in CATALOGUE:
            raise NotFound
        return Response({"name": name, "cents": CATALOGUE[name]})


urlpatterns = [
    path("profile", Profile.as_view()),
    path("catalogue/<str:name>", Article.as_view()),
    path("schema", SpectacularAPIView.as_view(permission_classes=[AllowAny]), name="schema"),
]
