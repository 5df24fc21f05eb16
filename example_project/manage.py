#!/usr/bin/env python
"""Django's command line: the door of the developer, hence DEBUG unless told otherwise."""

from __future__ import annotations

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example.settings")
    os.environ.setdefault("DEBUG", "true")
    execute_from_command_line(sys.argv)
