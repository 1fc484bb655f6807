"""`make demo BACKEND=gcp`: the same blog on servers that stand in for Google Cloud."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from pathlib import Path

from support.demos import DEMO, paste, start_demo
from support.emulators import require
from support.gcp.messages import REMEDY
from support.processes import Process


def run_the_lines(folder: Path, sig: signal.Signals, **env: str) -> None:
    demo = start_demo(folder, BACKEND="gcp", **env)
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


def test_printed_lines_work_and_the_service_drains(tmp_path: Path) -> None:
    (tmp_path / "gcloud").touch(0o755)  # one that has no emulator
    run_the_lines(tmp_path, signal.SIGTERM, PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}")


def test_printed_lines_work_on_googles_emulator(tmp_path: Path) -> None:
    require("java", remedy=f"a Java runtime, and {REMEDY}", optional=True)
    folder = (
        Path(require("gcloud", remedy=REMEDY, optional=True)).resolve().parents[1]
        / "platform"
        / "pubsub-emulator"
        / "lib"
    )
    if not list(folder.glob("cloud-pubsub-emulator-*-all.jar")):
        require("cloud-pubsub-emulator", remedy=REMEDY, optional=True)
    run_the_lines(tmp_path, signal.SIGINT)


def test_servers_end_when_the_demonstration_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "starter.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(DEMO.parent)!r})\n"
        "import on_gcp, servers\n"
        "with servers.server(on_gcp.stand_in('gcp.gcs')) as address:\n"
        "    print('at', address, flush=True)\n"
        "    __import__('time').sleep(60)\n"
    )
    starter = Process(script, root=str(tmp_path))
    host, port = starter.expect(r"at (\S+):(\d+)").groups()
    with socket.create_connection((host, int(port)), 30) as connection:
        os.kill(starter.pid, signal.SIGKILL)  # but not its children
        connection.settimeout(30)
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""
    starter.kill()
