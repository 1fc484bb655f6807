"""The threads in which blocking work is done."""

from __future__ import annotations

import subprocess
import sys

_FORKS = """
import asyncio, os, sys
from totoms.threads import run_in_thread

async def work():
    async with asyncio.timeout(120):
        return await run_in_thread(os.getpid)

asyncio.run(work())  # from now on the pool has a thread that waits for work
child = os.fork()
if child == 0:
    try:
        os._exit(0 if asyncio.run(work()) == os.getpid() else 1)
    except BaseException:
        os._exit(2)
_, status = os.waitpid(child, 0)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_forked_child_has_threads_of_its_own() -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", _FORKS], timeout=300, check=False)
    assert done.returncode == 0
