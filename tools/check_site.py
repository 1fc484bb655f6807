"""Check that the pages of the built site load nothing from elsewhere: ``python tools/check_site.py site``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

_LOADED = re.compile(
    r"<(?:link|script|img|iframe|source)\b[^>]*?\b(?:href|src)=[\"']?((?:https?:)?//[^\"'\s>]+)", re.IGNORECASE
)
_STYLED = re.compile(r"(?:url\(|@import\s+)[\"']?((?:https?:)?//[^\"')\s;]+)", re.IGNORECASE)


def main(folder: str) -> int:
    """Print what is loaded from elsewhere; return whether there is anything."""
    found = [
        f"{path}: {address}"
        for pattern, kinds in ((_LOADED, ("*.html",)), (_STYLED, ("*.css", "*.html")))
        for kind in kinds
        for path in sorted(Path(folder).rglob(kind))
        for address in pattern.findall(path.read_text(encoding="utf-8"))
    ]
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
