"""``keys_project`` with a cache that its processes share; the environment says where."""

from __future__ import annotations

import os

import environ
from keys_project import *  # noqa: F403

CACHES = {"default": environ.Env.cache_url_config(os.environ["DOCTOR_CACHE"])}
