"""A storage on the local backend, and processes that use the same folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import totoms.plugins.loader  # noqa: F401 - tells the interfaces where to find the implementations
from totoms.storage.storage import CloudStorage

BUCKET = "my-bucket"

_PREAMBLE = f"""
import os, sys
import totoms.plugins.loader
from totoms.errors import *
from totoms.storage.storage import CloudStorage
storage = CloudStorage({BUCKET!r})
"""


@pytest.fixture
def storage() -> CloudStorage:
    return CloudStorage(BUCKET)


@pytest.fixture
def bucket_folder(local_root: str) -> Path:
    return Path(local_root) / "storage" / BUCKET


@pytest.fixture
def start_python() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start Python code that has `storage`, in a process of its own. Killed at the end of the test."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", _PREAMBLE + code, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=dict(os.environ),
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
