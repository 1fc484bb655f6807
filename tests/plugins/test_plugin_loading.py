"""Every way in which a plugin can be missing or wrong, with distributions made by hand."""

from __future__ import annotations

import importlib
import sys
import threading
from pathlib import Path

import pytest

from support.plugins import BUS, GOOD, GROUP, Install, install_plugin, write_distribution
from totoms import MessageBusConfig, TotoMicroservice, TotoMicroserviceConfiguration
from totoms.environment import TotoEnvironment, implementation
from totoms.errors import PluginError, PluginLoadError, PluginNotFound
from totoms.messages.bus import MessageBus
from totoms.plugins import loader as plugins
from totoms.plugins.discovery import installed, select
from totoms.secrets.manager import SecretsManager
from totoms.storage.storage import CloudStorage


def refusal(name: str, kind: type[PluginError] = PluginLoadError) -> str:
    """Load the plugin, which must be refused in one line without a stack trace. Returns that line."""
    with pytest.raises(kind) as caught:
        _ask_everything(name)
    text = str(caught.value)
    assert "\n" not in text
    assert "Traceback" not in text
    return text


def _ask_everything(name: str) -> None:
    backend = plugins.load(name)
    for capability in plugins.CAPABILITIES:
        getattr(backend, capability)


# --- a good one ---


def test_plugin_is_loaded_with_its_distribution_and_version(install: Install) -> None:
    name = install(GOOD, distribution="totoms-skyline", version="3.2.1")

    backend = plugins.load(name)

    assert (backend.name, backend.distribution, backend.version) == (name, "totoms-skyline", "3.2.1")
    assert backend.message_bus is not None
    assert issubclass(backend.message_bus, MessageBus)
    assert backend.configuration is backend.secrets_manager is backend.cloud_storage is None


def test_plugin_is_loaded_once(install: Install) -> None:
    name = install(GOOD)

    assert plugins.load(name) is plugins.load(name)


def test_name_in_capitals_selects_the_same_plugin(install: Install) -> None:
    name = install(GOOD, name="Skyline")

    assert plugins.load("SKYLINE").message_bus is not None
    assert TotoEnvironment(name).hyperscaler == "skyline"


def test_abstract_class_gives_the_plugins_implementation(install: Install) -> None:
    environment = TotoEnvironment(install(GOOD))

    bus = MessageBus(environment)

    assert type(bus).__name__ == "Bus"
    assert implementation(MessageBus, environment) is type(bus)


def test_concurrent_loads_import_the_plugin_once(install: Install, site: Path) -> None:
    (site / "plugin_tally.py").write_text("imports = []\n")
    name = install("import plugin_tally\nplugin_tally.imports.append(1)\n" + GOOD)
    start = threading.Barrier(8)
    found: list[plugins.Backend] = []

    def load() -> None:
        start.wait(120)
        found.append(plugins.load(name))

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    import plugin_tally  # type: ignore[import-not-found]

    assert len(found) == 8
    assert len(set(map(id, found))) == 1
    assert plugin_tally.imports == [1]


def test_hooks_are_called_only_for_the_capability_that_is_used(install: Install) -> None:
    name = install(
        GOOD
        + """
@hookimpl
def totoms_cloud_storage():
    raise RuntimeError("an SDK nobody asked for")
"""
    )

    assert plugins.load(name).message_bus is not None


def test_two_plugins_in_one_process_do_not_mix(install: Install) -> None:
    first = install(GOOD)
    second = install(GOOD.replace("class Bus", "class OtherBus").replace("return Bus", "return OtherBus"))

    buses = [plugins.load(name).message_bus for name in (first, second, first)]

    assert [bus.__name__ for bus in buses if bus] == ["Bus", "OtherBus", "Bus"]


def test_plugin_may_be_an_object_in_a_module(site: Path) -> None:
    install_plugin(
        site,
        BUS
        + """
class Hooks:
    @staticmethod
    @hookimpl
    def totoms_message_bus():
        return Bus
""",
        name="object-cloud",
        module="plugin_object",
    )
    entry_points = site / "totoms_object_cloud-1.0.dist-info" / "entry_points.txt"
    entry_points.write_text(f"[{GROUP}]\nobject-cloud = plugin_object:Hooks\n")

    assert plugins.load("object-cloud").message_bus is not None


# --- not there ---


def test_unknown_name_is_answered_with_what_is_installed(install: Install) -> None:
    name = install(GOOD, distribution="totoms-skyline", version="3.2.1")

    text = refusal("nimbus9", PluginNotFound)

    assert "'nimbus9'" in text
    assert f"{name} (totoms-skyline 3.2.1)" in text
    assert "local (totoms " in text


def test_unknown_name_suggests_a_close_one(install: Install) -> None:
    install(GOOD, name="skyline")

    assert "Did you mean 'skyline'?" in refusal("skylne", PluginNotFound)


@pytest.fixture
def core_with_extra(site: Path) -> None:
    """Metadata of a core that has an extra, in front of the real one's."""
    folder = write_distribution(
        site,
        "totoms",
        version="2.9",
        requires=('totoms-stratus<3,>=2; extra == "stratus"', 'totoms[stratus]; extra == "all"'),
    )
    with (folder / "METADATA").open("a") as metadata:
        metadata.write("Provides-Extra: stratus\nProvides-Extra: all\n")


@pytest.mark.usefixtures("core_with_extra")
def test_name_of_an_extra_says_what_to_install() -> None:
    assert "pip install 'totoms[stratus]'" in refusal("stratus", PluginNotFound)


@pytest.mark.usefixtures("core_with_extra")
def test_close_name_of_an_extra_says_what_to_install() -> None:
    text = refusal("strtus", PluginNotFound)

    assert "Did you mean 'stratus'?" in text
    assert "pip install 'totoms[stratus]'" in text


@pytest.mark.usefixtures("core_with_extra")
def test_extra_that_is_not_a_plugin_is_not_suggested() -> None:
    assert "pip install" not in refusal("all", PluginNotFound)


def test_control_characters_of_a_name_are_escaped() -> None:
    assert "\\n" in refusal("cloud\nforged", PluginNotFound)


def test_unreadable_distribution_hides_no_plugin(install: Install, site: Path) -> None:
    folder = write_distribution(site, "unrelated")
    (folder / "entry_points.txt").write_bytes(b"[console_scripts]\n\xff\xfe = \xff\n")
    name = install(GOOD)

    assert plugins.load(name).message_bus is not None
    assert "unrelated cannot be read" in refusal("nimbus", PluginNotFound)


# --- twice ---


def test_two_distributions_with_one_name_are_refused_naming_both(install: Install) -> None:
    name = install(GOOD, name="twice", distribution="totoms-one", version="1.1")
    install(GOOD, name="twice", distribution="totoms-two", version="2.2")

    text = refusal(name)

    assert "totoms-one 1.1" in text
    assert "totoms-two 2.2" in text


def test_two_distributions_with_one_name_leave_the_others_alone(install: Install) -> None:
    install(GOOD, name="twice", distribution="totoms-one")
    install(GOOD, name="twice", distribution="totoms-two")
    other = install(GOOD)

    assert plugins.load(other).message_bus is not None


def test_same_distribution_found_twice_on_the_path_is_not_an_error(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind = tmp_path / "behind"
    behind.mkdir()
    monkeypatch.setattr(sys, "path", [*sys.path, str(behind)])
    name = install(GOOD, distribution="totoms-skyline", version="2.0")
    install_plugin(behind, None, name=name, distribution="Totoms.Skyline", version="1.0")

    assert plugins.load(name).version == "2.0"


# --- broken at import ---


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("import nowhere_to_be_found\n", "No module named 'nowhere_to_be_found'"),
        ("from json import lods\n", "cannot import name 'lods'"),
        ("def f(:\n", "SyntaxError"),
        ("\tx = 1\n y = 2\n", "Error"),
        ("raise RuntimeError('canary-secret')\n", "RuntimeError at plugin_"),
        ("import sys\nsys.exit('canary-secret')\n", "it calls sys.exit"),
        ("raise SystemExit\n", "it calls sys.exit"),
        ("raise GeneratorExit\n", "GeneratorExit"),
        ("def deep(): deep()\ndeep()\n", "RecursionError"),
    ],
)
def test_plugin_that_fails_at_import_is_named_with_its_distribution(install: Install, source: str, told: str) -> None:
    name = install(source, distribution="totoms-skyline", version="3.2.1")

    text = refusal(name)

    assert f"'{name}' (totoms-skyline 3.2.1)" in text
    assert told in text
    assert "canary-secret" not in text


def test_module_that_is_missing_is_named(install: Install) -> None:
    name = install(None, module="plugin_absent")

    assert "No module named 'plugin_absent'" in refusal(name)


def test_keyboard_interrupt_at_import_passes_through(install: Install) -> None:
    name = install("raise KeyboardInterrupt\n")

    with pytest.raises(KeyboardInterrupt):
        plugins.load(name)


def test_plugin_that_failed_can_be_loaded_when_mended(install: Install, site: Path) -> None:
    name = install("import plugin_dependency\n" + GOOD)
    refusal(name)
    (site / "plugin_dependency.py").write_text("")
    importlib.invalidate_caches()

    assert plugins.load(name).message_bus is not None


# --- hooks of the wrong form ---


def test_mistyped_hook_is_refused_with_the_right_name(install: Install) -> None:
    name = install(GOOD.replace("totoms_message_bus", "totoms_mesage_bus"), distribution="totoms-skyline")

    text = refusal(name)

    assert "unknown hook 'totoms_mesage_bus'" in text
    assert "did you mean totoms_message_bus?" in text
    assert "totoms-skyline 1.0" in text


def test_hook_that_is_not_a_hook_at_all_is_refused_with_all_names(install: Install) -> None:
    name = install(GOOD + "\n@hookimpl\ndef fly():\n    return None\n")

    assert "totoms_configuration, totoms_secrets_manager" in refusal(name)


def test_hook_that_says_it_is_optional_is_accepted(install: Install) -> None:
    name = install(GOOD + "\n@hookimpl(optionalhook=True)\ndef totoms_of_tomorrow():\n    return None\n")

    assert plugins.load(name).message_bus is not None


def test_hook_with_an_argument_is_refused(install: Install) -> None:
    name = install(GOOD.replace("totoms_message_bus()", "totoms_message_bus(settings)"))

    text = refusal(name)

    assert "totoms_message_bus" in text
    assert "settings" in text


def test_async_hook_is_refused(install: Install) -> None:
    name = install(GOOD.replace("def totoms_", "async def totoms_"))

    assert "async def" in refusal(name)


def test_hook_without_the_marker_is_refused(install: Install) -> None:
    name = install(GOOD.replace("@hookimpl", ""))

    assert "not marked with @hookimpl" in refusal(name)


def test_plugin_without_any_hook_is_refused(install: Install) -> None:
    assert "implements no hook" in refusal(install("x = 1\n"))


# --- hooks that answer wrongly ---


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("None", "returned None"),
        ("Bus.__new__(Bus)", "an object of the class Bus"),
        ("'canary-secret'", "an object of the class str"),
        ("dict", "returned dict, which is not a subclass of totoms' MessageBus"),
        ("type('Half', (MessageBus,), {'_subscribe': Bus._subscribe})", "Half, which does not implement _publish"),
    ],
)
def test_hook_that_returns_something_else_is_refused(install: Install, answer: str, told: str) -> None:
    name = install(GOOD.replace("return Bus", f"return {answer}"), distribution="totoms-skyline", version="3.2.1")

    text = refusal(name)

    assert told in text
    assert "totoms_message_bus() of the plugin" in text
    assert "totoms-skyline 3.2.1" in text
    assert "canary-secret" not in text


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("raise ValueError('canary-secret')", "ValueError at plugin_"),
        ("import nowhere_to_be_found", "No module named 'nowhere_to_be_found'"),
        ("import sys; sys.exit(3)", "it calls sys.exit"),
    ],
)
def test_hook_that_raises_is_refused(install: Install, statement: str, told: str) -> None:
    name = install(GOOD.replace("return Bus", statement))

    text = refusal(name)

    assert told in text
    assert "canary-secret" not in text


def test_keyboard_interrupt_in_a_hook_passes_through(install: Install) -> None:
    name = install(GOOD.replace("return Bus", "raise KeyboardInterrupt"))

    with pytest.raises(KeyboardInterrupt):
        _ask_everything(name)


# --- what a plugin does not have ---


def test_missing_capability_is_reported_when_a_secret_is_wanted(install: Install) -> None:
    environment = TotoEnvironment(install(GOOD, distribution="totoms-skyline", version="3.2.1"))

    with pytest.raises(PluginLoadError) as caught:
        SecretsManager(environment)

    text = str(caught.value)
    assert "secrets manager" in text
    assert "totoms-skyline 3.2.1" in text
    assert "totoms_secrets_manager" in text


def test_missing_capability_is_reported_when_a_bucket_is_wanted(install: Install) -> None:
    environment = TotoEnvironment(install(GOOD))

    with pytest.raises(PluginLoadError, match="cloud storage"):
        CloudStorage("bucket", environment=environment)


async def test_missing_message_bus_is_reported_when_a_service_that_needs_it_is_made(install: Install) -> None:
    name = install(
        """
from totoms.secrets.manager import SecretsManager

class Secrets(SecretsManager):
    def _fetch(self, name, version):
        return b"0123456789abcdef0123456789abcdef"

@hookimpl
def totoms_secrets_manager():
    return Secrets
""",
        distribution="totoms-skyline",
        version="3.2.1",
    )
    environment = TotoEnvironment(name)
    without = TotoMicroserviceConfiguration(service_name="blog", environment=environment)
    needing = TotoMicroserviceConfiguration(
        service_name="blog", environment=environment, message_bus_configuration=MessageBusConfig()
    )

    assert not (await TotoMicroservice.create(without)).message_bus
    with pytest.raises(PluginLoadError) as caught:
        await TotoMicroservice.create(needing)

    assert "needs a message bus" in str(caught.value)
    assert "totoms-skyline 3.2.1" in str(caught.value)


# --- versions ---


@pytest.mark.parametrize("requirement", ["totoms>=3", "Totoms >=3,<4", "totoms[testing]>=3", "totoms==1.5.0"])
def test_plugin_for_another_totoms_is_refused_before_it_is_imported(install: Install, requirement: str) -> None:
    name = install("raise AssertionError\n", distribution="totoms-skyline", version="3.2.1", requires=(requirement,))

    text = refusal(name)

    assert "totoms-skyline 3.2.1" in text
    assert "requires totoms" in text
    assert "installed is totoms 2." in text


@pytest.mark.parametrize(
    "requirement", ["totoms>=2,<3", "totoms", 'totoms>=3; extra == "next"', "totoms-other>=9", "not a requirement!"]
)
def test_plugin_for_this_totoms_is_accepted(install: Install, requirement: str) -> None:
    name = install(GOOD, requires=(requirement,))

    assert plugins.load(name).message_bus is not None


# --- listing ---


def test_installed_lists_plugins_without_importing_them(install: Install) -> None:
    name = install("raise AssertionError('imported')\n", distribution="totoms-skyline", version="3.2.1")

    listed = {plugin.name: plugin for plugin in installed()}

    assert listed[name].origin == "totoms-skyline 3.2.1"
    assert listed["local"].distribution == "totoms"
    assert select(name) == listed[name]
