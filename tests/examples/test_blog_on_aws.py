"""`make demo BACKEND=aws`: the same blog on a ministack of its own."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from support.aws import kit as aws_kit
from support.demos import paste, start_demo


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_printed_lines_work_and_the_service_drains(tmp_path: Path, sig: signal.Signals) -> None:
    aws_kit.server()  # where there is no ministack, this says so
    demo = start_demo(tmp_path, BACKEND="aws")
    try:
        store, read, digest = demo.lines_to_paste
        slug = paste(store)["slug"]
        demo.expect(f"Added {slug} to the digest")
        post, (entry,) = paste(read), paste(digest)["entries"]
        assert (post["slug"], entry["slug"]) == (slug, slug)
    finally:
        demo.send(sig)
        status = demo.wait()
        demo.kill()
    assert status == 0
    assert "Traceback" not in demo.output
