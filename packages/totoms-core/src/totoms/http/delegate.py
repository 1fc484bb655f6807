"""`@toto_delegate`: it makes a function an authenticated endpoint.

A delegate has up to three parameters that totoms passes: the request, the `UserContext` and the `ExecutionContext`,
recognised by type, name or position (:mod:`totoms.http.parameters`). With only these, requests take the fast path
(:mod:`totoms.http.routes`). FastAPI reads further parameters from the request: body models, ``Query``, ``Depends``.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Final, ParamSpec, TypeVar, overload

from fastapi import Request

from totoms.auth.user import UserContext
from totoms.declaration.requires import Requires
from totoms.errors import ConfigurationError, InsufficientScope, TotoError
from totoms.execution import ExecutionContext
from totoms.http.context import execution_context, identify
from totoms.http.parameters import HIDDEN, Parameters
from totoms.http.responses import answer_elsewhere
from totoms.threads import current_delegate_pool, run_delegate

_END: Final = object()
_P = ParamSpec("_P")
_R = TypeVar("_R")


class Delegate:
    """A function decorated with `toto_delegate`.

    Args:
        function: The function.
        requires: What a caller must have; None for any caller.

    Attributes:
        name: Its qualified name, for errors.
        parameters: Its parameters.
        fast: Whether it can take the fast path: FastAPI reads no parameter from the request, and it is not a generator.
        signature: The signature for FastAPI.
    """

    def __init__(self, function: Callable[..., Any], requires: Requires | None = None) -> None:
        self.function = function
        self.requires = requires
        self._allows = None if requires is None else requires.compiled()
        self.name = getattr(function, "__qualname__", type(function).__name__)
        call = function if inspect.isroutine(function) or isinstance(function, functools.partial) else function.__call__  # type: ignore[operator]
        bare = inspect.unwrap(call)
        while isinstance(bare, functools.partial):
            bare = bare.func
        self.is_async = inspect.iscoroutinefunction(bare) or inspect.iscoroutinefunction(call)
        self.is_async_generator = inspect.isasyncgenfunction(bare)
        self.is_generator = inspect.isgeneratorfunction(bare) or self.is_async_generator
        self.parameters = Parameters(function, self.name)
        self.signature = self.parameters.signature
        self.fast = self.parameters.plain and not self.is_generator
        self._positional = self.fast and self.parameters.positional

    def call(self, request: Request, user: UserContext, context: ExecutionContext) -> Any:
        """Call the function on the fast path. For a coroutine function this returns the coroutine.

        Raises:
            InsufficientScope: The caller lacks what is required.
        """
        if self._allows is not None and not self._allows(user._facts.labels):
            self.check(user, request)
        if self._positional:
            return self.function(request, user, context)
        values = {"request": request, "user": user, "execution": context}
        return self._invoke({name: values[role] for role, name in self.parameters.roles.items()}, values)

    def requiring(self, requires: Requires) -> Callable[..., Any]:
        """Return an endpoint of the same function that only callers with what `requires` names may call."""
        return Delegate(self.function, requires).endpoint()

    def check(self, user: UserContext, request: Request | None) -> None:
        """Check that the caller has what is required; what is missing is only logged.

        Raises:
            InsufficientScope: Something is missing.
        """
        if self.requires is None or self._allows is None or self._allows(user._facts.labels):
            return
        call = request.scope.get("totoms") if request is not None else None
        if call is not None:
            call.note = f"the caller lacks {self.requires.missing(user)}"
        raise InsufficientScope("The caller's token does not allow this.")

    def _invoke(self, arguments: dict[str, Any], values: dict[str, Any]) -> Any:
        positional, named = self.parameters.bind(arguments, values)
        return self.function(*positional, **named)

    def endpoint(self) -> Callable[..., Any]:
        """Return the endpoint for FastAPI. It authenticates every call."""
        endpoint = (
            self._stream() if self.is_async_generator else self._sync_stream() if self.is_generator else self._run()
        )
        for attribute in ("__module__", "__name__", "__qualname__", "__doc__"):
            if hasattr(self.function, attribute):
                setattr(endpoint, attribute, getattr(self.function, attribute))
        # Not functools.wraps: it sets __wrapped__, and FastAPI would inspect the bare function.
        endpoint.__signature__ = self.signature  # type: ignore[attr-defined]
        endpoint.__toto_delegate__ = self  # type: ignore[attr-defined]
        return endpoint

    def _stream(self) -> Callable[..., Any]:
        async def stream(**arguments: Any) -> AsyncIterator[Any]:
            async for item in self._invoke(*self._checked(arguments)):
                yield item

        return stream

    def _sync_stream(self) -> Callable[..., Any]:
        async def stream(**arguments: Any) -> AsyncIterator[Any]:
            items = self._invoke(*self._checked(arguments))
            try:
                while (item := await run_delegate(next, items, _END)) is not _END:
                    yield item
            finally:
                # Do not wait: the generator may block while the client is already gone.
                current_delegate_pool().submit(items.close)

        return stream

    def _run(self) -> Callable[..., Any]:
        async def run(*positional: Any, **arguments: Any) -> Any:
            if positional:
                # A direct call: with the request only, as in totoms 1.x, or with all three in a unit test.
                arguments = await self._from_positional(positional, arguments)
            arguments, values = self._checked(arguments)
            try:
                if self.is_async:
                    return await self._invoke(arguments, values)
                result = await run_delegate(self._invoke, arguments, values)
                return await result if inspect.isawaitable(result) else result
            except TotoError as error:
                request = values.get("request")
                if positional or not isinstance(request, Request) or not _lacks_handler(error, request):
                    raise
                return await answer_elsewhere(error, request)

        return run

    def _checked(self, arguments: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the function's arguments and the values of all roles; raise `TypeError` without a `UserContext`."""
        hidden = {role: arguments.pop(name) for role, name in HIDDEN.items() if name in arguments}
        roles = self.parameters.roles
        values = {**{role: arguments[name] for role, name in roles.items() if name in arguments}, **hidden}
        if not isinstance(values.get("user"), UserContext):
            raise TypeError(f"The delegate {self.name} needs a UserContext.")
        request = values.get("request")
        self.check(values["user"], request if isinstance(request, Request) else None)
        return arguments, values

    async def _from_positional(self, positional: tuple[Any, ...], arguments: dict[str, Any]) -> dict[str, Any]:
        parameters = self.parameters
        of_role = {**HIDDEN, **parameters.roles}
        names = [*parameters.places, *(HIDDEN[role] for role in parameters.rest)]
        request = positional[0]
        if isinstance(request, Request) and (len(positional) == 1 or isinstance(positional[1], UserContext)):
            # In the order of totoms 1.5.0, whatever the function takes of them.
            names = [*of_role.values(), *(name for name in names if name not in of_role.values())]
            if len(positional) == 1:
                positional = (request, await identify(request), execution_context(request))
        if len(positional) > len(names):
            raise TypeError(f"The delegate {self.name} takes at most {len(names)} positional arguments.")
        return {**dict(zip(names, positional, strict=False)), **arguments}


def _lacks_handler(error: TotoError, request: Request) -> bool:
    """Return whether the app of `request` has no handler for `error`: it is not a `TotoAPI`."""
    handlers = getattr(request.scope.get("app"), "exception_handlers", None)
    # A handler for Exception does not count: it is for unexpected errors and responds with 500.
    kinds = [kind for kind in type(error).__mro__ if kind is not Exception]
    return isinstance(handlers, dict) and not any(kind in handlers for kind in kinds)


@overload
def toto_delegate(function: Callable[_P, Coroutine[Any, Any, _R]]) -> Callable[_P, Coroutine[Any, Any, _R]]: ...
@overload
def toto_delegate(  # type: ignore[overload-overlap]  # the first overload that fits counts
    function: Callable[_P, AsyncIterator[_R]],
) -> Callable[_P, AsyncIterator[_R]]: ...
@overload
def toto_delegate(  # type: ignore[overload-overlap]
    function: Callable[_P, Iterator[_R]],
) -> Callable[_P, AsyncIterator[_R]]: ...
@overload
def toto_delegate(function: Callable[_P, _R]) -> Callable[_P, Coroutine[Any, Any, _R]]: ...
def toto_delegate(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make `function` a delegate: an authenticated endpoint.

    Args:
        function: ``async def f(request, user_context, exec_context, ...)``. A plain ``def`` runs in a worker thread.
            FastAPI reads further parameters from the request: a pydantic body, ``Query``, ``Header``, ``Depends``.

    Returns:
        An endpoint for `APIEndpoint` and for FastAPI's ``add_api_route``. It authenticates in both. Tests may call it
        with the function's arguments; a plain ``def`` becomes a coroutine function, a generator an asynchronous one.

    Raises:
        ConfigurationError: `function` is not callable, or FastAPI could read one of the three parameters from the
            request.
    """
    if isinstance(getattr(function, "__toto_delegate__", None), Delegate):
        return function
    if not callable(function):
        raise ConfigurationError(f"@toto_delegate takes a function, not a {type(function).__name__}.")
    return Delegate(function).endpoint()


def delegate_of(endpoint: object) -> Delegate | None:
    """Return the `Delegate` of an endpoint that ``@toto_delegate`` made; None for any other endpoint."""
    found = getattr(endpoint, "__toto_delegate__", None)
    return found if isinstance(found, Delegate) else None
