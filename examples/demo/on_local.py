"""The local backend, for the demo: it needs nothing but the secrets."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from example import Needs


@contextlib.contextmanager
def local(needs: Needs) -> Iterator[None]:
    """Write missing secrets to a file `.env`: on a laptop they are there or in the environment."""
    env = Path(".env")
    for name in needs.secrets:
        variable = name.upper().replace("-", "_")
        if not (variable in os.environ or (env.exists() and f"{variable}=" in env.read_text())):
            with env.open("a") as file:
                file.write(f"{variable}={secrets.token_hex(32)}\n")
            env.chmod(0o600)
    yield
