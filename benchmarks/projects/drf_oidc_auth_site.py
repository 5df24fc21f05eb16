"""drf-oidc-auth: what `projects.drf_oidc_auth` has, and for whom JWTs are, as its README says."""

from __future__ import annotations

from authserver import CLIENT_ID

from projects.drf_oidc_auth import *

OIDC_AUTH = {
    **OIDC_AUTH,
    "OIDC_CLAIMS_OPTIONS": {"aud": {"values": [CLIENT_ID], "essential": True}},
}
