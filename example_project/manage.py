#!/usr/bin/env python
"""Django's command line: the door of the developer, hence DEBUG unless told otherwise."""

from __future__ import annotations

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    if sys.argv[1:2] == ["demo"]:
        # What the shell has exported is meant for another project.
        for name in ("DJANGO_SETTINGS_MODULE", "DEBUG", "SECURE_SSL_REDIRECT", "CACHE_URL"):
            os.environ.pop(name, None)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example.settings")
    os.environ.setdefault("DEBUG", "true")
    execute_from_command_line(sys.argv)
