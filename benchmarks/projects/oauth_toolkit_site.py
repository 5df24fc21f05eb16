"""django-oauth-toolkit: what `projects.oauth_toolkit` has, a middleware's backend, and keys.

docs/tutorial/tutorial_03.rst says how the middleware is used, and docs/oidc.rst how keys are
published.
"""

from __future__ import annotations

from contestants.base import Setup
from contestants.django_site import key_files

from projects.oauth_toolkit import *

ROOT_URLCONF = "projects.oauth_toolkit_site_urls"
AUTHENTICATION_BACKENDS = ["oauth2_provider.backends.OAuth2Backend"]
KEYS = [file.read_text() for file in key_files(Setup.of_environment(), 10)]
OAUTH2_PROVIDER = {
    **OAUTH2_PROVIDER,
    "OIDC_ENABLED": True,
    "OIDC_RSA_PRIVATE_KEY": KEYS[0],
    "SCOPES": {"openid": "OpenID Connect scope"},
}
