"""`make demo BACKEND=azure`: the same blog on Azurite, and on servers that stand in for the rest of Azure."""

from __future__ import annotations

import signal
from pathlib import Path

from support.azure.storage import require_azurite
from support.demos import paste, start_demo


def test_printed_lines_work_and_the_service_drains(tmp_path: Path) -> None:
    require_azurite()
    demo = start_demo(tmp_path, BACKEND="azure")
    try:
        store, read, digest = demo.lines_to_paste
        slug = paste(store)["slug"]
        demo.expect(f"Added {slug} to the digest")
        post, (entry,) = paste(read), paste(digest)["entries"]
        assert (post["slug"], entry["slug"]) == (slug, slug)
    finally:
        demo.send(signal.SIGTERM)
        status = demo.wait()
        demo.kill()
    assert status == 0
    assert "Traceback" not in demo.output
