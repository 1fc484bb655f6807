"""`@toto_delegate`: what makes a function an authenticated endpoint.

A delegate takes up to three parameters of ours, the request, the `UserContext` and the `ExecutionContext`, found by
annotation, by name or by place. With only these it takes the short way (:mod:`totoms.route`). Any further ones are
FastAPI's: body models, ``Query``, ``Depends``.
"""

from __future__ import annotations

import functools
import inspect
import sys
import typing
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any, Final

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool

from totoms.caller import CALLER, execution_context, identify
from totoms.errors import ConfigurationError
from totoms.execution import ExecutionContext, UserContext

_ROLES: Final = ("request", "user", "execution")
_TYPES: Final[dict[str, type]] = {"request": Request, "user": UserContext, "execution": ExecutionContext}
_NAMES: Final = {
    "request": "request",
    "req": "request",
    "user_context": "user",
    "exec_context": "execution",
    "execution_context": "execution",
}
_HIDDEN: Final = "totoms_caller"
_FREE: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Delegate:
    """A decorated function, and what its signature says.

    Attributes:
        function: As it was written.
        roles: From each role (``request``, ``user``, ``execution``) that it takes to the parameter's name.
        short: Whether it takes nothing but these, so that FastAPI has nothing to solve.
        signature: What FastAPI is shown.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.name = getattr(function, "__qualname__", type(function).__name__)
        call = function if inspect.isroutine(function) or isinstance(function, functools.partial) else function.__call__  # type: ignore[operator]
        bare = inspect.unwrap(call)
        while isinstance(bare, functools.partial):
            bare = bare.func
        self.is_async = inspect.iscoroutinefunction(bare) or inspect.iscoroutinefunction(call)
        self.is_async_generator = inspect.isasyncgenfunction(bare)
        self.is_generator = inspect.isgeneratorfunction(bare) or self.is_async_generator
        written = _resolved(function, bare)
        self._positional = any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in written.parameters.values())
        self.roles = _find_roles(written)
        self.signature = self._shown(written)
        ours = set(self.roles.values())
        rest = [p for p in written.parameters.values() if p.name not in ours and p.kind in (*_FREE, p.KEYWORD_ONLY)]
        self.short = not rest and not self.is_generator
        by_place = [p.name for p in written.parameters.values() if p.kind in _FREE] == [
            self.roles.get(r) for r in _ROLES
        ]
        self.by_place = self.short and (by_place or (self._positional and not self.roles))
        self._positional_only = [p.name for p in written.parameters.values() if p.kind is p.POSITIONAL_ONLY]

    def call(self, request: Request, user: UserContext, context: ExecutionContext) -> Any:
        """Call a delegate that takes the short way. What comes back is awaited, if it is a coroutine function."""
        if self.by_place:
            return self.function(request, user, context)
        values = {"request": request, "user": user, "execution": context}
        return self._invoke({name: values[role] for role, name in self.roles.items()})

    def _invoke(self, arguments: dict[str, Any]) -> Any:
        places = [arguments.pop(name) for name in self._positional_only if name in arguments]
        return self.function(*places, **arguments)

    def _shown(self, written: inspect.Signature) -> inspect.Signature:
        annotations: dict[str, Any] = {
            "request": Request,
            "user": Annotated[UserContext, Depends(CALLER)],
            "execution": Annotated[ExecutionContext, Depends(execution_context)],
        }
        role_of = {name: role for role, name in self.roles.items()}
        parameters = []
        for parameter in written.parameters.values():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            if parameter.name in role_of:
                parameter = parameter.replace(annotation=annotations[role_of[parameter.name]], default=parameter.empty)
            # By keyword, so that their order does not matter; FastAPI passes all of them by name.
            parameters.append(parameter.replace(kind=parameter.KEYWORD_ONLY))
        if "user" not in self.roles:
            # It is authenticated whether or not it asks who calls.
            caller = Annotated[UserContext, Depends(CALLER)]
            parameters.append(inspect.Parameter(_HIDDEN, inspect.Parameter.KEYWORD_ONLY, annotation=caller))
        return written.replace(parameters=parameters)

    def endpoint(self) -> Callable[..., Any]:
        """Return the function that FastAPI is given, and that authenticates however it is called."""
        endpoint = (
            self._stream() if self.is_async_generator else self._sync_stream() if self.is_generator else self._run()
        )
        for attribute in ("__module__", "__name__", "__qualname__", "__doc__"):
            if hasattr(self.function, attribute):
                setattr(endpoint, attribute, getattr(self.function, attribute))
        # Not functools.wraps: with __wrapped__ FastAPI would look through to the bare function.
        endpoint.__signature__ = self.signature  # type: ignore[attr-defined]
        endpoint.__toto_delegate__ = self  # type: ignore[attr-defined]
        return endpoint

    def _stream(self) -> Callable[..., Any]:
        async def stream(**arguments: Any) -> AsyncIterator[Any]:
            async for item in self._invoke(self._proven(arguments)):
                yield item

        return stream

    def _sync_stream(self) -> Callable[..., Any]:
        def stream(**arguments: Any) -> Iterator[Any]:
            yield from self._invoke(self._proven(arguments))

        return stream

    def _run(self) -> Callable[..., Any]:
        async def run(*places: Any, **arguments: Any) -> Any:
            if places:
                # Called as 1.x's was, with nothing but the request, or in a unit test with all three.
                arguments = await self._from_places(places, arguments)
            arguments = self._proven(arguments)
            if self.is_async:
                return await self._invoke(arguments)
            result = await run_in_threadpool(self._invoke, arguments)
            return await result if inspect.isawaitable(result) else result

        return run

    def _proven(self, arguments: dict[str, Any]) -> dict[str, Any]:
        caller = arguments.pop(_HIDDEN, None) or arguments.get(self.roles.get("user", ""))
        if not isinstance(caller, UserContext):
            raise TypeError(f"The delegate {self.name} needs a UserContext.")
        return arguments

    async def _from_places(self, places: tuple[Any, ...], arguments: dict[str, Any]) -> dict[str, Any]:
        values = dict(zip(_ROLES, places, strict=False))
        request = values.get("request")
        if len(places) == 1 and isinstance(request, Request):
            values["user"] = await identify(request)
            values["execution"] = execution_context(request)
        named = {name: values[role] for role, name in self.roles.items() if role in values}
        return {_HIDDEN: values.get("user"), **named, **arguments}


def toto_delegate(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make `function` a delegate: an endpoint whose callers are known.

    Args:
        function: ``async def f(request, user_context, exec_context, ...)``. A plain ``def`` is run in a worker thread.
            Parameters beyond the three are FastAPI's: a pydantic body, ``Query``, ``Header``, ``Depends``.

    Returns:
        An endpoint for `APIEndpoint`, and for FastAPI's own ``add_api_route``. It authenticates in both.

    Raises:
        ConfigurationError: The signature cannot be served.
    """
    if isinstance(getattr(function, "__toto_delegate__", None), Delegate):
        return function
    if not callable(function):
        raise ConfigurationError("@toto_delegate decorates a function.")
    return Delegate(function).endpoint()


def delegate_of(endpoint: object) -> Delegate | None:
    """Return the `Delegate` behind what ``@toto_delegate`` returned; None for anything else."""
    found = getattr(endpoint, "__toto_delegate__", None)
    return found if isinstance(found, Delegate) else None


def _resolved(function: Callable[..., Any], bare: Callable[..., Any]) -> inspect.Signature:
    # Annotations written as strings are looked up here, where the function's own names are known.
    signature = inspect.signature(function)
    known = {**vars(sys.modules.get(bare.__module__, typing)), **getattr(bare, "__globals__", {})}
    for name, cell in zip(bare.__code__.co_freevars, bare.__closure__ or (), strict=False):
        try:
            known.setdefault(name, cell.cell_contents)
        except ValueError:  # a name that is bound later
            continue

    def resolve(annotation: Any) -> Any:
        if not isinstance(annotation, str):
            return annotation
        try:
            return eval(annotation, known)  # noqa: S307 - the source text of an annotation, as typing.get_type_hints does
        except Exception:
            last = annotation.strip("'\" ").rpartition(".")[2]
            return {kind.__name__: kind for kind in _TYPES.values()}.get(last, annotation)

    parameters = [p.replace(annotation=resolve(p.annotation)) for p in signature.parameters.values()]
    for parameter in parameters:
        if isinstance(parameter.annotation, str) and parameter.kind in (*_FREE, parameter.KEYWORD_ONLY):
            # FastAPI would take it for a query parameter, and so drop a dependency that was to protect something.
            raise ConfigurationError(
                f"The annotation of {parameter.name!r} names something unknown where the delegate is decorated."
            )
    returned = resolve(signature.return_annotation)
    return signature.replace(
        parameters=parameters, return_annotation=inspect.Signature.empty if isinstance(returned, str) else returned
    )


def _find_roles(signature: inspect.Signature) -> dict[str, str]:
    roles: dict[str, str] = {}
    open_places: list[tuple[int, str]] = []
    for place, parameter in enumerate(signature.parameters.values()):
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        role = _role_by_annotation(parameter.annotation)
        if role is None and parameter.annotation is parameter.empty and parameter.default is parameter.empty:
            role = _NAMES.get(parameter.name)
            if role is None:
                open_places.append((place, parameter.name))
        if role is not None:
            if role in roles:
                raise ConfigurationError(f"A delegate takes one {_TYPES[role].__name__}, not two: {parameter.name!r}.")
            roles[role] = parameter.name
    # What is neither annotated nor named for a role stands where 1.x passed it.
    for place, name in open_places:
        if place < len(_ROLES) and _ROLES[place] not in roles:
            roles[_ROLES[place]] = name
    return roles


def _role_by_annotation(annotation: Any) -> str | None:
    if typing.get_origin(annotation) is Annotated:
        return None
    for role, kind in _TYPES.items():
        if isinstance(annotation, type) and issubclass(annotation, kind):
            return role
    return None
