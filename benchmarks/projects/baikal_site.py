"""django-baikal: aliases for what the rows ask for, beside those of `projects.baikal`."""

from __future__ import annotations

from contestants.base import Setup
from contestants.django_site import key_files

from projects.baikal import *

_SETUP = Setup.of_environment()

ROOT_URLCONF = "projects.baikal_site_urls"
BAIKAL["tls"] = {
    **BAIKAL["default"],
    "AUTHSERVER_ENDPOINT": _SETUP.https,
    "VERIFY_CERTS": _SETUP.ca_file,
}
BAIKAL["jwt"] = {**BAIKAL["default"], "VALIDATION": "jwt"}
#: How many keys the JWK Sets have.
KEYS = (1, 10)
for number in KEYS:
    files = key_files(_SETUP, number)
    BAIKAL[f"settings-{number}"] = {
        **BAIKAL["default"],
        "CLIENT_KEYS": [{"key": file.read_text("utf-8")} for file in files],
    }
    BAIKAL[f"files-{number}"] = {**BAIKAL["default"], "PRIVATE_CERTS_PATH": files[0].parent}
    BAIKAL[f"database-{number}"] = {
        **BAIKAL["default"],
        "KEYS": {
            "BACKEND": "django_baikal.keys.database.DatabaseKeyStore",
            "OPTIONS": {"RING": f"ring-{number}"},
        },
    }
