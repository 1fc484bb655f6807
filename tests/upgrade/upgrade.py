"""Upgrade totoms 1.5.0 in place to a wheel of today, and start a service of that time with what pip left.

    python tests/upgrade/upgrade.py --wheel dist/totoms-2.0.0-py3-none-any.whl

In a virtual environment of its own: `pip install totoms==1.5.0` from the index, with all it depends on, then
`pip install -U` of the wheel. Some packages of 1.5.0 are packages of today as well, with other files in them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import urllib.request
import venv
from collections.abc import Iterator
from pathlib import Path

OLD = "1.5.0"
SERVICE = Path(__file__).parents[1] / "support/services/of_1_5.py"
FORMER_PACKAGES = ("api", "auth", "evt", "gale", "model", "secrets", "storage")
VARIABLES = {
    "HYPERSCALER": "local",
    "PORT": "0",
    "PYTHONUNBUFFERED": "1",
    "JWT_SIGNING_KEY": "a-key-of-a-service-of-its-time-0123456789",
    "BLOG_API_KEY": "k",
    "MONGO_HOST": "mongo.example",
    "BLOG_MONGO_USER": "blogger",
    "BLOG_MONGO_PSWD": "p",
}

# Run by the environment's own Python.
ABOUT = """
import importlib, importlib.metadata as metadata, json, pathlib, sys
import totoms
modules = {name: importlib.import_module("totoms." + name).__file__ for name in ("auth", "secrets", "storage")}
folder = pathlib.Path(totoms.__file__).parent
ours = {str(folder.parent.joinpath(file)) for file in metadata.files("totoms")}
left = [str(path) for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
print(json.dumps({
    "version": metadata.version("totoms"), "imported": totoms.__version__, "folder": str(folder), "modules": modules,
    "left": sorted(set(left) - ours),
}))
"""


def main() -> None:
    """Run the upgrade and end with status 1 at the first check that fails."""
    parser = argparse.ArgumentParser(description="Upgrade totoms 1.5.0 in place and start a service of that time.")
    parser.add_argument("--wheel", type=Path, required=True, help="the wheel of totoms to upgrade to")
    wheel: Path = parser.parse_args().wheel.resolve(strict=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        venv.create(folder / "venv", with_pip=True)
        python = folder / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
        check_upgrade(python, wheel, folder)
    sys.stdout.write(f"upgraded totoms {OLD} to {wheel.name}\n")


def check_upgrade(python: Path, wheel: Path, scratch: Path) -> None:
    """Install the old, upgrade, and check what is there."""
    pip = (str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", "install")
    run(*pip, f"totoms=={OLD}", cwd=scratch)
    # Imported once, as a service did: what it compiled stays in folders that pip did not make.
    run(str(python), "-c", "import totoms.secrets.SecretsManager, totoms.storage.CloudStorageFactory", cwd=scratch)
    run(*pip, "--upgrade", str(wheel), cwd=scratch)

    about = json.loads(run(str(python), "-c", ABOUT, cwd=scratch))
    expected = wheel.name.split("-")[1]
    expect(
        about["version"] == about["imported"] == expected, f"version {about['version']}, imported {about['imported']}"
    )
    expect(not about["left"], f"files of {OLD} stayed: {about['left']}")
    check_modules(about)

    # Worse than pip leaves it: the folders of the old packages with compiled modules in them, as in an image's layer.
    package = Path(about["folder"])
    for former in FORMER_PACKAGES:
        stale = package / former / "__pycache__"
        stale.mkdir(parents=True, exist_ok=True)
        (stale / f"__init__.cpython-{sys.version_info.major}{sys.version_info.minor}.pyc").write_bytes(b"stale")
    check_modules(json.loads(run(str(python), "-c", ABOUT, cwd=scratch)))
    check_service(python, scratch)


def check_modules(about: dict[str, dict[str, str]]) -> None:
    """Expect the packages that 1.5.0 had as well to be those of today."""
    for name, file in about["modules"].items():
        expect(Path(file).parts[-2:] == (name, "__init__.py"), f"totoms.{name} is {file}")


def check_service(python: Path, scratch: Path) -> None:
    """Expect a service written for the old version to start and to answer."""
    with started(python, scratch) as service:
        assert service.stdout is not None
        lines = []
        for line in service.stdout:
            lines.append(line)
            listening = re.search(r"Listening on (http://\S+?:\d+)", line)
            if listening:
                break
        else:
            raise SystemExit("the service did not start:\n" + "".join(lines))
        with urllib.request.urlopen(f"{listening.group(1)}/health", timeout=10) as answer:
            health = json.load(answer)
        expected = {"status": "ok", "apiName": "toto-ms-blog", "message": "Service is running"}
        expect(health.items() >= expected.items(), str(health))
        service.terminate()
        service.stdout.read()
        expect(service.wait(120) == 0, f"the service ended with status {service.returncode}")


@contextlib.contextmanager
def started(python: Path, scratch: Path) -> Iterator[subprocess.Popen[str]]:
    """Start the old service; it is gone at the end, whatever happened."""
    env = {**os.environ, **VARIABLES, "TOTOMS_LOCAL_ROOT": str(scratch / "root")}
    service = subprocess.Popen(
        [str(python), str(SERVICE)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=env,
        cwd=scratch,
    )
    try:
        yield service
    finally:
        if service.poll() is None:
            service.kill()
            service.wait()


def run(*command: str, cwd: Path) -> str:
    """Run a command and return what it printed; its failure ends this script."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=900)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)[:200]} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def expect(condition: bool, otherwise: str) -> None:
    """End with status 1 and a line that tells why."""
    if not condition:
        raise SystemExit(f"upgrade: {otherwise}")


if __name__ == "__main__":
    main()
