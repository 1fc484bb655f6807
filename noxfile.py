"""Everything that checks, builds and measures the project. `make test` and `make check` call it; so may you:

nox -s tests-3.12 -- tests/local -k lease
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

import nox
from packaging.requirements import Requirement

ROOT = Path(__file__).parent
CORE = ROOT / "packages" / "totoms-core"
NATS = ROOT / "examples" / "totoms-nats"
"""A plugin as a third party would publish it; checked like our own."""
MEMORY = ROOT / "examples" / "totoms-memory"
"""The smallest plugin, which the tutorial builds."""
CLOUDS = [path.parent for path in sorted(ROOT.glob("packages/*/pyproject.toml")) if path.parent != CORE]
PACKAGES = [CORE, *CLOUDS, NATS, MEMORY]
CAPABILITIES = "docs/capabilities.md"
OLDEST, NEWEST = 11, 15
RESULTS = ROOT / ".nox" / "conformance"
SPREAD = ["-n", str(max(6, os.cpu_count() or 1)), "--dist", "worksteal"]
"""In several processes: many tests wait for a server, so few cores carry more than one each."""

PARTS = {
    "quick": "not cloud or quick",
    "rest": "cloud and not quick",
    "smoke": "not cloud or smoke",
}
"""What runs when, as an expression over the markers of pyproject.toml; `quick` and `rest` together are everything."""

TEST_TOOLS = ["pytest", "pytest-asyncio", "pytest-xdist", "hypothesis", "httpx"]
TEST_TOOLS += ["sentry-sdk", "opentelemetry-instrumentation-fastapi"]  # what users put on an app
TEST_TOOLS += ["fastapi-offline"]  # the extra docs
OTEL = ["opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http", "opentelemetry-exporter-prometheus"]
"""The extra otel."""
TEST_TOOLS += OTEL
TEST_TOOLS += ["watchfiles", "Jinja2"]  # the extra dev, with the SDK of OpenTelemetry
TEST_TOOLS += ["openapi-spec-validator"]  # the contracts
TEST_TOOLS += ["mcp", "playwright"]  # coding agents, and a browser, which is Debian's
TEST_TOOLS += ["sqlalchemy", "aiosqlite"]  # the how-to pages
TEST_TOOLS += ["pymongo"]  # a service of `python -m totoms new --mongo`
TEST_TOOLS += ["structlog", "loguru"]  # the recipes of docs/operations/logs.md
TEST_TOOLS += ["pyyaml", "kubernetes-validate", "dockerfile-parse"]  # the files of examples/deploy
TEST_SERVERS = ["gunicorn", "uvicorn-worker", "granian"]
TEST_CLOUDS = ["ministack", "trustme", "aiohttp"]  # aiohttp is what AMQP over WebSockets takes
LOWEST_TESTS = ["tests/http", "tests/auth", "tests/messages", "tests/service", "tests/secrets", "tests/local"]
LOWEST_TESTS += ["tests/storage", "tests/conformance", "examples/totoms-nats/tests"]
DEMO_SERVERS = {"aws": ["ministack"], "azure": ["trustme"]}
LINT_TOOLS = ["ruff", "import-linter"]
TYPE_TOOLS = ["mypy", "pyright[nodejs]", "boto3-stubs"]
TYPE_TOOLS += ["sqlalchemy"]  # the how-to pages
TYPE_TOOLS += ["mcp", "watchfiles", "Jinja2"]  # the extras dev and mcp
TYPE_TOOLS += ["pymongo", "pytest-asyncio"]  # what `python -m totoms new --mongo` writes
TYPE_TOOLS += ["structlog", "loguru"]  # the recipes of docs/operations/logs.md
TYPED_EXAMPLES = ["blog/service.py", "orders/orders.py", "orders/invoices.py", "orders/issuer.py"]
"""The parts of examples that are valid for strict type checkers, as a user's code would be."""
TYPED_PAGES = ["README.md"]
"""The pages of which every Python block is complete, and valid for strict type checkers."""
for pages in ("docs/*.md", "docs/plugins/*.md", "docs/operations/*.md", "docs/how-to/*.md", "docs/explanation/*.md"):
    TYPED_PAGES += [str(page.relative_to(ROOT)) for page in sorted(ROOT.glob(pages))]
DOC_TOOLS = ["mkdocs-material", "mkdocstrings[python]"]
BUILD_TOOLS = ["build", "hatchling", "twine"]
BENCH_TOOLS = ["httpx", "faststream[nats]", "trustme"]

nox.options.sessions = ["lint", "types", "quick", "docs", "build", "core_only", "upgrade"]
nox.options.reuse_venv = "yes"
nox.options.default_venv_backend = "virtualenv"
nox.options.error_on_missing_interpreters = False
nox.options.download_python = "never"


def _interpreters() -> list[str]:
    """Return every Python from 3.11 on found here, this one first; those of pyenv are put on the PATH."""
    this = sys.version_info.minor
    found = [f"3.{this}"]
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    for minor in range(OLDEST, NEWEST + 1):
        if minor == this:
            continue
        of_pyenv = sorted(str(path) for path in pyenv.glob(f"versions/3.{minor}.*/bin/python3.{minor}"))
        for candidate in [shutil.which(f"python3.{minor}"), *of_pyenv]:
            # pyenv's stand-ins are on the PATH for every version and start only those that are switched on.
            if candidate and not subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode:
                os.environ["PATH"] = f"{Path(candidate).parent}{os.pathsep}{os.environ['PATH']}"
                found.append(f"3.{minor}")
                break
    return found


PYTHONS = _interpreters()


def _minor(python: str) -> int:
    return int(python.partition(".")[2])


def install(session: nox.Session, *requirements: str, packages: Sequence[Path] = (CORE,)) -> None:
    """Install as constraints.txt says, unless this environment holds exactly that already."""
    wanted = [*requirements, *(part for package in packages for part in ("-e", str(package)))]
    declared = [path.read_text() for path in (ROOT / "constraints.txt", *(p / "pyproject.toml" for p in packages))]
    fingerprint = hashlib.sha256("\n".join([*wanted, *declared]).encode()).hexdigest()
    stamp = Path(session.virtualenv.location) / "installed"
    if stamp.is_file() and stamp.read_text() == fingerprint:
        return
    session.install("--quiet", "--constraint", "constraints.txt", *wanted)
    stamp.write_text(fingerprint)


def lower_bounds(package: Path) -> list[str]:
    """Return the dependencies of `package` and of its extra `testing`, each at the lowest version that it allows."""
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project.get("optional-dependencies", {}).get("testing", [])]
    found = []
    for requirement in map(Requirement, wanted):
        lowest = [one.version for one in requirement.specifier if one.operator == ">="]
        if lowest and requirement.name != "totoms":
            found.append(f"{requirement.name}=={lowest[0]}" + (f"; {requirement.marker}" if requirement.marker else ""))
    return found


def wheel_of(session: nox.Session, package: Path) -> str:
    """Build the wheel of `package` and return where it lies."""
    folder = Path(session.create_tmp()) / "wheel"
    shutil.rmtree(folder, ignore_errors=True)
    session.run("python", "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(package))
    return str(next(folder.glob("*.whl")))


@nox.session(default=False)
def quick(session: nox.Session) -> None:
    """Run what a newcomer runs: the core, the local backend and the quick contracts of the clouds, with one Python."""
    session.notify(f"tests-{PYTHONS[0]}", ["--part=quick"])


@nox.session(default=False)
def rest(session: nox.Session) -> None:
    """Run what `quick` leaves: the rest with the same Python; core, local and smoke contracts with each other one."""
    if "quick" in sys.argv:
        session.error("Run `quick` and `rest` one after the other: nox runs a session once only.")
    missing = [f"3.{minor}" for minor in range(OLDEST, NEWEST) if f"3.{minor}" not in PYTHONS]
    if missing:
        session.warn(f"NOT TESTED, because not found on this machine: Python {', '.join(missing)}")
    for python in PYTHONS[1:]:
        session.notify(f"tests-{python}", ["--part=smoke"])
    session.notify(f"tests-{PYTHONS[0]}", ["--part=rest"])


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run tests with one Python: all but those marked `slow` or `faults`, or those named behind ``--``.

    ``-- --part=NAME`` runs a part of them; see `PARTS`.
    """
    install(session, *TEST_TOOLS, *TEST_SERVERS, *TEST_CLOUDS, packages=PACKAGES)
    part = next((name for name in PARTS if session.posargs == [f"--part={name}"]), "")
    if session.posargs and not part:
        pytest(session, *session.posargs)
        return
    chosen = ["-m", f"not faults and not slow and ({PARTS[part]})"] if part else []
    pytest(session, *SPREAD, *chosen, f"--totoms-results={RESULTS / (part or 'all')}.json")
    if part == "rest" and os.environ.get("TOTOMS_REQUIRE_EMULATORS") == "1":  # else some may not have been tested
        files = [str(RESULTS / f"{name}.json") for name in ("quick", "rest")]
        session.run("python", "-m", "totoms.testing.table", *files, "--into", CAPABILITIES, "--check")


def pytest(session: nox.Session, *arguments: str) -> None:
    """Run pytest, with compiled modules kept: hundreds of processes import them."""
    session.run("python", "-m", "pytest", *arguments, env={"PYTHONDONTWRITEBYTECODE": ""})


@nox.session
def capabilities(session: nox.Session) -> None:
    """Write the table of docs/capabilities.md anew, from what the conformance tests show."""
    install(session, *TEST_TOOLS, *TEST_CLOUDS, packages=PACKAGES)
    results = Path(session.create_tmp()) / "conformance.json"
    where = ["tests/conformance", "examples/totoms-nats/tests", "examples/totoms-memory/tests"]
    pytest(session, *SPREAD, *where, f"--totoms-results={results}")
    session.run("python", "-m", "totoms.testing.table", str(results), "--into", CAPABILITIES)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting, and that imports run one way."""
    install(session, *LINT_TOOLS, packages=PACKAGES)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of the packages, of tests/typing, which only type checkers read, of examples and pages."""
    install(session, *TYPE_TOOLS, *OTEL, "pytest", "httpx", packages=PACKAGES)
    sources = [str(package.relative_to(ROOT) / "src") for package in PACKAGES]
    sources += [str(MEMORY.relative_to(ROOT) / "tests")]  # which the tutorial quotes
    if (ROOT / "tests/typing").is_dir():
        sources.append("tests/typing")
    sources += [f"examples/{name}" for name in TYPED_EXAMPLES]
    blocks = Path(session.create_tmp()) / "blocks"
    session.run("python", "tools/python_blocks.py", str(blocks), *TYPED_PAGES)
    session.run("mypy", *sources)
    new_service(session, "python", "-m", "mypy", "--strict", ".")
    session.run("mypy", *map(str, sorted(blocks.glob("*.py"))))
    # The package on the index fetches pyright itself by npm; where that is out of reach, mypy has to do.
    if _starts(session):
        session.run("pyright", *sources)
        new_service(session, "pyright", "--pythonpath", str(Path(session.bin) / "python"))
        session.run("pyright", "--project", str(blocks), "--pythonpath", str(Path(session.bin) / "python"))
    else:
        session.warn("NOT CHECKED with pyright: it could not be fetched.")


def new_service(session: nox.Session, *command: str) -> None:
    """Run a command in a service that `python -m totoms new` has just written."""
    with tempfile.TemporaryDirectory() as folder, session.chdir(folder):
        session.run("python", "-m", "totoms", "new", "orders", "--mongo", silent=True)
        Path("orders/pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
        with session.chdir("orders"):
            session.run(*command)


def _starts(session: nox.Session) -> bool:
    pyright = Path(session.bin) / "pyright"
    return subprocess.run([pyright, "--version"], capture_output=True, check=False, timeout=300).returncode == 0


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation site into site/; a broken link fails it."""
    install(session, *DOC_TOOLS, packages=())
    # The theme prints its plans for the years to come at each build.
    session.run("mkdocs", "build", "--strict", *session.posargs, env={"NO_MKDOCS_2_WARNING": "1"})
    session.run("python", "tools/check_site.py", "site")


@nox.session
def build(session: nox.Session) -> None:
    """Build wheel and sdist of every distribution into dist/, and look into them."""
    install(session, *BUILD_TOOLS, packages=())
    shutil.rmtree(ROOT / "dist", ignore_errors=True)
    for package in PACKAGES:
        session.run("python", "-m", "build", "--no-isolation", "--outdir", "dist", str(package), silent=True)
    files = sorted(str(path) for path in (ROOT / "dist").glob("*"))
    session.run("twine", "check", "--strict", *files)
    session.run("python", "tools/check_distributions.py", *files)


@nox.session(reuse_venv=False)
def core_only(session: nox.Session) -> None:
    """Install the wheel alone, as a user does, and start a service with it."""
    session.install("--quiet", "--constraint", "constraints.txt", wheel_of(session, CORE))
    session.run("python", "-P", "tools/check_core_only.py")


@nox.session
def upgrade(session: nox.Session) -> None:
    """Install totoms 1.5.0, upgrade it in place to the wheel built here, and start a service of its time."""
    session.run("python", "tests/upgrade/upgrade.py", "--wheel", wheel_of(session, CORE), *session.posargs)


@nox.session(python=min(PYTHONS, key=_minor), default=False)
def lowest(session: nox.Session) -> None:
    """Run what the ranges of the dependencies promise: tests with the lowest versions allowed, on the oldest Python."""
    floor = Path(session.create_tmp()) / "lowest.txt"
    floor.write_text("\n".join(sorted({bound for package in PACKAGES for bound in lower_bounds(package)})) + "\n")
    parts = [part for package in PACKAGES for part in ("-e", str(package))]
    session.install("--quiet", "--constraint", str(floor), *TEST_TOOLS, *TEST_SERVERS, *TEST_CLOUDS, *parts)
    where = session.posargs or LOWEST_TESTS
    pytest(session, *SPREAD, "-m", "not faults and not slow and (not cloud or smoke)", *where)


@nox.session
def faults(session: nox.Session) -> None:
    """Run the faults and attacks that take long, and print what they counted; then all at once for ten minutes."""
    install(session, *TEST_TOOLS, *TEST_CLOUDS, packages=PACKAGES)
    pytest(session, "-m", "faults", "-s", *session.posargs)
    if not session.posargs:
        session.run("python", "tests/faults/soak.py")


@nox.session
def slow(session: nox.Session) -> None:
    """Run the tests marked `slow`: they need a browser, Java, Node, nginx or Prometheus, or take long."""
    install(session, *TEST_TOOLS, *TEST_SERVERS, *TEST_CLOUDS, packages=PACKAGES)
    pytest(session, "-m", "slow", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure, side by side with what there is to compare with, and print one table of goals."""
    install(session, *BENCH_TOOLS, packages=[CORE, *CLOUDS])
    session.run("python", "-m", "benchmarks.run", *session.posargs)


@nox.session(reuse_venv=False, default=False)
def constraints(session: nox.Session) -> None:
    """Write constraints.txt anew from the newest versions that work together; names and versions only.

    Run it with the oldest Python supported: what later ones need is a part of that.
    """
    tools = {*TEST_TOOLS, *TEST_SERVERS, *TEST_CLOUDS, *LINT_TOOLS, *TYPE_TOOLS, *DOC_TOOLS, *BUILD_TOOLS, *BENCH_TOOLS}
    session.install("--quiet", "nox", *sorted(tools), *map(str, PACKAGES))
    frozen = session.run("python", "-m", "pip", "freeze", silent=True) or ""
    lines = [line for line in frozen.splitlines() if "==" in line and not line.startswith("totoms")]
    head = "# Written by `nox -s constraints`: the versions that the tests were last seen to pass with.\n"
    (ROOT / "constraints.txt").write_text(head + "\n".join(lines) + "\n")


@nox.session
def demo(session: nox.Session) -> None:
    """Run an example. `make demo` uses this session for its environment only."""
    wanted = os.environ.get("BACKEND")
    plugin = [package for package in (*CLOUDS, NATS) if package.name == f"totoms-{wanted}"]
    tools = ["watchfiles", "Jinja2", "opentelemetry-sdk"]  # the extra dev
    install(session, *tools, *DEMO_SERVERS.get(wanted or "", []), packages=[CORE, *plugin])
    try:
        session.run("python", "examples/demo/run.py", *session.posargs, interrupt_timeout=None)
    except KeyboardInterrupt:
        session.log("Stopped.")
