"""V4 signatures of Cloud Storage, verified: https://cloud.google.com/storage/docs/authentication/canonical-requests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding

from standins.gcp.gcs_objects import Refused


class Accounts:
    """The service accounts whose signatures count, with their public keys."""

    def __init__(self) -> None:
        self._keys: dict[str, Any] = {}

    @classmethod
    def of(cls, path: Path) -> Accounts:
        """Return the account of a key file."""
        made, document = cls(), json.loads(path.read_text())
        private = serialization.load_pem_private_key(document["private_key"].encode(), None)
        made._keys[document["client_email"]] = private.public_key()
        return made

    def verify(self, method: str, target: str, headers: Mapping[str, str]) -> None:
        """Refuse what is not signed for exactly this, now."""
        url = urlsplit(target)
        asked = dict(parse_qsl(url.query, keep_blank_values=True))
        signature = asked.pop("X-Goog-Signature", "")
        email, _, scope = asked.get("X-Goog-Credential", "").partition("/")
        if not signature or email not in self._keys:
            raise Refused(403, "Anonymous caller does not have access.")
        signed = asked["X-Goog-SignedHeaders"].split(";")
        if "host" not in signed:
            raise Refused(400, "The host must be signed.")
        quoted = "&".join(f"{quote(name, safe='-_.~')}={quote(asked[name], safe='-_.~')}" for name in sorted(asked))
        lines = [method, url.path, quoted]
        lines += [f"{name}:{(headers.get(name) or '').strip()}" for name in signed]
        canonical = "\n".join([*lines, "", ";".join(signed), "UNSIGNED-PAYLOAD"])
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        told = "\n".join(["GOOG4-RSA-SHA256", asked["X-Goog-Date"], scope, digest])
        try:
            self._keys[email].verify(bytes.fromhex(signature), told.encode(), padding.PKCS1v15(), hashes.SHA256())
        except (InvalidSignature, ValueError):
            raise Refused(403, "The request signature we calculated does not match.") from None
        begun = datetime.strptime(asked["X-Goog-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        if datetime.now(UTC) > begun + timedelta(seconds=int(asked["X-Goog-Expires"])):
            raise Refused(400, "The provided token has expired.")
