"""An authserver of Authlib's on loopback, which grants tokens for assertions (RFC 7523)."""

from __future__ import annotations

import json
import sys
from typing import Any
from urllib.request import urlopen

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import ClientMixin
from authlib.oauth2.rfc7523 import JWTBearerGrant
from flask import Flask, Response, jsonify
from joserfc.jwk import KeySet
from werkzeug.serving import make_server


class Client(ClientMixin):  # type: ignore[misc]
    """The application, which publishes its keys."""

    def __init__(self, issuer: str) -> None:
        self.issuer = issuer

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type == JWTBearerGrant.GRANT_TYPE

    def get_allowed_scope(self, scope: str) -> str:
        return scope or ""


def main(issuer: str) -> None:
    app = Flask(__name__)
    http = make_server("127.0.0.1", 0, app, threaded=True)
    own = f"http://127.0.0.1:{http.server_port}"
    client = Client(issuer)

    class Grant(JWTBearerGrant):  # type: ignore[misc]
        def resolve_issuer_client(self, issuer: str) -> Client | None:
            return client if issuer == client.issuer else None

        def resolve_client_public_key(self, client: Client) -> Any:
            with urlopen(f"{client.issuer}/.well-known/openid-configuration") as metadata:
                jwks_uri = json.load(metadata)["jwks_uri"]
            with urlopen(jwks_uri) as keys:
                return KeySet.import_key_set(json.load(keys))

        def authenticate_user(self, subject: str) -> str:
            return subject

        def has_granted_permission(self, client: Client, user: str) -> bool:
            return True

        def get_audiences(self) -> list[str]:
            return [own]

    server = AuthorizationServer(
        app, query_client=lambda _: client, save_token=lambda _token, _request: None
    )
    server.register_grant(Grant)

    @app.get("/.well-known/openid-configuration")
    def metadata() -> Response:
        return jsonify(issuer=own, token_endpoint=f"{own}/token")

    @app.post("/token")
    def token() -> Any:
        return server.create_token_response()

    sys.stdout.write(f"running at {own}\n")
    sys.stdout.flush()
    http.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1])
