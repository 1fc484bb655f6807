"""``python -m totoms contract``: the documents of a service, and what is said when they change."""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from openapi_spec_validator import validate

from contracts.services import CHANGES, CONVERTED, SERVICE
from support.emulators import require
from support.processes import DEADLINE

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = ["asyncapi.json", "index.html", "openapi.json"]


def totoms(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "totoms", "contract", *arguments]
    env = os.environ | variables
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=DEADLINE, check=False, env=env)


def write(folder: Path, service: str, name: str, **variables: str) -> Path:
    """Write the contract of a service into a folder of a name."""
    (folder / "service.py").write_text(service)
    done = totoms(folder, "service:configuration", "-o", name, **variables)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (folder / name).iterdir()) == FILES
    return folder / name


@pytest.fixture(params=["own", "blog/service.py", "orders/orders.py", "orders/invoices.py"])
def contract(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The contract of a service."""
    if request.param == "own":
        return write(tmp_path, SERVICE, "contract")
    example = EXAMPLES / request.param
    place = f"{example.stem}:get_microservice_config"
    done = totoms(example.parent, place, "-o", str(tmp_path / "contract"), ISSUER="https://id.example.com")
    assert done.returncode == 0, done.stderr
    return tmp_path / "contract"


def test_openapi_is_valid(contract: Path) -> None:
    document = json.loads((contract / "openapi.json").read_text())
    validate(document)
    assert document["paths"]


def test_every_reference_resolves(contract: Path) -> None:
    for name in ("openapi.json", "asyncapi.json"):
        text = (contract / name).read_text()
        document = json.loads(text)
        for reference in re.findall(r'"\$ref": "#/([^"]+)"', text):
            part = document
            for key in reference.split("/"):
                part = part[key.replace("%20", " ").replace("~1", "/").replace("~0", "~")]


@pytest.mark.slow
def test_asyncapi_is_valid_for_the_official_parser(contract: Path, tmp_path: Path) -> None:
    node, npm = (
        require("node", remedy="apt-get install nodejs npm"),
        require("npm", remedy="apt-get install nodejs npm"),
    )
    folder = Path(__file__).parents[2] / ".nox" / "asyncapi-parser-3.6.6"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        if not (folder / "complete").exists():
            command = [npm, "install", "--no-save", "--no-audit", "--no-fund", "@asyncapi/parser@3.6.6"]
            subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=600)
            (folder / "complete").touch()
    script = """
        const {Parser} = require(process.argv[1] + '/node_modules/@asyncapi/parser');
        const text = require('fs').readFileSync(process.argv[2], 'utf8');
        new Parser().parse(text).then(({document, diagnostics}) => {
            const errors = diagnostics.filter(one => one.severity === 0);
            console.log(JSON.stringify({errors, channels: document ? document.channels().length : null}));
        });
    """
    arguments = [node, "-e", script, str(folder), str(contract / "asyncapi.json")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=DEADLINE)
    result = json.loads(done.stdout)
    assert result["errors"] == []
    assert result["channels"] >= 1


def test_same_declaration_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (write(tmp_path, SERVICE, name, PYTHONHASHSEED=seed) for name, seed in (("a", "1"), ("b", "2")))
    for name in FILES:
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_older_versions_and_every_message_of_a_channel_are_told(tmp_path: Path) -> None:
    both = SERVICE.replace("publishes=[Placed])", "publishes=[Placed, Paid])")
    document = json.loads((write(tmp_path, both, "contract") / "asyncapi.json").read_text())
    assert set(document["channels"]["orders"]["messages"]) == {"send.placed.v1", "send.paid.v2"}
    assert document["components"]["messages"]["receive.paid.v2"]["x-totoms-understood-versions"] == [1, 2]


def test_page_loads_nothing_and_escapes_what_it_shows(contract: Path) -> None:
    page = (contract / "index.html").read_text()
    assert not re.search(r"<(?:script|link|img|iframe)|@import|url\(", page)
    assert "<quickly>" not in page


def test_only_its_own_files_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "contract").mkdir()
    (tmp_path / "contract" / "notes.md").write_text("mine")
    (tmp_path / "service.py").write_text(SERVICE)
    assert totoms(tmp_path, "service:configuration", "-o", "contract").returncode == 0
    assert (tmp_path / "contract" / "notes.md").read_text() == "mine"


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The contract before a change."""
    return write(tmp_path_factory.mktemp("before"), SERVICE, "contract")


def test_no_change_is_no_break(before: Path) -> None:
    done = totoms(before, "diff", ".", ".")
    assert (done.returncode, done.stdout) == (0, "Nothing breaks.\n")


@pytest.mark.parametrize(("old", "new", "said"), CHANGES.values(), ids=CHANGES)
def test_change_of_a_declaration(before: Path, tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in SERVICE
    after = write(tmp_path, SERVICE.replace(old, new), "contract")
    done = totoms(tmp_path, "diff", str(before), str(after))
    lines = done.stdout.splitlines()
    if not said:
        assert (done.returncode, lines) == (0, ["Nothing breaks."])
        return
    assert any(line.startswith(said) for line in lines), done.stdout
    assert done.returncode == (1 if said.startswith("BREAKS") else 0)


def test_endpoint_with_a_converter_in_its_path_is_in_the_contract(before: Path, tmp_path: Path) -> None:
    after = write(tmp_path, CONVERTED, "contract")
    assert "get" in json.loads((after / "openapi.json").read_text())["paths"]["/orders/files/{order_number}"]
    done = totoms(tmp_path, "diff", str(after), str(before))
    assert "BREAKS  callers of GET /orders/files/{order_number}: the endpoint is gone" in done.stdout


def test_changes_as_json(before: Path, tmp_path: Path) -> None:
    after = write(tmp_path, SERVICE.replace("    id: str\n    item: str", "    id: str"), "contract")
    done = totoms(tmp_path, "diff", "--json", str(before), str(after))
    assert done.returncode == 1
    assert {"breaks": True, "whom": "callers of POST /orders/new", "text": "response 201: item is no longer sent"} in (
        json.loads(done.stdout)
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "There is no"),
        ("{", "is not JSON"),
        ("[]", "is not a contract"),
        ('{"openapi": "3.1.0"}', "is not a contract"),
        ('{"x-totoms-contract": 7}', "version 7"),
    ],
)
def test_file_that_is_no_contract_of_this_version_is_one_line(
    before: Path, tmp_path: Path, text: str | None, said: str
) -> None:
    if text is not None:
        (tmp_path / "openapi.json").write_text(text)
    done = totoms(tmp_path, "diff", str(before), ".")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert said in line


@pytest.mark.parametrize("arguments", [[], ["service:configuration"], ["diff", "a"], ["-o", "x"], ["diff"]])
def test_wrong_arguments_are_one_line(tmp_path: Path, arguments: list[str]) -> None:
    done = totoms(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
