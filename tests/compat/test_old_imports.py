"""Import lines of totoms 1.5.0, in every form, each where totoms was not imported before."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import totoms
from totoms.compat import loader as compat
from totoms.compat.table import GONE, MODULES, NAMES, SETTINGS

Fresh = Callable[[list[str]], list[dict[str, Any]]]

PATHS = sorted(MODULES)
LINES = [(path, name) for path in PATHS for name in MODULES[path]]

# What the package itself exported, word for word.
EXPORTED = """
TotoMicroservice TotoMicroserviceConfiguration APIConfiguration MessageBusConfiguration MessageBusHandlerConfig
MessageBusTopicConfig TotoAPIController HTTPMethod APIControllerProps APIControllerOptions TotoMessageBus
MessageHandlerRegistration TopicIdentifier MessageHandlerRegistrationOptions TotoMessage TotoMessageHandler
ProcessingResponse ProcessingStatus MessageDestination TotoControllerConfig TotoEnvironment AWSConfiguration
GCPConfiguration AzureConfiguration Hyperscaler PathOptions TotoLogger SecretsManager CloudStorage ValidationError
AgentsConfiguration GaleAgent GaleConversationalAgent AgentManifest AgentEndpoint AgentConversationMessage GaleBrokerAPI
new_toto_service_token
""".split()  # noqa: SIM905 - as a list it would take a page


def expected_error(name: str) -> str | None:
    return "was removed: " if name in GONE else None


def check(sources: list[str], errors: list[str | None], fresh: Fresh) -> None:
    wrong = []
    for source, expected, result in zip(sources, errors, fresh(sources), strict=True):
        error = result["error"]
        if (expected is None) != (error is None) or (expected and expected not in error):
            wrong.append(f"{source!r}: {error}, expected {expected}")
    assert not wrong, "\n".join(wrong)


def test_import_of_every_old_module(fresh: Fresh) -> None:
    check([f"import totoms.{path}" for path in PATHS], [None] * len(PATHS), fresh)


def test_import_of_every_old_module_by_importlib(fresh: Fresh) -> None:
    sources = [f"import importlib; importlib.import_module('totoms.{path}')" for path in PATHS]

    check(sources, [None] * len(PATHS), fresh)


def test_import_of_every_old_module_from_the_package_above(fresh: Fresh) -> None:
    lines = [("totoms." + path).rpartition(".") for path in PATHS]
    # These are classes by now, or were at the time; a class of that name that is gone says so.
    errors = [expected_error(leaf) if leaf in MODULES.get(above[7:], ()) else None for above, _, leaf in lines]

    check([f"from {above} import {leaf}" for above, _, leaf in lines], errors, fresh)


def test_import_of_every_name_from_every_old_module(fresh: Fresh) -> None:
    sources = [f"from totoms.{path} import {name}" for path, name in LINES]

    check(sources, [expected_error(name) for _, name in LINES], fresh)


def test_import_of_every_name_that_the_package_exported(fresh: Fresh) -> None:
    check([f"from totoms import {name}" for name in EXPORTED], [expected_error(name) for name in EXPORTED], fresh)


def test_attribute_of_a_module_imported_by_its_full_path(fresh: Fresh) -> None:
    sources = [
        "import totoms.model.TotoConfig; totoms.model.TotoConfig.TotoControllerConfig",
        "import totoms.model.exceptions.ValidationError; totoms.model.exceptions.ValidationError.ValidationError",
        "import totoms.TotoDelegateDecorator; totoms.TotoDelegateDecorator.toto_delegate",
        "import totoms.auth.TotoToken; totoms.auth.TotoToken.new_toto_service_token",
        "import totoms.storage.CloudStorageFactory; totoms.storage.CloudStorageFactory.CloudStorageFactory",
        "import totoms.evt; totoms.evt.TotoMessage(type='t')",
        "import totoms.model.TotoConfig as config; config.TotoControllerConfig",
        "import totoms.TotoMicroservice as service; service.get_instance",
        "from totoms.model import TotoConfig; TotoConfig.TotoControllerConfig",
        "from totoms.model.TotoConfig import TotoLogger",
    ]

    check(sources, [None] * len(sources), fresh)


def test_star_imports(fresh: Fresh) -> None:
    sources = [
        "from totoms.model import *\nTotoEnvironment, UserContext, ExecutionContext, APIEndpoint",
        "from totoms.evt import *\nTotoMessage, ProcessingResponse, MessageDestination",
        "from totoms.TotoMicroservice import *\nTotoMicroservice, determine_environment",
    ]

    check(sources, [None] * len(sources), fresh)


def test_module_that_never_was_is_not_found(fresh: Fresh) -> None:
    check(
        ["import totoms.model.Nonsense", "import totoms.secrets.Nonsense", "from totoms.model import Nonsense"],
        ["ModuleNotFoundError", "ModuleNotFoundError", "ImportError: cannot import name 'Nonsense'"],
        fresh,
    )


def test_warning_names_the_import_of_today_and_points_at_the_services_line(fresh: Fresh) -> None:
    sources = [
        "from totoms.model.TotoConfig import TotoControllerConfig",
        "from totoms import TotoMessageBus",
        "import totoms\ntotoms.TotoMessageBus",
        "from totoms.api import HTTPMethod",
    ]

    results = fresh(sources)

    for result in results:
        assert {warning["category"] for warning in result["warnings"]} == {"DeprecatedName"}
        assert {warning["file"] for warning in result["warnings"]} == {"service.py"}
    texts = [result["warnings"][0]["text"] for result in results]
    assert "from totoms import TotoControllerConfig" in texts[0]
    assert "from totoms import MessageBus" in texts[1]
    assert "from http import HTTPMethod" in texts[3]


def test_warning_is_shown_without_any_option() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "exec(compile('from totoms.model import UserContext', 'service.py', 'exec'), {'__name__': 's'})",
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )

    assert "DeprecatedName: totoms.model.UserContext is of totoms 1.5.0" in done.stderr


def test_imports_of_today_warn_of_nothing(fresh: Fresh) -> None:
    names = ", ".join(name for name in totoms.__all__ if not name.startswith("__"))
    sources = [
        f"from totoms import {names}",
        "import totoms",
        "import totoms.api, totoms.auth, totoms.secrets, totoms.storage",
        "from totoms import *",
    ]

    results = fresh(sources)

    assert [result["error"] for result in results] == [None] * len(sources)
    assert [result["warnings"] for result in results] == [[]] * len(sources)


def test_package_keeps_its_classes(fresh: Fresh) -> None:
    source = """
import inspect, totoms.TotoMicroservice, totoms.TotoLogger, totoms.secrets.SecretsManager, totoms.storage.CloudStorage
from totoms.TotoMicroservice import TotoMicroservice
assert inspect.isclass(totoms.TotoMicroservice) and totoms.TotoMicroservice is TotoMicroservice
assert inspect.isclass(totoms.TotoLogger)
assert inspect.isclass(totoms.secrets.SecretsManager) and totoms.secrets.SecretsManager is totoms.SecretsManager
assert inspect.isclass(totoms.storage.CloudStorage) and totoms.storage.CloudStorage is totoms.CloudStorage
"""

    check([source], [None], fresh)


def test_packages_of_today_are_real_folders() -> None:
    for name in compat._COMMON_PACKAGES:
        module = importlib.import_module(f"totoms.{name}")
        assert Path(str(module.__file__)).parts[-2:] == (name, "__init__.py")


def test_tools_that_probe_all_modules_cause_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for module in list(sys.modules.values()):
            if type(module) is not compat._OldModule:
                continue
            for probe in ("__file__", "__path__", "__wrapped__", "__warningregistry__", "pytest_plugins", "__test__"):
                getattr(module, probe, None)
            assert not hasattr(module, "__file__")
            dir(module)
        inspect.getmodule(test_tools_that_probe_all_modules_cause_no_warning)
        inspect.stack()
        pickle.loads(pickle.dumps(totoms.TotoMessage(type="t")))
        pickle.whichmodule(object(), "TotoNonsense")
        assert pickle.whichmodule(totoms.TotoMessage, "TotoMessage") == "totoms.messages.message"


def test_old_modules_have_a_spec() -> None:
    assert importlib.util.find_spec("totoms.model.TotoConfig") is not None


# --- names that are more than an import ---


@pytest.mark.filterwarnings("ignore::totoms.compat.DeprecatedName")
@pytest.mark.parametrize("spelling", ["determine_environment", "determine_envrionment"])
def test_determine_environment_takes_aws_when_nothing_is_set(spelling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)

    settings = getattr(totoms, spelling)()

    assert type(settings).__name__ == "AWSConfiguration"
    assert (settings.region, settings.environment) == ("eu-north-1", "dev")


def test_determine_environment_gives_the_settings_of_the_hyperscaler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYPERSCALER", "LOCAL")

    settings = compat.determine_environment()

    environment = totoms.TotoEnvironment(hyperscaler="local", hyperscaler_configuration=settings)
    assert environment.hyperscaler_configuration is settings


def test_settings_of_a_cloud_that_is_not_installed_can_be_imported_and_not_used(fresh: Fresh) -> None:
    source = """
import importlib_metadata
found = importlib_metadata.distributions
importlib_metadata.distributions = lambda: [one for one in found() if one.name != "totoms-aws"]
from totoms.model.TotoEnvironment import TotoEnvironment, AWSConfiguration, GCPConfiguration
TotoEnvironment("local")
assert not isinstance(TotoEnvironment("local").hyperscaler_configuration, AWSConfiguration)
AWSConfiguration(region="eu-north-1", environment="dev")
"""

    (result,) = fresh([source])

    assert "PluginNotFound" in result["error"]
    assert "pip install 'totoms[aws]'" in result["error"]


@pytest.mark.filterwarnings("ignore::totoms.compat.DeprecatedName")
def test_storage_factory_gives_the_storage_of_the_hyperscaler() -> None:
    from totoms.storage.CloudStorageFactory import CloudStorageFactory

    storage = CloudStorageFactory(totoms.TotoLogger.get_instance(), "cid-1").create_storage("local", "bucket")

    assert isinstance(storage, totoms.CloudStorage)
    assert storage.bucket_name == "bucket"


@pytest.mark.filterwarnings("ignore::totoms.compat.DeprecatedName")
def test_singleton_gives_the_first_instance() -> None:
    from totoms.model.singleton import singleton

    @singleton
    class Store:
        def __init__(self, name: str) -> None:
            self.name = name

    assert Store("a") is Store("b")
    assert Store("c").name == "a"


def test_every_row_of_the_table_leads_somewhere() -> None:
    for target in NAMES.values():
        module, _, attribute = target.partition(":")
        found = importlib.import_module(module)
        assert attribute in {*vars(found), *getattr(found, "__all__", ())}, target
    for names in MODULES.values():
        for name in names:
            assert sum(name in table for table in (NAMES, GONE, SETTINGS)) == 1, name
