"""The results that contracts write, and the table that is made of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from totoms.testing.table import BEGIN, END, main, render

CONTRACTS = """
import pytest

from totoms.testing import Contract


class TinyContract(Contract):
    __module__ = "totoms.testing.tiny"

    async def test_01_first(self, harness):
        assert harness

    @pytest.mark.parametrize("number", [1, 2])
    async def test_01_numbers(self, harness, number):
        assert harness >= number

    async def test_02_second(self, harness):
        assert harness


class WithHarness(TinyContract):
    @pytest.fixture
    def harness(self):
        return 2


class TestWhole(WithHarness):
    backend = "one"
    capabilities = frozenset({"pull", "push"})


class TestWholeInProcesses(TestWhole):
    arrangement = "several processes"


class TestKnown(WithHarness):
    backend = "two"

    @pytest.mark.xfail(reason="not there")
    async def test_02_second(self, harness):
        assert not harness

    @pytest.mark.xfail(reason="now and then")
    async def test_01_first(self, harness):
        assert harness


class TestBroken(WithHarness):
    backend = "three"

    @pytest.fixture
    def harness(self):
        return 1


class TestAway(WithHarness):
    backend = "four"

    @pytest.fixture
    def harness(self):
        pytest.skip("no emulator")


class TestWeakened(WithHarness):
    backend = "five"
    test_01_first = None


def test_of_no_contract():
    pass
"""
SETTINGS = "[pytest]\nasyncio_mode = strict\nasyncio_default_fixture_loop_scope = function\n"
GUARD = {"test_00_nothing_is_left_out": "passed"}


def run(folder: Path, *options: str) -> list[dict[str, Any]]:
    (folder / "pytest.ini").write_text(SETTINGS)
    (folder / "test_contracts.py").write_text(CONTRACTS)
    results = folder / "made" / "results.json"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--totoms-results={results}", *options]
    made = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert made.returncode == 1, made.stdout + made.stderr  # two of the classes have a test that fails
    written: list[dict[str, Any]] = json.loads(results.read_text())["results"]
    return written


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run(tmp_path_factory.mktemp("alone"))


def of(results: list[dict[str, Any]], name: str) -> dict[str, Any]:
    (found,) = [one for one in results if one["class"] == name]
    return found


def test_each_class_reports_what_it_declares_and_how_its_tests_ended(results: list[dict[str, Any]]) -> None:
    passed = {"test_01_first": "passed", "test_01_numbers[1]": "passed", "test_01_numbers[2]": "passed"}
    assert of(results, "TestWhole") == {
        "class": "TestWhole",
        "contract": "TinyContract",
        "backend": "one",
        "arrangement": "",
        "capabilities": ["pull", "push"],
        "behaviours": {"0": GUARD, "1": passed, "2": {"test_02_second": "passed"}},
    }
    assert of(results, "TestWholeInProcesses")["arrangement"] == "several processes"
    assert len(results) == 6


def test_what_did_not_pass_is_distinguished(results: list[dict[str, Any]]) -> None:
    assert of(results, "TestKnown")["behaviours"]["2"] == {"test_02_second": "xfailed"}
    assert of(results, "TestKnown")["behaviours"]["1"]["test_01_first"] == "xfailed"
    assert of(results, "TestBroken")["behaviours"]["1"]["test_01_numbers[2]"] == "failed"
    assert of(results, "TestAway")["behaviours"]["2"] == {"test_02_second": "skipped"}
    assert of(results, "TestWeakened")["behaviours"]["0"] == {"test_00_nothing_is_left_out": "failed"}


def test_results_are_the_same_from_several_processes(results: list[dict[str, Any]], tmp_path: Path) -> None:
    assert run(tmp_path, "-n", "2") == results


def test_nothing_is_written_unless_it_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text(SETTINGS)
    (tmp_path / "test_contracts.py").write_text(CONTRACTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "TestWhole"]
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)

    assert made.returncode == 0, made.stdout
    assert not list(tmp_path.glob("*.json"))


def test_table_counts_behaviours_and_names_those_that_are_missing(results: list[dict[str, Any]]) -> None:
    assert render(results).splitlines() == [
        "| Backend | Contract | Arrangement | Behaviours passed | pull | push |",
        "|---|---|---|---|---|---|",
        "| five | TinyContract |  | 2 of 2 (and some are left out) | no | no |",
        "| four | TinyContract |  | 0 of 2 (not: 1, 2) | no | no |",
        "| one | TinyContract |  | 2 of 2 | yes | yes |",
        "| one | TinyContract | several processes | 2 of 2 | yes | yes |",
        "| three | TinyContract |  | 1 of 2 (not: 1) | no | no |",
        "| two | TinyContract |  | 0 of 2 (not: 1, 2) | no | no |",
    ]


def test_capability_of_another_contract_is_neither_there_nor_missing() -> None:
    def one(contract: str, *capabilities: str) -> dict[str, Any]:
        return {
            "backend": "one",
            "contract": contract,
            "arrangement": "",
            "capabilities": list(capabilities),
            "behaviours": {"0": GUARD, "1": {"test_01_first": "passed"}},
        }

    assert render([one("Bus", "pull"), one("Storage", "urls")]).splitlines()[2:] == [
        "| one | Bus |  | 1 of 1 | yes |  |",
        "| one | Storage |  | 1 of 1 |  | yes |",
    ]


def test_row_of_what_could_not_be_tested_stays_as_it_was() -> None:
    run = {"backend": "one", "contract": "Bus", "arrangement": "emulator", "capabilities": ["pull"]}
    tested = {**run, "behaviours": {"0": GUARD, "1": {"test_01_first": "passed", "test_01_second": "skipped"}}}
    skipped = {**run, "behaviours": {"0": GUARD, "1": {"test_01_first": "skipped"}}}
    before = render([{**run, "behaviours": {"0": GUARD, "1": {"test_01_first": "passed"}}}])

    assert render([skipped], before) == before
    assert render([tested], before).splitlines()[-1] == "| one | Bus | emulator | 0 of 1 (not: 1) | yes |"
    assert render([skipped], "").splitlines()[-1] == "| one | Bus | emulator | 0 of 1 (not: 1) | yes |"


@pytest.fixture
def page(tmp_path: Path) -> Path:
    made = tmp_path / "capabilities.md"
    made.write_text(f"# Before\n\n{BEGIN}\nold\n{END}\n\nAfter\n")
    return made


@pytest.fixture
def written(tmp_path: Path, results: list[dict[str, Any]]) -> list[str]:
    """The results in two files."""
    files = []
    for number, part in enumerate((results[:2], results[2:])):
        file = tmp_path / f"{number}.json"
        file.write_text(json.dumps({"results": part}))
        files.append(str(file))
    return files


def test_table_is_written_between_the_markers_of_a_page(
    page: Path, written: list[str], results: list[dict[str, Any]]
) -> None:
    assert main([*written, "--into", str(page)]) == 0
    assert page.read_text() == f"# Before\n\n{BEGIN}\n{render(results)}\n{END}\n\nAfter\n"


def test_check_reports_a_page_that_is_out_of_date_and_changes_nothing(
    page: Path, written: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = page.read_text()
    assert main([*written, "--into", str(page), "--check"]) == 1
    assert page.read_text() == before
    assert "out of date" in capsys.readouterr().err

    main([*written, "--into", str(page)])
    assert main([*written, "--into", str(page), "--check"]) == 0


def test_page_without_markers_is_refused(page: Path, written: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    page.write_text("# Nothing here\n")
    assert main([*written, "--into", str(page)]) == 2
    assert BEGIN in capsys.readouterr().err
    assert page.read_text() == "# Nothing here\n"


def test_table_runs_as_a_program(page: Path, written: list[str]) -> None:
    command = [sys.executable, "-m", "totoms.testing.table", *written, "--into", str(page), "--check"]
    made = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert made.returncode == 1
    assert "out of date" in made.stderr
