"""Read a hyperscaler's settings. Errors name the field and its environment variable, never the value."""

from __future__ import annotations

import pydantic
from pydantic import AliasChoices
from pydantic_settings import SettingsError

from totoms.errors import ConfigurationError, PluginLoadError, TotoError
from totoms.plugins.configuration import HyperscalerConfiguration


def read_settings(plugin: str, model: type[HyperscalerConfiguration], given: object = None) -> HyperscalerConfiguration:
    """Return `given` if it is an instance of `model`; without `given`, read the environment variables.

    Args:
        plugin: The plugin's name for messages.
        model: The plugin's settings model.
        given: The settings in the declaration, or None.

    Raises:
        ConfigurationError: A setting is missing or invalid, or `given` is another plugin's.
        PluginLoadError: The model itself fails.
    """
    if given is not None:
        if not isinstance(given, model):
            other = type(given)
            raise ConfigurationError(
                f"hyperscaler_configuration is a {other.__name__} (of {other.__module__}); "
                f"{plugin} takes a {model.__name__} (of {model.__module__})."
            )
        return given
    try:
        return model()
    except pydantic.ValidationError as error:
        raise ConfigurationError(f"The settings of {plugin} are wrong: {_problems(model, error)}") from None
    except SettingsError as error:
        # Its message names the field, but its cause contains the value.
        raise ConfigurationError(f"The settings of {plugin} cannot be read: {error}.") from None
    except TotoError:
        raise
    except Exception as error:
        raise PluginLoadError(f"The settings of {plugin} fail with {type(error).__name__}.") from error


def _problems(model: type[HyperscalerConfiguration], error: pydantic.ValidationError) -> str:
    problems = []
    for problem in error.errors(include_url=False, include_context=False):
        name, variable = _field(model, str(problem["loc"][0]) if problem["loc"] else "")
        text = problem["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
        given = problem["input"]
        values = map(str, given.values() if isinstance(given, dict) else [given])
        if any(len(value) > 3 and value in text for value in values):  # a validator of the plugin quotes the value
            text = "not valid"
        problems.append(
            f"{name or model.__name__}: {text}" + (f" (environment variable {variable})." if variable else ".")
        )
    return " ".join(problems)


def _field(model: type[HyperscalerConfiguration], location: str) -> tuple[str, str]:
    for name, field in model.model_fields.items():
        alias = field.validation_alias
        names = [alias] if isinstance(alias, str) else alias.choices if isinstance(alias, AliasChoices) else []
        variables = [choice for choice in names if isinstance(choice, str) and choice != name]
        if location in (name, *variables):
            return name, variables[0] if variables else f"{model.model_config.get('env_prefix', '')}{name}".upper()
    return location, ""
