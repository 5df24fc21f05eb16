"""djangorestframework-simplejwt with tokens of another, as "Settings" in its docs says.

The key stands in the settings; with JWK_URL it is fetched, and looked for by each token's kid.
"""

from __future__ import annotations

from pathlib import Path

from contestants.base import Setup
from cryptography.hazmat.primitives import serialization

from projects.simplejwt import *

_SETUP = Setup.of_environment()
_KEY = serialization.load_pem_private_key(Path(_SETUP.token_key_file).read_bytes(), None)

SIMPLE_JWT = {
    "ALGORITHM": "RS256",
    "VERIFYING_KEY": _KEY.public_key()
    .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    .decode(),
    "AUDIENCE": _SETUP.client_id,
    "ISSUER": _SETUP.http,
    "USER_ID_CLAIM": "sub",
    # Only tokens that it has made itself have this claim.
    "TOKEN_TYPE_CLAIM": None,
}
