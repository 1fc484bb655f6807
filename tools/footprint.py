"""Print how much a service takes: the files that an image has in addition to Python, and the memory of one worker.

Usage: python tools/footprint.py [BACKEND...]     (by default: local aws gcp azure)

For each backend it makes an environment as `examples/deploy/Dockerfile` does, from wheels, in a temporary folder. On
`local` it runs the blog and sends it requests. For a cloud it measures a process that has imported the blog and the
backend: what clients and connections take later comes on top.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[1]
BLOG = ROOT / "examples" / "blog"
REQUESTS = 2000
IMPORTED = """
import service
from totoms.plugins.loader import CAPABILITIES, load
backend = load({backend!r})
assert all(getattr(backend, capability) for capability in CAPABILITIES)
print(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1])
"""


def main(backends: list[str]) -> None:
    """Print a line for each backend."""
    print(f"{'':8}{'files':>10}{'of which SDK and others':>26}{'worker, imported':>20}{'running':>12}")
    for backend in backends:
        with tempfile.TemporaryDirectory(prefix="footprint-") as folder:
            python = environment(Path(folder), backend)
            everything = size_of(python)
            ours = sum(size_of(python, f"totoms{suffix}") for suffix in ("", f"_{backend}"))
            imported = memory_after_import(python, backend, Path(folder))
            running = f"{memory_when_running(python, Path(folder)):9.0f} MB" if backend == "local" else "-"
            print(
                f"{backend:8}{everything:7.1f} MB{everything - ours:23.1f} MB{imported:17.0f} MB{running:>12}",
                flush=True,
            )


def environment(folder: Path, backend: str) -> Path:
    """Install the core and a backend from wheels and return the environment's Python."""
    packages = [str(ROOT / "packages" / "totoms-core")]
    if backend != "local":
        packages.append(str(ROOT / "packages" / f"totoms-{backend}"))
    wheels = folder / "wheels"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    constraints = ["--constraint", str(ROOT / "constraints.txt")]
    subprocess.run([*pip, "wheel", "--wheel-dir", str(wheels), *constraints, *packages], check=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    python = folder / "venv" / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "--quiet", "install", "--no-index", *sorted(wheels.glob("*.whl"))],
        check=True,
        env={name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
    )
    # The image of Python has pip already, so it is not counted.
    subprocess.run([python, "-m", "pip", "--quiet", "uninstall", "--yes", "setuptools", "pip"], check=True)
    shutil.rmtree(wheels)
    return python


def size_of(python: Path, package: str = "") -> float:
    """Return the size of the installed files, or of one package, in MB."""
    (packages,) = (python.parents[1] / "lib").glob("python*/site-packages")
    return sum(file.stat().st_size for file in (packages / package).rglob("*") if file.is_file()) / 1e6


def memory_after_import(python: Path, backend: str, folder: Path) -> float:
    """Return the memory of a process that has imported the blog and a backend, in MB."""
    code = IMPORTED.format(backend=backend)
    run = subprocess.run([python, "-c", code], check=True, stdout=subprocess.PIPE, text=True, env=variables(folder))
    return int(run.stdout) / 1000


def memory_when_running(python: Path, folder: Path) -> float:
    """Return the memory of the running blog after `REQUESTS` requests, in MB."""
    port = "18080"
    process = subprocess.Popen(
        [python, BLOG / "service.py"],
        env=variables(folder) | {"PORT": port},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        ends = time.monotonic() + 60
        while not answers(f"http://127.0.0.1:{port}/ready"):
            if time.monotonic() > ends:
                sys.exit("The blog did not start.")
            time.sleep(0.1)
        for number in range(REQUESTS):
            answers(f"http://127.0.0.1:{port}/blog/posts/none-{number}")
        status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        return int(next(line for line in status if line.startswith("VmRSS")).split()[1]) / 1000
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def answers(url: str) -> bool:
    """Return whether a request succeeds."""
    try:
        urllib.request.urlopen(url, timeout=10).close()  # noqa: S310 - only this machine's
    except OSError:
        return False
    return True


def variables(folder: Path) -> dict[str, str]:
    """Return the environment variables of the blog."""
    named = {"PYTHONPATH": str(BLOG), "TOTOMS_LOCAL_ROOT": str(folder / "root"), "DIGEST_KEY": "a key"}
    return {**os.environ, **named, "HYPERSCALER": "local"}


if __name__ == "__main__":
    main(sys.argv[1:] or ["local", "aws", "gcp", "azure"])
