"""The pytest plugin: rewrites the contracts' asserts, and writes the results of their tests as JSON.

``pytest --totoms-results=results.json`` writes, for each test class that inherits a contract, its declarations and the
outcomes of its tests by the number of the behaviour. :mod:`totoms.testing.table` renders them as a table.
"""

from __future__ import annotations

import json
import pkgutil
from pathlib import Path
from typing import Any, Final

import pytest

import totoms.testing

# Not the package itself: it is already imported, and pytest would warn.
pytest.register_assert_rewrite(
    *(f"totoms.testing.{one.name}" for one in pkgutil.iter_modules(totoms.testing.__path__) if one.name != "plugin")
)

OPTION: Final = "--totoms-results"
_PROPERTY: Final = "totoms contract"
_SEVERITY: Final = ("passed", "xfailed", "skipped", "failed")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--totoms-results``."""
    parser.getgroup("totoms").addoption(
        OPTION, metavar="FILE", help="write the results of the contracts of totoms.testing as JSON"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Collect results in the controlling process, which gets all reports."""
    path = config.getoption(OPTION)
    if path and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Results(Path(path)), "totoms results")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Add its contract and class to each test as a property, which pytest-xdist sends with the report."""
    from totoms.testing.contract import Contract, contract_of, number_of

    for item in items:
        cls = getattr(item, "cls", None)
        if cls is None or not issubclass(cls, Contract):
            continue
        about = {
            "class": cls.__qualname__,
            "contract": contract_of(cls).__name__,
            "backend": getattr(cls, "backend", ""),
            "arrangement": cls.arrangement,
            "capabilities": sorted(cls.capabilities),
            "behaviour": number_of(getattr(item, "originalname", item.name)),
            "test": item.name,
        }
        item.user_properties.append((_PROPERTY, json.dumps(about)))


class _Results:
    """Collects outcomes by test class and behaviour."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._classes: dict[tuple[str, str], dict[str, Any]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        about = next((json.loads(str(value)) for name, value in report.user_properties if name == _PROPERTY), None)
        if about is None:
            return
        # An xfail test that passed counts as xfailed, so that the results are the same each time.
        outcome = "xfailed" if hasattr(report, "wasxfail") else str(report.outcome)
        behaviour, test = str(about.pop("behaviour")), about.pop("test")
        found = self._classes.setdefault(
            (report.nodeid.partition("::")[0], about["class"]), {**about, "behaviours": {}}
        )
        tests = found["behaviours"].setdefault(behaviour, {})
        tests[test] = max(tests.get(test, "passed"), outcome, key=_SEVERITY.index)

    def pytest_sessionfinish(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        results = sorted(self._classes.values(), key=lambda one: (one["backend"], one["contract"], one["arrangement"]))
        self._path.write_text(json.dumps({"results": results}, indent=1, sort_keys=True) + "\n")
