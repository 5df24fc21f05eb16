"""What an app adds to Django's start, measured in fresh processes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

from contestants.base import Case, Setup, installed

PROGRAM = """
import json, resource, sys, time
import django
from django.conf import settings
apps = ["django.contrib.contenttypes", "django.contrib.auth", *sys.argv[1:]]
settings.configure(INSTALLED_APPS=apps, SECRET_KEY="x" * 50, USE_TZ=True)
cpu = time.process_time()
django.setup()
cpu = time.process_time() - cpu
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
mib = peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
print(json.dumps({"cpu": cpu, "mib": mib, "modules": len(sys.modules)}))
"""


DISTRIBUTIONS = installed("Django", "django-baikal", "django-oauth-toolkit")


def loading(*apps: str) -> Case:
    def case(_n: int) -> dict[str, float]:
        command = [sys.executable, "-c", PROGRAM, *apps]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        return {"n": 1, **json.loads(done.stdout)}

    return case


CASES: dict[str, Callable[[Setup], Case]] = {
    "I1/nothing": lambda _: loading(),
    "I1/baikal": lambda _: loading("django_baikal"),
    "I1/oauth2_provider": lambda _: loading("oauth2_provider"),
}
