"""The core does not depend on any plugin: it imports none, and compares no hyperscaler's name."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import totoms

CORE = Path(__file__).parents[2] / "packages" / "totoms-core" / "src" / "totoms"
HYPERSCALERS = {"aws", "gcp", "azure", "local"}
CLOUDS = ("boto3", "botocore", "aiobotocore", "google.cloud", "google.auth", "azure", "obstore")


def modules() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(CORE.rglob("*.py")):
        yield path, ast.parse(path.read_text(), str(path))


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def names_decided_on(tree: ast.AST) -> Iterator[ast.expr]:
    """What comparisons and `match` compare with."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            yield from (part for side in (node.left, *node.comparators) for part in ast.walk(side))  # type: ignore[misc]
        elif isinstance(node, ast.MatchValue):
            yield node.value


def test_core_imports_no_plugin_and_no_sdk() -> None:
    for path, tree in modules():
        for name in imported(tree):
            assert not name.startswith(("totoms_", *CLOUDS)), f"{path.name} imports {name}"


def test_core_compares_no_hyperscalers_name() -> None:
    for path, tree in modules():
        for node in names_decided_on(tree):
            if isinstance(node, ast.Constant):
                assert node.value not in HYPERSCALERS, f"{path.name}:{node.lineno} compares with {node.value!r}"


@pytest.mark.parametrize("source", ["x == 'aws'", "x in ('gcp', 'local')", "match x:\n    case 'azure': pass"])
def test_a_comparison_with_a_hyperscalers_name_is_seen(source: str) -> None:
    seen = [node for node in names_decided_on(ast.parse(source)) if isinstance(node, ast.Constant)]
    assert any(node.value in HYPERSCALERS for node in seen)


def test_only_the_local_backends_hooks_import_its_modules() -> None:
    for path, tree in modules():
        # `TestMicroservice` runs services on the local backend, with another clock and other secrets.
        if CORE / "local" not in path.parents and path != CORE / "testing" / "service" / "backend.py":
            for name in imported(tree):
                assert not name.startswith("totoms.local"), f"{path.name} imports {name}"


def test_import_loads_no_backend_and_no_sdk() -> None:
    source = "import sys, totoms; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True).stdout.split()

    assert "totoms" in loaded
    assert [name for name in loaded if name.startswith(("totoms_", "totoms.local", *CLOUDS))] == []
    assert "uvicorn" not in loaded  # only who serves with it needs it


def test_names_of_the_package_are_imported_from_where_type_checkers_find_them() -> None:
    tree = ast.parse((CORE / "__init__.py").read_text())
    (typed,) = [
        node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "_typing.TYPE_CHECKING"
    ]
    found = {
        node.module.removeprefix("totoms."): tuple(alias.name for alias in node.names)
        for node in typed.body
        if isinstance(node, ast.ImportFrom) and node.module
    }

    assert found == totoms._NAMES
    assert {name for names in found.values() for name in names} == set(totoms.__all__) - {"__version__"}
    assert set(totoms.__all__) <= set(dir(totoms))


@pytest.mark.parametrize("arguments", [["--help"], ["dlq", "list", "blog-posts"], ["token", "--user", "me"]])
def test_command_loads_no_http_and_no_sdk(arguments: list[str]) -> None:
    source = f"import sys\nfrom totoms.cli.main import main\ntry: main({arguments})\nfinally: print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False)

    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "totoms" in loaded, done.stderr
    assert loaded.isdisjoint({"fastapi", "starlette", "uvicorn", "httpx", "boto3", "grpc", "azure", "nats"})
