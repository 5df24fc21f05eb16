"""A project with an admin, for the tests of ours.

The suite's own settings have none: it would be there in every other test as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.apps import apps
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import override_settings
from keys_stage import aliases

PROJECT: dict[str, Any] = {
    "INSTALLED_APPS": [
        "django.contrib.contenttypes",
        "django.contrib.auth",
        "django.contrib.sessions",
        "django.contrib.messages",
        "django.contrib.staticfiles",
        "django.contrib.admin",
        "django_baikal",
        "django_baikal.contrib.identities",
    ],
    "MIDDLEWARE": [
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    "TEMPLATES": [
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ]
            },
        }
    ],
    "ROOT_URLCONF": "admin_urls",
    "STATIC_URL": "/static/",
    "TIME_ZONE": "UTC",
    # Neither of the two has a table.
    "SESSION_ENGINE": "django.contrib.sessions.backends.signed_cookies",
    "MESSAGE_STORAGE": "django.contrib.messages.storage.session.SessionStorage",
}


@contextmanager
def project() -> Iterator[None]:
    """Be a project with an admin, and with its one table."""
    with override_settings(**PROJECT, BAIKAL=aliases()):
        log = apps.get_model("admin", "LogEntry")
        with connection.schema_editor() as editor:
            editor.create_model(log)
        try:
            yield
        finally:
            with connection.schema_editor() as editor:
                editor.delete_model(log)


def user(*permissions: str, name: str = "ada", **fields: Any) -> User:
    """Make a user of the admin who may do that with signing keys."""
    made = User.objects.create_user(name, password="open", is_staff=True, **fields)
    names = [f"{permission}_signingkey" for permission in permissions]
    found = Permission.objects.filter(content_type__app_label="django_baikal", codename__in=names)
    assert len(found) == len(names)
    made.user_permissions.set(found)
    return made
