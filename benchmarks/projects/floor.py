"""Django and Django REST framework, and nothing that authenticates but what the views have."""

from __future__ import annotations

from projects.base import *

ROOT_URLCONF = "projects.floor_urls"
