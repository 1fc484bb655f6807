"""What Key Vault calls a secret: it has letters, digits and dashes only, and takes ``A`` for ``a``.

Lower-case letters, digits and single dashes stay. An underscore becomes two dashes; everything else, capitals as well,
its UTF-8 bytes, each as ``-x`` and two digits; and so does a dash that would be read as something else: before what
becomes dashes itself, or before ``x`` and two digits. So every name can be told from what it became, and no two meet.
"""

from __future__ import annotations

import re
from typing import Final

LONGEST: Final = 127
"""Characters (https://learn.microsoft.com/azure/key-vault/general/about-keys-secrets-certificates#objects-identifiers)."""
_WRITTEN_OUT: Final = re.compile(rb"[^a-z0-9_-]|-(?=[^a-z0-9]|x[0-9a-f]{2})")


def identifier_of(name: str) -> str:
    """Return what Key Vault calls the secret of that name."""
    return _WRITTEN_OUT.sub(lambda found: b"-x%02x" % found[0][0], name.encode()).replace(b"_", b"--").decode()
