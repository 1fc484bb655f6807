"""The parameters of a delegate: passed by totoms, left at their default, or read from the request by FastAPI.

totoms passes the request, the caller and the context: the roles. They are recognised by type, name or position, and
never read from the request. A parameter that looks like one of them but is not is an error at decoration.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from types import NoneType
from typing import Annotated, Any, Final

from fastapi import BackgroundTasks, Depends, Request, Response, params
from fastapi.security import SecurityScopes
from pydantic import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError, TypeAdapter
from starlette.requests import HTTPConnection

from totoms.auth.user import UserContext
from totoms.errors import ConfigurationError
from totoms.execution import ExecutionContext
from totoms.http.annotations import ROLES, TYPES, Role, names_of
from totoms.http.context import CALLER, DEPENDENCIES, execution_dependency

_NAMED: Final[dict[str, Role]] = {
    "request": "request",
    "user_context": "user",
    "exec_context": "execution",
    "execution_context": "execution",
}
"""Reserved names: a parameter of another type under such a name is an error."""
_ALIASES: Final[dict[str, Role]] = {"req": "request"}
"""Names that count for a role only without an annotation."""
HIDDEN: Final[dict[Role, str]] = {role: f"totoms_{role}" for role in ROLES}
"""Parameters in the signature for FastAPI that the function does not have."""
_ANNOTATIONS: Final[dict[Role, Any]] = {
    "request": Request,
    "user": Annotated[UserContext, Depends(CALLER)],
    "execution": Annotated[ExecutionContext, Depends(execution_dependency)],
}
_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_FASTAPI_TYPES: Final = (HTTPConnection, Response, BackgroundTasks, SecurityScopes)
"""Types that FastAPI passes by annotation (https://fastapi.tiangolo.com/advanced/using-request-directly/)."""
_EMPTY: Final = inspect.Parameter.empty


class Parameters:
    """The parameters of a delegate.

    Args:
        function: The function, before decoration.
        name: Its name, for errors.

    Attributes:
        roles: The name of the parameter for each role that the function takes.
        rest: The roles passed to ``*args``: those without a parameter, in the order of totoms 1.5.0.
        places: The names of the parameters that can be passed by position, in order.
        plain: Whether FastAPI has no parameter to read from the request.
        positional: Whether the function can be called with exactly the request, the caller and the context.
        signature: The signature for FastAPI.

    Raises:
        ConfigurationError: FastAPI could read a parameter from the request that is, or looks like, one of the roles.
    """

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self._name = name
        self._names = names_of(function)
        self.roles: dict[Role, str] = {}
        self._kept: set[str] = set()
        written = self._resolved(inspect.signature(function))
        every = list(written.parameters.values())
        self._assign([one for one in every if one.kind in (*_POSITIONAL, one.KEYWORD_ONLY)])
        self.places = places = [one.name for one in every if one.kind in _POSITIONAL]
        ours = set(self.roles.values())
        solved = [
            one for one in every if one.kind in (*_POSITIONAL, one.KEYWORD_ONLY) and one.name not in ours | self._kept
        ]
        takes_rest = any(one.kind is one.VAR_POSITIONAL for one in every)
        self.rest = [role for role in ROLES if role not in self.roles] if takes_rest else []
        self.plain = not solved
        in_order = [self.roles.get(role) for role in ROLES if role not in self.rest]
        self.positional = self.plain and places[: len(in_order)] == in_order
        if self.rest:
            self.positional &= self.rest == list(ROLES[len(in_order) :]) and len(places) == len(in_order)
        self._passed_positionally = (
            places if self.rest else [one.name for one in every if one.kind is one.POSITIONAL_ONLY]
        )
        self._defaults = {one.name: one.default for one in every if one.default is not _EMPTY}
        self.signature = self._for_fastapi(written, solved)

    def bind(self, arguments: dict[str, Any], values: dict[Role, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Return the positional and keyword arguments of a call.

        Args:
            arguments: The values by parameter name.
            values: The request, the caller and the context, for ``*args``.
        """
        if not self._passed_positionally and not self.rest:
            return [], arguments
        named = dict(arguments)
        places = [
            named.pop(name) if name in named else self._defaults[name]
            for name in self._passed_positionally
            if name in named or name in self._defaults
        ]
        return [*places, *(values[role] for role in self.rest if role in values)], named

    def _resolved(self, signature: inspect.Signature) -> inspect.Signature:
        parameters = []
        for parameter in signature.parameters.values():
            self._names.missing.clear()
            annotation = self._names.resolve(parameter.annotation)
            unknown = sorted(self._names.missing)
            if (
                unknown
                and parameter.kind in (*_POSITIONAL, parameter.KEYWORD_ONLY)
                and not self._names.role_of(annotation)
            ):
                # FastAPI would make it a query parameter, and silently drop a dependency that protects something.
                raise self._error(parameter, f"has a name that is unknown at decoration: {', '.join(unknown)}")
            parameters.append(parameter.replace(annotation=annotation))
        self._names.missing.clear()
        returned = self._names.resolve(signature.return_annotation)
        if self._names.missing:
            returned = inspect.Signature.empty
        if returned is NoneType:  # FastAPI takes None, but not its class, for no response model
            returned = None
        return signature.replace(parameters=parameters, return_annotation=returned)

    def _assign(self, parameters: list[inspect.Parameter]) -> None:
        open_places: list[tuple[Role, str]] = []
        for place, parameter in enumerate(parameters):
            role = self._role(parameter)
            if role is not None:
                if role in self.roles:
                    raise ConfigurationError(
                        f"The delegate {self._name} has a second {TYPES[role].__name__}: {parameter.name!r}."
                    )
                self.roles[role] = parameter.name
            elif _from_fastapi(parameter.default):
                self._check_dependency(parameter)
            elif parameter.annotation is _EMPTY and parameter.default is not _EMPTY:
                self._kept.add(parameter.name)
            elif parameter.annotation is _EMPTY:
                if parameter.kind in _POSITIONAL and place < len(ROLES):
                    open_places.append((ROLES[place], parameter.name))
            elif parameter.default is not _EMPTY and not self._readable(parameter.annotation):
                self._kept.add(parameter.name)
            else:
                self._check_dependency(parameter)
        # A parameter without an annotation or a role's name gets the role that totoms 1.5.0 passed at its position. If
        # another parameter has that role, FastAPI would read this one from the request, though it may be meant for the
        # caller.
        for role, name in open_places:
            if role in self.roles:
                raise ConfigurationError(
                    f"The delegate {self._name} cannot be served: {name!r} has no annotation and is at the position of "
                    f"the {TYPES[role].__name__}, which is {self.roles[role]!r} already. Annotate it."
                )
            self.roles[role] = name

    def _role(self, parameter: inspect.Parameter) -> Role | None:
        names, annotation = self._names, parameter.annotation
        core, metadata = names.peel(annotation)
        untyped = core in (_EMPTY, Any, object) or _is_free_variable(core)
        by_type, named = names.role_of(annotation), _NAMED.get(parameter.name)
        if by_type is None and names.roles_within(annotation):
            raise self._error(parameter, "contains a type that only totoms may pass")
        if by_type is None and named is None:
            return _ALIASES.get(parameter.name) if untyped and not _any_from_fastapi(parameter, metadata) else None
        if by_type is None and not untyped and not (named == "request" and core is HTTPConnection):
            raise self._error(parameter, f"is not {TYPES[named or ''].__name__}, for which this name is reserved")
        if by_type is not None and named is not None and by_type != named:
            raise self._error(parameter, f"is not {TYPES[named].__name__}, for which this name is reserved")
        role = by_type or named
        assert role is not None
        for marker in (*metadata, parameter.default):
            if _from_fastapi(marker) and getattr(marker, "dependency", marker) not in DEPENDENCIES[role]:
                raise self._error(parameter, f"would replace the {TYPES[role].__name__} that totoms passes")
        return role

    def _readable(self, annotation: Any) -> bool:
        """Return whether FastAPI can read such a value from a request or pass it itself."""
        core, metadata = self._names.peel(annotation)
        if any(map(_from_fastapi, metadata)) or (isinstance(core, type) and issubclass(core, _FASTAPI_TYPES)):
            return True
        if core is type or typing.get_origin(core) is type:
            return False
        try:
            TypeAdapter(annotation).json_schema()
        except (PydanticSchemaGenerationError, PydanticInvalidForJsonSchema):
            return False
        except Exception:  # FastAPI will raise it again, with an explanation
            return True
        return True

    def _check_dependency(self, parameter: inspect.Parameter) -> None:
        core, metadata = self._names.peel(parameter.annotation)
        for marker in (*metadata, parameter.default):
            unsafe = isinstance(marker, params.Depends) and _unsafe_parameter(marker.dependency or core, set())
            if unsafe:
                raise self._error(parameter, unsafe)

    def _for_fastapi(self, written: inspect.Signature, solved: list[inspect.Parameter]) -> inspect.Signature:
        # Keyword-only, so that the order is free; FastAPI passes everything by name.
        parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in solved]
        # The caller is always there, so that every delegate is authenticated; the request, to find the app.
        hidden = [role for role in ROLES if role not in self.roles and (role != "execution" or role in self.rest)]
        for role, name in [*self.roles.items(), *((role, HIDDEN[role]) for role in hidden)]:
            parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=_ANNOTATIONS[role]))
        return written.replace(parameters=parameters)

    def _error(self, parameter: inspect.Parameter, why: str) -> ConfigurationError:
        return ConfigurationError(
            f"The delegate {self._name} cannot be served: the annotation of {parameter.name!r} {why}."
        )


def check_dependency(marker: params.Depends, where: str) -> None:
    """Check a dependency that is declared outside a delegate's signature.

    Args:
        marker: The ``Depends(...)``.
        where: The field in which it is declared, for the error.

    Raises:
        ConfigurationError: It, or a dependency of its own, takes a caller or a context that FastAPI would read from the
            request.
    """
    if unsafe := _unsafe_parameter(marker.dependency, set()):
        raise ConfigurationError(f"{where} {unsafe}.")


def _unsafe_parameter(call: Any, seen: set[int]) -> str:
    """Return which parameter of a dependency, at any depth, FastAPI would read in place of totoms; "" for none."""
    try:
        signature = inspect.signature(call)
    except (TypeError, ValueError):
        return ""
    if id(call) in seen:
        return ""
    seen.add(id(call))
    names = names_of(call)
    for one in signature.parameters.values():
        annotation = names.resolve(one.annotation)
        core, metadata = names.peel(annotation)
        depends = [marker for marker in (*metadata, one.default) if isinstance(marker, params.Depends)]
        ours = names.roles_within(annotation) | {_NAMED.get(one.name, "request")}
        if not depends and ours != {"request"}:
            shown = getattr(call, "__qualname__", type(call).__name__)
            return f"depends on {shown}, which would read {one.name!r} from the request"
        for marker in depends:
            if unsafe := _unsafe_parameter(marker.dependency or core, seen):
                return unsafe
    return ""


def _from_fastapi(marker: Any) -> bool:
    return isinstance(marker, params.Depends | params.Param | params.Body)


def _any_from_fastapi(parameter: inspect.Parameter, metadata: list[Any]) -> bool:
    return any(map(_from_fastapi, (*metadata, parameter.default)))


def _is_free_variable(core: Any) -> bool:
    return isinstance(core, typing.TypeVar) and not core.__constraints__
