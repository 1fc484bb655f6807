"""docs/plugins.md names every hook and every operation that a backend fills in."""

from __future__ import annotations

import inspect
from pathlib import Path

from totoms import CloudStorage, MessageBus, SecretsManager, hookspecs
from totoms.discovery import installed

PAGE = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text()
# Of the local kind, or covered by `capabilities`: told in the page's last column, not by name.
CAPABILITY_OPERATIONS = {
    "_list_dead_letters",
    "_replay_dead_letters",
    "_purge_dead_letters",
    "_stop_receiving",
    "_close",
    "_signed_url",
}


def test_every_hook_is_described() -> None:
    hooks = [name for name, value in vars(hookspecs).items() if hasattr(value, "totoms_spec")]

    assert len(hooks) == 4
    assert [name for name in hooks if f"def {name}()" not in PAGE] == []


def test_entry_point_group_is_the_one_that_is_read() -> None:
    assert f'[project.entry-points."{hookspecs.ENTRY_POINT_GROUP}"]' in PAGE
    assert "local" in {plugin.name for plugin in installed()}


def test_every_operation_that_must_be_implemented_is_named() -> None:
    for base in (SecretsManager, CloudStorage, MessageBus):
        operations = {
            name
            for kind in inspect.getmro(base)
            for name, value in vars(kind).items()
            if getattr(value, "__isabstractmethod__", False)
        }
        assert operations, base.__name__
        assert [name for name in operations if f"`{name}`" not in PAGE] == []


def test_every_operation_of_the_message_bus_is_named() -> None:
    operations = {
        name
        for name, value in vars(MessageBus).items()
        if name.startswith("_") and inspect.iscoroutinefunction(value) and name not in CAPABILITY_OPERATIONS
    }

    assert "_accept_push" in operations
    assert [name for name in operations if f"`{name}`" not in PAGE] == []
