"""Look into built wheels and sdists: what must be in them is, and nothing else.

python tools/check_distributions.py dist/*
"""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath


def names_in(distribution: Path) -> list[str]:
    """Return the names of all files; of an sdist without its top folder."""
    if distribution.suffix == ".whl":
        with zipfile.ZipFile(distribution) as wheel:
            return wheel.namelist()
    with tarfile.open(distribution) as sdist:
        return [str(PurePosixPath(*PurePosixPath(name).parts[1:])) for name in sdist.getnames()]


def faults_of(distribution: Path) -> list[str]:
    """Return what is wrong with one distribution."""
    names = names_in(distribution)
    package = distribution.name.split("-")[0]
    faults = []
    if not any(name.endswith(f"{package}/py.typed") for name in names):
        faults.append("no py.typed")
    if not any(PurePosixPath(name).name == "LICENSE" for name in names):
        faults.append("no LICENSE")
    for name in names:
        parts = PurePosixPath(name).parts
        if "templates" in parts:  # of new services, which have tests
            continue
        if {"tests", "docs", "examples", "__pycache__", ".totoms"} & set(parts) or name.endswith((".pyc", ".env")):
            faults.append(f"{name} does not belong there")
        if distribution.suffix == ".whl" and parts[0] != package and not parts[0].endswith(".dist-info"):
            faults.append(f"{name} is outside of {package}/")
    return faults


def main(arguments: list[str]) -> int:
    """Check each file named; return 1 when one is wrong."""
    status = 0
    for argument in arguments:
        faults = faults_of(Path(argument))
        print(f"{Path(argument).name}: {'; '.join(faults) or 'contents as they should be'}")
        status |= bool(faults)
    return status if arguments else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
