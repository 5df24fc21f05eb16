"""Authlib's resource protector, which has no settings."""

from __future__ import annotations

from projects.base import *

ROOT_URLCONF = "projects.authlib_site_urls"
