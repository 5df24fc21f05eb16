"""The recipe for Celery, run by a real worker; test_docs.py runs it, and Django's, without one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_docs import COMMENT, DOCS, PACKAGE, sections

SETTINGS = """
from pathlib import Path

SECRET_KEY = "only-for-the-tests-" + "x" * 40
USE_TZ = True
INSTALLED_APPS = ["django.contrib.contenttypes", "django_baikal", "myapp"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": Path(__file__).parent / "db.sqlite3",
        "OPTIONS": {"timeout": 60},
    }
}
BAIKAL = {
    "default": {
        "AUTHSERVER_ENDPOINT": "https://auth.example.com",
        "CLIENT_ID": "my-client",
        "CLIENT_SECRET": "my-secret",
        "KEYS": {
            "BACKEND": "django_baikal.keys.database.DatabaseKeyStore",
            "OPTIONS": {"ALG": "ES256"},
        },
    }
}
CELERY_BROKER_URL = "memory://"
CELERY_RESULT_BACKEND = "cache+memory://"
"""
PROGRAM = """
import os

os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
from celery import Celery
from celery.contrib.testing.worker import start_worker

app = Celery("site")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["myapp"], force=True)
app.loader.import_default_modules()

from django.core.management import call_command
from django_baikal.models import SigningKey
from myapp.tasks import rotate_keys

call_command("migrate", verbosity=0)
(entry,) = app.conf.beat_schedule.values()
task = app.tasks[entry["task"]]
with start_worker(app, pool="solo", perform_ping_check=False, shutdown_timeout=60):
    for result in [task.delay(*entry["args"]), *(rotate_keys.delay() for _ in range(3))]:
        assert result.get(timeout=60) is None
    assert [key.created_by for key in SigningKey.objects.all()] == ["the scheduler"] * 2
    SigningKey.objects.filter(sequence=1).update(retention=1)
    failed = rotate_keys.delay()
    failed.get(timeout=60, propagate=False)
    assert type(failed.result).__name__ == "Tampered", failed.result
print("done")
"""


def test_a_worker_of_celery_rotates_as_the_page_shows(tmp_path: Path) -> None:
    pytest.importorskip("celery", reason="celery is not installed")
    files = {"settings.py": SETTINGS, "myapp/__init__.py": "", "program.py": PROGRAM}
    for block in sections(DOCS / "howto" / "rotate-keys.md")["By Celery or Django's tasks"]:
        named = COMMENT.match(block.text)
        if named and "django.tasks" not in block.text:
            files[named[1]] = files.get(named[1], "") + block.text
    (tmp_path / "myapp").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text, "utf-8")
    assert {*files} > {"myapp/keys.py", "myapp/tasks.py"}
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(PACKAGE.parent)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.endswith("done\n"), done.stdout + done.stderr
