"""What must hold of the repository as a whole."""

from __future__ import annotations

import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import totoms

ROOT = Path(__file__).parents[2]
PACKAGES = sorted(path.parent for path in ROOT.glob("packages/*/pyproject.toml"))


def project(package: Path) -> dict[str, Any]:
    declared: dict[str, Any] = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    return declared


@cache
def tracked() -> dict[str, str]:
    """Every text file that git keeps or would keep, by its path in the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    texts = {}
    for name in filter(None, listed.split("\0")):
        try:
            texts[name] = (ROOT / name).read_text()
        except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
            continue
    return texts


def occurrences(pattern: str) -> list[str]:
    found = []
    for name, text in tracked().items():
        for number, line in enumerate(text.splitlines(), 1):
            if re.search(pattern, line):
                found.append(f"{name}:{number}: {line.strip()[:160]}")
    return found


def test_all_distributions_have_one_version() -> None:
    assert {project(package)["version"] for package in PACKAGES} == {totoms.__version__}


def test_changelog_has_this_version() -> None:
    assert f"## [{totoms.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_plugins_and_extras_take_the_same_major_version() -> None:
    major = int(totoms.__version__.partition(".")[0])
    core = next(package for package in PACKAGES if package.name == "totoms-core")
    extras = project(core)["optional-dependencies"]

    for package in PACKAGES:
        if package != core:
            assert f"totoms>={major},<{major + 1}" in project(package)["dependencies"]
    for name, requirements in extras.items():
        for requirement in requirements:
            if requirement.startswith("totoms-"):
                assert requirement == f"totoms-{name}>={major},<{major + 1}"


def test_every_distribution_has_the_licence_and_type_information() -> None:
    licence = (ROOT / "LICENSE").read_text()
    for package in PACKAGES:
        assert (package / "LICENSE").read_text() == licence
        assert project(package)["license"] == "MIT"
        assert list(package.glob("src/*/py.typed")), package.name


def test_no_package_registry_is_named_by_its_host() -> None:
    names = "|".join(("python" + "hosted", "py" + "pi", "npm" + "js", "deb" + "ian", "cra" + "tes"))
    assert occurrences(rf"(^|[^A-Za-z])[a-z.]*({names})\.(org|com|io)") == []


def test_no_path_of_a_developers_machine() -> None:
    # Where this checkout lies counts when it is special enough not to stand in a text by chance, as /src/ does.
    here = [rf"{re.escape(str(path))}/" for path in (ROOT, Path.home()) if len(path.parts) > 2]
    homes = ["/" + "home/[a-z]+/", "/" + "Users/[A-Za-z]+/", "/" + r"root/[\w.]"]
    assert occurrences(rf"(?<![\w.*])({'|'.join(here + homes)})") == []


def test_no_lock_file_is_kept() -> None:
    locks = {"uv.lock", "pylock.toml", "poetry.lock", "Pipfile.lock", "package-lock.json", "pdm.lock"}
    assert [name for name in tracked() if Path(name).name in locks] == []


def test_constraints_hold_names_and_versions_only() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line)] == []
    assert [line for line in lines if line.startswith("totoms")] == []


def test_constraints_cover_every_dependency() -> None:
    fixed = {normal(line.partition("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    for package in PACKAGES:
        for requirement in project(package)["dependencies"]:
            name = normal(requirement)
            if not name.startswith("totoms"):
                assert name in fixed, f"constraints.txt has no version for {name}: nox -s constraints"


def test_every_dependency_of_the_core_is_justified() -> None:
    page = (ROOT / "docs/decisions/dependencies.md").read_text().lower()
    core = next(package for package in PACKAGES if package.name == "totoms-core")
    for requirement in project(core)["dependencies"]:
        assert f"**{normal(requirement)}**" in page


def test_every_dependency_has_a_lower_bound_to_be_tested() -> None:
    for package in PACKAGES:
        for requirement in map(Requirement, project(package)["dependencies"]):
            assert [one for one in requirement.specifier if one.operator == ">="], f"{package.name}: {requirement}"


def test_no_lower_bound_allows_a_version_with_an_advisory() -> None:
    page = (ROOT / "docs/decisions/dependencies.md").read_text()
    lowest = {
        name: Version(version) for name, version in re.findall(r"^\| ([a-z0-9-]+) \| ([0-9.]+) \|", page, re.MULTILINE)
    }
    assert {"cryptography", "h11", "starlette"} <= set(lowest)
    named = set()
    for package in PACKAGES:
        for requirement in map(Requirement, project(package)["dependencies"]):
            name = normal(requirement.name)
            if name in lowest:
                named.add(name)
                bounds = [Version(one.version) for one in requirement.specifier if one.operator == ">="]
                assert max(bounds, default=Version("0")) >= lowest[name], f"{package.name}: {requirement}"
    assert named == set(lowest), "the table has a library that nothing requires"


def normal(requirement: str) -> str:
    """The normal form of the name in a requirement (PEP 503)."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", requirement)[0]).lower()


EXAMPLES = ["examples/blog/README.md", "examples/orders/README.md"]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", *EXAMPLES])
def test_links_between_files_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if "://" not in link]
    assert [link for link in links if not ((ROOT / page).parent / link).exists()] == []


def test_every_make_target_and_nox_session_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    sessions = set(re.findall(r"^def ([a-z_]+)\(session", (ROOT / "noxfile.py").read_text(), re.MULTILINE))
    for name, text in tracked().items():
        if name.endswith(".md") or name in ("Makefile", ".ci/run"):
            assert set(re.findall(r"(?:`|^)make ([a-z-]+)", text, re.MULTILINE)) <= targets, name
            assert set(re.findall(r"nox -s ([a-z_]+)", text)) <= sessions, name
    workflow = (ROOT / ".ci/run").read_text()
    assert "make test" in workflow


def test_the_formatter_is_never_switched_off() -> None:
    marks = ("fmt: " + "skip", "fmt: " + "off")
    assert [
        name for name, text in tracked().items() if name.endswith(".py") and any(mark in text for mark in marks)
    ] == []


def test_no_module_is_over_300_lines() -> None:
    sources = {name: text for name, text in tracked().items() if "/src/" in name and name.endswith(".py")}
    assert sources
    assert {name: text.count("\n") for name, text in sources.items() if text.count("\n") > 300} == {}
