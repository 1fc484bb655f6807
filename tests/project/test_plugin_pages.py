"""docs/plugins/: the reference names every hook and operation as they are; the tutorial quotes files as they are."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from totoms import CloudStorage, MessageBus, SecretsManager, errors, plugin, testing
from totoms.messages.driver import BusDriver
from totoms.plugins import hookspecs
from totoms.plugins.discovery import installed

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "plugins"
INDEX, HOOKS, TUTORIAL, REAL = (PAGES / f"{name}.md" for name in ("index", "hooks", "tutorial", "nats"))
QUOTING = {TUTORIAL: ROOT / "examples" / "totoms-memory", REAL: ROOT / "examples" / "totoms-nats"}
"""The pages that quote a plugin, and the plugin."""
DATA = [
    plugin.FileInfo,
    plugin.WriteOptions,
    plugin.Outgoing,
    plugin.Received,
    plugin.Subscription,
    plugin.RetryPolicy,
    plugin.DeadLetterReason,
    plugin.DeadLetter,
    plugin.Backlog,
    plugin.Existing,
    plugin.PushRequest,
    plugin.PushReply,
]
INTERFACES = [
    plugin.Receiver,
    plugin.LeasingReceiver,
    plugin.DeadLetterStore,
    testing.MessageBusHarness,
    testing.CloudStorageHarness,
    testing.SecretsManagerHarness,
    testing.LifecycleHarness,
    testing.PushHarness,
]

OPTIONAL = {"_pins", "_signed_url", "_answer_signed", "topic_identifier"}
QUOTE = re.compile(r"^`([\w./-]+)`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
GAP = re.compile(r"^ *# \.\.\.\n", re.MULTILINE)


def signature(function: Any) -> str:
    """As it stands in the source, on one line."""
    shown = re.sub(r"""(: |-> )(?:'([^']*)'|"([^"]*)\")""", r"\1\2\3", str(inspect.signature(function)))
    return f"{function.__name__}{shown}".replace("'", '"')


def operations(base: type) -> dict[str, Any]:
    """What the core calls and a backend fills in, by name."""
    found = {}
    for kind in inspect.getmro(base):
        for name, given in vars(kind).items():
            value = getattr(given, "__func__", given)  # of a class method
            asked_for = inspect.iscoroutinefunction(value) and kind is BusDriver
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


def described(name: str) -> list[str]:
    """Return the signatures in the section of the reference called `name`."""
    heading = re.search(rf"^##+ {name}\n", HOOKS.read_text(), re.MULTILINE)
    assert heading, f"{HOOKS.name} has no section {name}"
    section = re.split(r"^##+ ", HOOKS.read_text()[heading.end() :], maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(r"^- `(.*)`$", section, re.MULTILINE)


@pytest.mark.parametrize("base", [SecretsManager, CloudStorage, MessageBus])
def test_every_operation_is_described_with_its_signature(base: type) -> None:
    expected = {signature(operation) for operation in operations(base).values()}

    assert expected
    assert set(described(base.__name__)) == expected


@pytest.mark.parametrize("interface", INTERFACES)
def test_every_method_of_an_interface_is_described_with_its_signature(interface: type) -> None:
    own = [getattr(value, "fget", value) for value in vars(interface).values()]
    methods = [value for value in own if inspect.isfunction(value) and value.__name__ != "__init__"]
    if interface is plugin.LeasingReceiver:  # the others are described as a receiver's
        methods = [value for value in methods if hasattr(value, "__isabstractmethod__")]

    assert described(interface.__name__) == [signature(method) for method in methods]


@pytest.mark.parametrize("kind", DATA)
def test_every_field_is_described_with_its_type(kind: type) -> None:
    fields = [f"{name}: {field.annotation}" for name, field in inspect.signature(kind).parameters.items()]

    assert described(kind.__name__) == fields


@pytest.mark.parametrize("base", [SecretsManager, CloudStorage, MessageBus, plugin.LeasingReceiver])
def test_private_names_that_a_plugin_must_not_use_are_listed(base: type) -> None:
    used = {name for kind in base.__mro__ if kind.__module__.startswith("totoms.") for name in vars(kind)}
    private = {name for name in used if re.match(r"_[a-z](?!bc_)", name)}

    text = HOOKS.read_text()
    missing = [name for name in sorted(private) if not re.search(rf"`{name}\b", text)]
    assert missing == [], "name them at the top of docs/plugins/hooks.md"


def test_everything_that_plugins_import_is_described() -> None:
    text = HOOKS.read_text()
    raised = {name for name, kind in vars(errors).items() if isinstance(kind, type)}
    raised = {name for name in raised if issubclass(getattr(errors, name), errors.BackendError)} - {"BackendError"}

    assert [name for name in plugin.__all__ if not re.search(rf"\b{name}\b", text)] == []
    assert set(re.findall(r"^\| `(\w+)` \|", text.partition("\n## Errors\n")[2].partition("\n## ")[0], re.M)) == raised


def test_overview_names_what_must_be_implemented() -> None:
    text = INDEX.read_text()
    for base in (SecretsManager, CloudStorage, MessageBus):
        required = [name for name, value in operations(base).items() if hasattr(value, "__isabstractmethod__")]
        assert required
        assert [name for name in required if f"`{name}`" not in text] == []


def test_class_attributes_and_capabilities_are_described() -> None:
    text = HOOKS.read_text()
    capabilities = {"pull", "push", "ordering", "delay", "queues", "dead_letters", "backlog", "signed_urls"}
    attributes = {
        "cache_seconds",
        "stale_seconds",
        "deadline_seconds",
        "creates_push",
        "max_message_bytes",
        "signed_urls_path",
    }
    assert [name for name in sorted(capabilities | attributes) if f"`{name}`" not in text] == []


QUOTED = [(page, name, block) for page in QUOTING for name, block in QUOTE.findall(page.read_text())]


@pytest.mark.parametrize("page", QUOTING, ids=lambda page: page.stem)
def test_every_file_of_the_plugin_is_quoted(page: Path) -> None:
    quoted = {name for of, name, _ in QUOTED if of == page}
    written = {str(path.relative_to(QUOTING[page])) for path in QUOTING[page].glob("src/**/*.py")}
    helpers = {name for name in written if name.endswith("__init__.py") or "/testing/" in name}
    assert written - quoted == helpers


@pytest.mark.parametrize(("page", "name", "block"), QUOTED, ids=[f"{page.stem}-{name}" for page, name, _ in QUOTED])
def test_quotes_are_what_the_file_has(page: Path, name: str, block: str) -> None:
    text, position = (QUOTING[page] / name).read_text(), 0
    for part in GAP.split(block):
        position = f"\n{text}".find(f"\n{part}", position)
        assert position >= 0, f"{name} no longer has, or not in this order:\n{part}"


@pytest.mark.parametrize("page", QUOTING, ids=lambda page: page.stem)
def test_every_block_of_python_is_a_quote(page: Path) -> None:
    blocks = re.findall(r"^```(?:python|toml)$", page.read_text(), re.MULTILINE)
    assert len(blocks) == len([of for of, _, _ in QUOTED if of == page])


def test_tutorial_quotes_the_whole_of_the_smallest_plugin() -> None:
    file = "src/totoms_memory/plugin.py"
    shown = "".join(block for page, name, block in QUOTED if page == TUTORIAL and name == file)
    lines = [line for line in (QUOTING[TUTORIAL] / file).read_text().splitlines() if line]
    assert [line for line in lines if line not in shown] == []
    assert len(lines) <= 150
