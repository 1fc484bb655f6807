"""`make demo BACKEND=gcp`: the same blog on servers that stand in for Google Cloud."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from demo_kit import paste, start_demo
from emulators import require
from gcp_messages_kit import REMEDY


def run_the_lines(folder: Path, sig: signal.Signals, **env: str) -> None:
    demo = start_demo(folder, BACKEND="gcp", **env)
    try:
        store, read, digest = demo.lines_to_paste
        slug = paste(store)["slug"]
        demo.expect(f"Added {slug} to the digest")
        post, (entry,) = paste(read), paste(digest)["entries"]
        assert (post["slug"], entry["slug"]) == (slug, slug)
    finally:
        demo.send(sig)  # it ends its servers; killed, it could not
        status = demo.wait()
        demo.kill()
    assert status == 0
    assert "Traceback" not in demo.output


def test_printed_lines_work_and_the_service_drains(tmp_path: Path) -> None:
    (tmp_path / "gcloud").touch(0o755)  # one that has no emulator
    run_the_lines(tmp_path, signal.SIGTERM, PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}")


def test_printed_lines_work_on_googles_emulator(tmp_path: Path) -> None:
    require("java", remedy=f"a Java runtime, and {REMEDY}")
    folder = Path(require("gcloud", remedy=REMEDY)).resolve().parents[1] / "platform" / "pubsub-emulator" / "lib"
    if not list(folder.glob("cloud-pubsub-emulator-*-all.jar")):
        require("cloud-pubsub-emulator", remedy=REMEDY)
    run_the_lines(tmp_path, signal.SIGINT)
