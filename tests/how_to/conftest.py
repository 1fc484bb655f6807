from __future__ import annotations

from support.http.issuer_fixtures import issuer_key, key_server

__all__ = ["issuer_key", "key_server"]
