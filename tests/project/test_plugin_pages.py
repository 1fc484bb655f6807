"""docs/plugins/: the reference names every hook and operation as they are; the tutorial quotes files as they are."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from totoms import CloudStorage, MessageBus, SecretsManager, hookspecs
from totoms.discovery import installed

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "plugins"
INDEX, HOOKS, TUTORIAL = (PAGES / f"{name}.md" for name in ("index", "hooks", "tutorial"))
EXAMPLE = ROOT / "examples" / "totoms-nats"

OPTIONAL = {"_signed_url", "_answer_signed", "topic_identifier"}
QUOTE = re.compile(r"^`([\w./-]+)`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
GAP = re.compile(r"^ *# \.\.\.\n", re.MULTILINE)


def signature(function: Any) -> str:
    """As it stands in the source, on one line."""
    shown = re.sub(r"""'([^']*)'|"([^"]*)\"""", r"\1\2", str(inspect.signature(function)))
    return f"{function.__name__}{shown}".replace("'", '"')


def operations(base: type) -> dict[str, Any]:
    """What the core calls and a backend fills in, by name."""
    found = {}
    for kind in inspect.getmro(base):
        for name, given in vars(kind).items():
            value = getattr(given, "__func__", given)  # of a class method
            asked_for = inspect.iscoroutinefunction(value) and name.startswith("_") and base is MessageBus
            if asked_for or getattr(value, "__isabstractmethod__", False) or name in OPTIONAL:
                found.setdefault(name, value)
    return found


@pytest.mark.parametrize("page", [INDEX, HOOKS], ids=["index", "hooks"])
def test_every_hook_is_described(page: Path) -> None:
    hooks = [value for value in vars(hookspecs).values() if hasattr(value, "totoms_spec")]
    text = page.read_text()

    assert len(hooks) == 4
    for hook in hooks:
        assert (f"`{signature(hook)}`" if page == HOOKS else f"def {hook.__name__}()") in text
    named = set(re.findall(r"\btotoms_[a-z_]+(?=\()", text))
    assert named == {hook.__name__ for hook in hooks}


def test_entry_point_group_is_the_one_that_is_read() -> None:
    assert f'[project.entry-points."{hookspecs.ENTRY_POINT_GROUP}"]' in INDEX.read_text()
    assert "local" in {plugin.name for plugin in installed()}


@pytest.mark.parametrize("base", [SecretsManager, CloudStorage, MessageBus])
def test_every_operation_is_described_with_its_signature(base: type) -> None:
    section = HOOKS.read_text().partition(f"\n## {base.__name__}\n")[2].partition("\n## ")[0]
    expected = {signature(operation) for operation in operations(base).values()}

    assert expected
    assert set(re.findall(r"^- `(.*)`$", section, re.MULTILINE)) == expected


def test_overview_names_what_must_be_implemented() -> None:
    text = INDEX.read_text()
    for base in (SecretsManager, CloudStorage, MessageBus):
        required = [name for name, value in operations(base).items() if hasattr(value, "__isabstractmethod__")]
        assert required
        assert [name for name in required if f"`{name}`" not in text] == []


def test_class_attributes_and_capabilities_are_described() -> None:
    text = HOOKS.read_text()
    capabilities = {"pull", "push", "ordering", "delay", "queues", "dead_letters", "signed_urls"}
    attributes = {
        "cache_seconds",
        "stale_seconds",
        "deadline_seconds",
        "default_delivery",
        "max_message_bytes",
        "signed_urls_path",
    }
    assert [name for name in sorted(capabilities | attributes) if f"`{name}`" not in text] == []


QUOTED = QUOTE.findall(TUTORIAL.read_text())


def test_tutorial_quotes_every_file_of_the_plugin() -> None:
    quoted = {name for name, _ in QUOTED}
    written = {str(path.relative_to(EXAMPLE)) for path in EXAMPLE.glob("src/totoms_nats/*.py")}
    helpers = {f"src/totoms_nats/{name}.py" for name in ("__init__", "server", "operator")}
    assert written - quoted == helpers


@pytest.mark.parametrize(("name", "block"), QUOTED, ids=[name for name, _ in QUOTED])
def test_tutorial_quotes_what_stands_in_the_file(name: str, block: str) -> None:
    text, position = (EXAMPLE / name).read_text(), 0
    for part in GAP.split(block):
        position = f"\n{text}".find(f"\n{part}", position)
        assert position >= 0, f"{name} no longer has, or not in this order:\n{part}"


def test_every_block_of_python_is_quoted() -> None:
    blocks = re.findall(r"^```(?:python|toml)$", TUTORIAL.read_text(), re.MULTILINE)
    assert len(blocks) == len(QUOTED)
