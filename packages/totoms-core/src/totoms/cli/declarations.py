"""Load the declaration of a service that a command line names."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import sys
import traceback
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

from totoms.errors import ConfigurationError

if TYPE_CHECKING:
    from totoms.declaration.service import TotoMicroserviceConfiguration

T = TypeVar("T")


@overload
def load_quietly(place: str) -> TotoMicroserviceConfiguration: ...
@overload
def load_quietly(place: str, then: Callable[[TotoMicroserviceConfiguration], T]) -> T: ...
def load_quietly(place: str, then: Callable[[TotoMicroserviceConfiguration], Any] | None = None) -> Any:
    """Import a declaration as `load_configuration` does; what its modules print goes to standard error.

    Args:
        place: Where it is.
        then: Called with the declaration, while what is printed still goes to standard error; its result is returned.
    """
    with contextlib.redirect_stdout(sys.stderr):
        found = load_configuration(place)
        return found if then is None else then(found)


def load_configuration(place: str) -> TotoMicroserviceConfiguration:
    """Import a declaration.

    Args:
        place: Such as ``service:configuration``: a module, looked for in the working directory as well, and the name of
            a configuration or of a function without arguments that returns one.

    Raises:
        ConfigurationError: There is no configuration, or importing it failed.
    """
    module_name, separator, name = place.partition(":")
    from totoms.declaration.service import TotoMicroserviceConfiguration  # imports FastAPI

    if not module_name or not separator or not name:
        raise ConfigurationError(f"{place!r} must have the form MODULE:NAME, such as service:configuration.")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        found: Any = reduce(getattr, name.split("."), importlib.import_module(module_name))
        if callable(found) and not isinstance(found, TotoMicroserviceConfiguration):
            found = found()
    except ConfigurationError:
        raise
    except (Exception, SystemExit) as error:  # otherwise the command would end as if it had succeeded
        text = f"{place} cannot be loaded: {type(error).__name__}: {error}{_where(error)}"
        raise ConfigurationError(text) from error
    if inspect.iscoroutine(found):
        found.close()
    if not isinstance(found, TotoMicroserviceConfiguration):
        raise ConfigurationError(f"{place} is a {type(found).__name__}, not a TotoMicroserviceConfiguration.")
    return found


def _where(error: BaseException) -> str:
    """Return the last line below the working directory that the error passed, such as ``(service.py, line 3)``."""
    if isinstance(error, SyntaxError):  # its text has the place
        return ""
    folder = Path.cwd()
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(folder) and "site-packages" not in path.parts:
            return f" ({path.relative_to(folder)}, line {frame.lineno})"
    return ""
