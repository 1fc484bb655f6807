"""An OpenID Connect issuer for this machine: it publishes its key and signs any token it is asked for.

In a cloud this is Cognito, Entra, Auth0 or Keycloak, and only the address of the issuer changes.
"""

import json
import threading
import time
import uuid
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm


class Issuer:
    """Serves discovery and the public key on 127.0.0.1, from entering it to leaving it."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._kid = uuid.uuid4().hex
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def token(self, subject: str, roles: Sequence[str], *, audience: str = "shop", lifetime: float = 24 * 3600) -> str:
        """Return an access token as RFC 9068 describes it.

        Args:
            subject: Whose token it is.
            roles: The roles of `subject`.
            audience: Which API it is for.
            lifetime: Seconds until it expires.
        """
        now = int(time.time())
        claims = {
            "iss": self.url,
            "sub": subject,
            "aud": audience,
            "client_id": "demo",
            "jti": uuid.uuid4().hex,
            "iat": now,
            "exp": now + int(lifetime),
            "roles": list(roles),
        }
        return jwt.encode(claims, self._key, algorithm="RS256", headers={"kid": self._kid, "typ": "at+jwt"})

    def _documents(self) -> dict[str, Any]:
        public = RSAAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        keys = {"keys": [{**public, "kid": self._kid, "use": "sig", "alg": "RS256"}]}
        configuration = {"issuer": self.url, "jwks_uri": f"{self.url}/jwks"}
        return {"/.well-known/openid-configuration": configuration, "/jwks": keys}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                document = issuer._documents().get(self.path)
                body = json.dumps(document).encode()
                self.send_response(200 if document else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Log nothing: the log is for the services."""

        return Handler
