"""REST framework imports what its settings name; ours may be imported before it and after it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rest_framework")

PROGRAM = """
import sys
from django.conf import settings
import settings as ours
package = "django_baikal.contrib.rest_framework"
settings.configure(
    **{name: value for name, value in vars(ours).items() if name.isupper()},
    REST_FRAMEWORK={
        "DEFAULT_AUTHENTICATION_CLASSES": [f"{package}.IntrospectionAuthentication"],
        "DEFAULT_PERMISSION_CLASSES": [f"{package}.TokenHasScope"],
        "EXCEPTION_HANDLER": f"{package}.exception_handler",
    },
)
import django
django.setup()
exec(sys.argv[1])
from rest_framework.views import APIView
found = APIView.authentication_classes + APIView.permission_classes
print(*(each.__name__ for each in found), APIView().get_exception_handler().__name__)
"""


@pytest.mark.parametrize(
    "first",
    [
        "from django_baikal.contrib.rest_framework import IntrospectionAuthentication",
        "from django_baikal.contrib.rest_framework import TokenHasScope",
        "from django_baikal.contrib.rest_framework import exception_handler",
        "from rest_framework.views import APIView",
    ],
)
def test_a_project_may_import_ours_first(first: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "DJANGO_SETTINGS_MODULE"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, first],
        cwd=Path(__file__).parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout == "IntrospectionAuthentication TokenHasScope exception_handler\n"
