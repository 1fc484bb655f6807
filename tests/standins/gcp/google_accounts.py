"""Stands in for what knows Google's service accounts: the metadata server of a machine, and IAM, which signs for it.

https://cloud.google.com/compute/docs/metadata/overview, and `signBlob` of the IAM credentials API.
"""

from __future__ import annotations

import base64
import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding

TOKEN = "the-token-of-the-machine"


class AccountsStandIn:
    """Use it with ``with``. It has one account, of which it keeps the key.

    Attributes:
        address: ``host:port``.
        email: The account.
        failing: Statuses with which the next calls of signBlob are answered.
        calls: By what was asked.
        nobody: The machine has no account.
    """

    def __init__(self, key_file: Path) -> None:
        document = json.loads(key_file.read_text())
        self.email = str(document["client_email"])
        self.failing: list[int] = []
        self.calls: Counter[str] = Counter()
        self.nobody = False
        self._key: Any = serialization.load_pem_private_key(document["private_key"].encode(), None)
        handler = type("Handler", (_Handler,), {"owner": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads, self._server.block_on_close = True, False
        self.address = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> AccountsStandIn:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def metadata(self, path: str) -> Any:
        """Answer for the metadata server; None for what there is none of."""
        what = path.partition("?")[0].rstrip("/").removeprefix("/computeMetadata/v1/")
        self.calls[what] += 1
        if what == "universe/universe-domain":
            return "googleapis.com"
        if self.nobody:
            return None
        if what == "instance/service-accounts/default":
            return {"email": self.email, "aliases": ["default"], "scopes": []}
        if what in (f"instance/service-accounts/{name}/token" for name in ("default", self.email)):
            return {"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"}
        return None

    def sign(self, path: str, body: dict[str, Any], token: str) -> tuple[int, Any]:
        """Answer for IAM."""
        self.calls["signBlob"] += 1
        if self.failing:
            status = self.failing.pop(0)
            return status, {"error": {"code": status, "message": "as the test says", "status": "X"}}
        if token != f"Bearer {TOKEN}":
            return 401, {"error": {"code": 401, "message": "no token of ours"}}
        if path != f"/v1/projects/-/serviceAccounts/{self.email}:signBlob":
            return 404, {"error": {"code": 404, "message": "no such account"}}
        signature = self._key.sign(base64.b64decode(body["payload"]), padding.PKCS1v15(), hashes.SHA256())
        return 200, {"keyId": "1", "signedBlob": base64.b64encode(signature).decode()}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 64 * 1024
    owner: AccountsStandIn

    def do_GET(self) -> None:
        """Answer for the metadata server."""
        found = self.owner.metadata(self.path)
        self._answer(404 if found is None else 200, found)

    def do_POST(self) -> None:
        """Answer for IAM."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._answer(*self.owner.sign(self.path.replace("%40", "@"), body, self.headers.get("Authorization", "")))

    def _answer(self, status: int, document: Any) -> None:
        text = document.encode() if isinstance(document, str) else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Metadata-Flavor", "Google")
        self.send_header("Content-Type", "application/text" if isinstance(document, str) else "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
        self.wfile.flush()

    def log_message(self, *_: object) -> None: ...
