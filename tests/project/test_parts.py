"""Each test is in one part, also a new one, and the summary says which tests the other parts run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.parts import CLOUDS, of_cloud

ROOT = Path(__file__).parents[2]
TESTS = Path(__file__).parents[1]
MARKED = """
import pytest

def test_of_the_core(): ...
@pytest.mark.slow
def test_with_a_browser(): ...
@pytest.mark.faults
def test_that_kills(): ...
"""
OF_A_CLOUD = """
import pytest

class TestQuick:
    pytestmark = pytest.mark.quick
    def test_one(self): ...

class TestOther:
    def test_two(self): ...
    def test_three(self): ...
"""
CONTRACT = """
class TestContract:
    backend = "gcp"
    def test_four(self): ...
"""


@pytest.mark.parametrize(
    ("path", "backend", "cloud"),
    [
        ("tests/aws/test_new.py", "", True),
        ("tests/push/test_push_on_azure.py", "", True),
        ("tests/conformance/test_gcp_storage.py", "gcp", True),
        ("examples/totoms-nats/tests/test_nats_names.py", "", True),
        ("examples/totoms-memory/tests/test_memory_contracts.py", "memory", True),
        ("tests/conformance/test_contracts.py", "aws", True),
        ("tests/conformance/test_contracts.py", "local", False),
        ("tests/http/test_new.py", "", False),
        ("tests/project/test_lawsuits.py", "", False),
    ],
)
def test_a_test_is_of_a_cloud_by_its_place_or_its_contract(path: str, backend: str, cloud: bool) -> None:
    assert of_cloud(path, type("Class", (), {"backend": backend})) is cloud


def test_every_plugin_is_known() -> None:
    plugins = {path.parent.name.removeprefix("totoms-") for path in ROOT.glob("*/totoms-*/pyproject.toml")}
    assert plugins - {"core"} == CLOUDS


def test_quick_and_rest_are_everything() -> None:
    parts = dict(re.findall(r'^    "(quick|rest|smoke)": "(.+)",$', (ROOT / "noxfile.py").read_text(), re.MULTILINE))
    assert set(parts) == {"quick", "rest", "smoke"}
    for cloud in (True, False):
        for quick in (True, False):
            marks = {"cloud": cloud, "quick": quick, "smoke": False}
            # Words and operators of this repository's own file.
            assert eval(parts["quick"], {}, marks) is not eval(parts["rest"], {}, marks)


@pytest.mark.parametrize("processes", [[], ["-n", "2"]], ids=["one process", "several processes"])
def test_summary_says_what_is_left_to_other_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: list[str]
) -> None:
    (tmp_path / "test_marked.py").write_text(MARKED)
    (tmp_path / "test_aws.py").write_text(OF_A_CLOUD)
    (tmp_path / "test_contracts.py").write_text(CONTRACT)
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "support.parts", "-c", "/dev/null"]
    chosen = "not faults and not slow and (not cloud or quick)"

    done = subprocess.run(
        [*command, f"--rootdir={tmp_path}", "-m", chosen, *processes, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert done.returncode == 0, done.stdout
    assert re.search(r"^=* *2 passed", done.stdout, re.MULTILINE), done.stdout
    told = [line for line in done.stdout.splitlines() if line.startswith("NOT RUN HERE")]
    assert told == [
        "NOT RUN HERE: 3 tests marked cloud: make test-rest",
        "NOT RUN HERE: 1 tests marked faults: nox -s faults",
        "NOT RUN HERE: 1 tests marked slow: nox -s slow",
    ]
