"""`import totoms` works without POSIX, as on Windows; the local backend says that it needs it."""

from __future__ import annotations

import subprocess
import sys

import pytest

# The standard library and the dependencies go by `sys.platform`, so they are imported before Windows is simulated.
WINDOWS = """
import asyncio, os, subprocess, sys, tempfile
import fastapi, httpx, uvicorn

for module in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[module] = None
for name in ("fork", "geteuid", "getuid", "pread", "pwrite", "register_at_fork", "O_DIRECTORY", "O_NOFOLLOW"):
    delattr(os, name)
"""


def on_windows(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", WINDOWS + program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("module", ["totoms", "totoms.plugin"])
def test_module_is_imported_with_all_its_names(module: str) -> None:
    on_windows(f"import {module}\nfor name in {module}.__all__: getattr({module}, name)")


@pytest.mark.parametrize(
    ("hook", "use"), [("totoms_message_bus", "MessageBus()"), ("totoms_cloud_storage", "CloudStorage('bucket')")]
)
def test_local_backend_says_that_it_needs_posix(hook: str, use: str) -> None:
    said = on_windows(f"""
from totoms import CloudStorage, ConfigurationError
from totoms.plugin import MessageBus
try:
    {use}
except ConfigurationError as error:
    print(type(error).__name__, error.message)
""")
    assert said.startswith(f"PluginLoadError {hook}() ")
    assert said.endswith(" failed: The local backend needs POSIX, such as Linux or macOS: this system has no fcntl.\n")


def test_secrets_are_read_from_environment_variables() -> None:
    said = on_windows("""
from totoms import SecretsManager
os.environ["API_KEY"] = "a secret"
print(SecretsManager().get_secret("api-key"))
""")
    assert said == "a secret\n"
