"""The parts that the tests are run in, so that a newcomer waits minutes and nothing is dropped.

A test belongs to a cloud when the cloud's name is a word of its path (`tests/aws/...`, `test_push_on_gcp.py`), or when
its class holds a contract against that cloud. It gets the marker `cloud` by that; nobody has to write it. All other
tests are of the core or of the local backend. `make test` runs those, and of the clouds the contracts marked `quick`;
`make test-rest` runs the rest, and with each other Python the core, local and the contracts marked `smoke`. noxfile.py
has the expressions. The markers `slow` and `faults` have sessions of their own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pytest

CLOUDS: Final = frozenset({"aws", "gcp", "azure", "nats", "memory"})
"""All backends except the local one: three clouds, and the plugins among the examples."""
_LEFT: Final = "tests left to other parts"
_RUN_BY: Final = {"faults": "nox -s faults", "slow": "nox -s slow", "cloud": "make test-rest"}


def of_cloud(path: str, cls: type | None = None) -> bool:
    """Return whether a test belongs to a cloud.

    Args:
        path: The test file's, from the root of the repository on.
        cls: The test's class.
    """
    return bool(CLOUDS & {*re.split(r"[/\\._-]", path), getattr(cls, "backend", "")})


@pytest.hookimpl(tryfirst=True)  # markers are looked at by pytest's own hook of this name
def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Mark the tests of clouds."""
    for item in items:
        if of_cloud(item.nodeid.partition("::")[0], getattr(item, "cls", None)):
            item.add_marker("cloud")


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Count what is left to other parts."""
    for item in items:
        for marker in _RUN_BY:
            if item.get_closest_marker(marker) is not None:
                left = item.config.stash.setdefault(_COUNTS, Counter())
                left[marker] += 1
                break


_COUNTS: Final = pytest.StashKey[Counter[str]]()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send the counts to the process that writes the summary."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput[_LEFT] = dict(session.config.stash.get(_COUNTS, Counter()))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take the counts of one process of several: each of them has collected all tests."""
    node.config.stash[_COUNTS] = Counter(getattr(node, "workeroutput", {}).get(_LEFT, {}))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Write how many tests other parts have, and the command that runs them."""
    left: Mapping[str, int] = terminalreporter.config.stash.get(_COUNTS, Counter())
    if left:
        terminalreporter.section("left to other parts")
    for marker, number in sorted(left.items()):
        terminalreporter.write_line(f"NOT RUN HERE: {number} tests marked {marker}: {_RUN_BY[marker]}")
