"""The routes of delegates and of the push endpoint, and their short way.

FastAPI's own way through an endpoint (dependencies, exit stacks, `jsonable_encoder`) costs more than all that a
delegate with only the three parameters needs. So such a delegate's route is a plain ASGI callable. Whatever has more,
or is registered with options of FastAPI's, goes FastAPI's way, authenticated before its body is read.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from fastapi import Request, Response
from fastapi.datastructures import DefaultPlaceholder
from fastapi.exceptions import FastAPIError, ResponseValidationError
from fastapi.routing import APIRoute
from starlette._exception_handler import wrap_app_handling_exceptions
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.routing import Route, compile_path
from starlette.types import Receive, Scope, Send

from totoms.caller import execution_context, identify
from totoms.delegate import Delegate, delegate_of
from totoms.encoding import encode_json
from totoms.execution import ExecutionContext, UserContext
from totoms.requests import TotoRequest

Push = Callable[[Request], Awaitable[bytes | Response]]
JSON_HEADER: Final = (b"content-type", b"application/json")
HANDSHAKE_HEADER: Final = "webhook-request-origin"
"""With it a broker asks, by OPTIONS, whether it may push here."""


class DelegateRoute(APIRoute):
    """An APIRoute that knows delegates. With any other endpoint it is FastAPI's.

    Attributes:
        delegate: The delegate, or None.
        short: Whether it takes the short way.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        self.delegate: Delegate | None = delegate_of(endpoint)
        if self.delegate is not None:
            options["openapi_extra"] = _path_parameters(path, self.delegate, options.get("openapi_extra"))
        try:
            super().__init__(path, endpoint, **options)
        except FastAPIError:
            given = options.get("response_model")
            if self.delegate is None or not (given is None or isinstance(given, DefaultPlaceholder)):
                raise
            # A return annotation that is no model (1.x never looked at it) declares nothing.
            options["response_model"] = None
            super().__init__(path, endpoint, **options)
        plain = (
            isinstance(self.response_class, DefaultPlaceholder)
            and self.status_code is None
            and not self.dependencies
            and getattr(self, "max_body_size", None) is None
            and not (self.response_model_include or self.response_model_exclude)
            and not (self.response_model_exclude_unset or self.response_model_exclude_defaults)
            and not self.response_model_exclude_none
            and self.response_model_by_alias
            and (self.response_field is None or hasattr(self.response_field, "serialize_json"))
        )
        self.short = plain and self.delegate is not None and self.delegate.short
        if self.short:
            self.app = self._serve_shortly

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler, authenticated. Routes that `include_router` rebuilds come through here."""
        handler = super().get_route_handler()
        if self.delegate is None:
            return handler

        async def authenticated(request: Request) -> Response:
            await identify(request)
            return await handler(TotoRequest(request.scope, request.receive, request._send))

        return authenticated

    async def _serve_shortly(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = scope.get("totoms")
        request = TotoRequest(scope, receive, send)
        if call is not None and call.error is not None:
            request = call.request or request
            error = call.error
        else:
            try:
                user = await identify(request)
                response = await self.respond(request, user, execution_context(request))
                if isinstance(response, bytes):
                    response = Response(response, media_type="application/json")
                await response(scope, receive, send)
                return
            except Exception as caught:
                error = caught
            finally:
                await request.close()

        await _handle_error(error, request, scope, receive, send)

    async def respond(self, request: TotoRequest, user: UserContext, context: ExecutionContext) -> bytes | Response:
        """Run the delegate.

        Returns:
            The response it returned, or the JSON of anything else.
        """
        delegate = self.delegate
        assert delegate is not None
        if delegate.is_async:
            result = await delegate.call(request, user, context)
        else:
            result = await run_in_threadpool(delegate.call, request, user, context)
            if inspect.isawaitable(result):
                result = await result
        if isinstance(result, Response):
            return result
        if self.response_field is None:
            return encode_json(result)
        # Declared by a return annotation: validated, filtered and written by its model, as FastAPI does.
        value, errors = self.response_field.validate(result, {}, loc=("response",))
        if errors:
            raise ResponseValidationError(errors=errors, body=None)
        return self.response_field.serialize_json(value)


class PushRoute(Route):
    """The route of the push endpoint, which verifies its callers itself.

    Args:
        path: Its path.
        push: Answers a request; with bytes for JSON.
        method: ``POST``, or ``OPTIONS`` for handshakes.
    """

    def __init__(self, path: str, push: Push, method: str) -> None:
        super().__init__(path, push, methods=[method], include_in_schema=False)
        self._push = push
        self.app = self._serve

    async def respond(self, request: Request) -> bytes | Response:
        """Answer a request.

        Raises:
            HTTPException: 405, for an OPTIONS that is no handshake.
        """
        if request.scope["method"] == "OPTIONS" and HANDSHAKE_HEADER not in request.headers:
            raise HTTPException(405, headers={"Allow": "POST"})
        return await self._push(request)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = scope.get("totoms")
        if call is not None and call.error is not None:
            await _handle_error(call.error, call.request or Request(scope, receive), scope, receive, send)
            return
        request = TotoRequest(scope, receive, send)
        try:
            answer = await self.respond(request)
            if isinstance(answer, bytes):
                answer = Response(answer, media_type="application/json")
            await answer(scope, receive, send)
        except Exception as error:
            await _handle_error(error, request, scope, receive, send)


async def _handle_error(error: Exception, request: Request, scope: Scope, receive: Receive, send: Send) -> None:
    """Have the app's exception handlers answer."""

    async def fail(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise error

    await wrap_app_handling_exceptions(fail, request)(scope, receive, send)


def _path_parameters(path: str, delegate: Delegate, extra: dict[str, Any] | None) -> dict[str, Any] | None:
    # Read from request.path_params, they are unknown to FastAPI; OpenAPI wants every one declared.
    missing = [name for name in compile_path(path)[2] if name not in delegate.signature.parameters]
    if not missing or (extra and "parameters" in extra):
        return extra
    schema = {"type": "string"}
    return {
        **(extra or {}),
        "parameters": [{"name": name, "in": "path", "required": True, "schema": schema} for name in missing],
    }
