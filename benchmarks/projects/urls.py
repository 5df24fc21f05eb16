"""The views of each project: one for all to see, one protected, one for tokens and for nobody."""

from __future__ import annotations

from django.urls import path
from rest_framework.permissions import AllowAny, IsAuthenticated
from rest_framework.response import Response
from rest_framework.views import APIView


class Hello(APIView):
    """Says who asks."""

    def get(self, request):
        """Answer."""
        return Response({"user": type(request.user).__name__})


urlpatterns = [
    path("unauthenticated", Hello.as_view(authentication_classes=[], permission_classes=[])),
    path("protected", Hello.as_view(permission_classes=[IsAuthenticated])),
    path("anyone", Hello.as_view(permission_classes=[AllowAny])),
]
