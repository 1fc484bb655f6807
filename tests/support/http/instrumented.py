"""Run an app under Sentry's SDK or OpenTelemetry's instrumentation and print, as JSON, what the tool saw.

``python -m support.http.instrumented TOOL APP``: TOOL is ``sentry``, ``sentry-late`` (initialised after the app was
made), ``otel`` or ``otel-global``; APP is ``plain`` (FastAPI alone), ``totoms``, or ``totoms-middleware``. In a process
of its own, since these tools replace parts of FastAPI for good.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import Any

import httpx
from starlette.requests import Request

REPEATED = 10
BODY = {"text": "hello"}
SEEN: dict[str, Any] = {"exceptions": [], "transactions": [], "complaints": []}


def sentry() -> None:
    import sentry_sdk
    from sentry_sdk.transport import Transport

    class Capture(Transport):
        def capture_envelope(self, envelope: Any) -> None:
            for item in envelope.items:
                event = item.payload.json or {}
                if item.type == "transaction":
                    SEEN["transactions"].append(event["transaction"])
                elif item.type == "event":
                    SEEN["exceptions"].append([event["exception"]["values"][-1]["type"], event.get("transaction")])

    sentry_sdk.init(dsn="http://key@127.0.0.1:1/1", transport=Capture, traces_sample_rate=1.0)


def otel_spans() -> Any:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return exporter, provider


def read_spans(exporter: Any) -> None:
    for span in exporter.get_finished_spans():
        if span.kind.name == "SERVER":
            SEEN["transactions"].append(span.name)
            for event in span.events:
                if event.name == "exception":
                    SEEN["exceptions"].append([event.attributes["exception.type"], span.name])


def plain() -> Any:
    import fastapi

    app = fastapi.FastAPI()

    @app.get("/ok")
    async def ok() -> Any:
        return {"ok": True}

    @app.get("/item/{number}")
    async def item(number: str) -> Any:
        return {"number": number}

    @app.post("/echo")
    async def echo(request: Request) -> Any:
        return await request.json()

    @app.get("/fail")
    async def fail() -> Any:
        raise RuntimeError("failed")

    @app.get("/fail/{number}")
    def fail_too(number: str) -> Any:
        raise RuntimeError("failed")

    return app


def totoms(middleware: bool = False) -> Any:
    from support.http.app import make_service
    from totoms import APIEndpoint, ExecutionContext, UserContext, toto_delegate

    @toto_delegate
    async def ok(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
        return {"ok": True}

    @toto_delegate
    async def item(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
        return {"number": request.path_params["number"]}

    @toto_delegate
    async def echo(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
        return await request.json()

    @toto_delegate
    async def fail(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
        raise RuntimeError("failed")

    @toto_delegate
    def fail_too(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
        raise RuntimeError("failed")

    service = make_service(
        APIEndpoint("GET", "/ok", ok),
        APIEndpoint("GET", "/item/{number}", item),
        APIEndpoint("POST", "/echo", echo),
        APIEndpoint("GET", "/fail", fail),
        APIEndpoint("GET", "/fail/{number}", fail_too),
    )
    if middleware:

        @service.app.middleware("http")
        async def passing(request: Request, call_next: Any) -> Any:
            return await call_next(request)

    return service.app


async def load(app: Any) -> None:
    from support.http.app import KEY
    from totoms.auth.tokens import make_token

    headers = {"authorization": f"Bearer {make_token(KEY, 'me')}"}
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as client:
        for number in range(REPEATED):
            statuses = [
                (await client.get("/ok")).status_code,
                (await client.get(f"/item/{number}")).status_code,
                (await client.post("/echo", json=BODY)).status_code,
                (await client.get("/fail")).status_code,
                (await client.get(f"/fail/{number}")).status_code,
            ]
            assert statuses == [200, 200, 200, 500, 500], statuses


class Complaints(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith(("opentelemetry", "sentry")):
            SEEN["complaints"].append(record.getMessage())


def main(tool: str, variant: str) -> None:
    logging.getLogger().addHandler(Complaints(logging.WARNING))
    apps = {"plain": plain, "totoms": totoms, "totoms-middleware": lambda: totoms(middleware=True)}
    exporter = provider = None
    if tool == "sentry":
        sentry()
    if tool.startswith("otel"):
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

        exporter, provider = otel_spans()
        if tool == "otel-global":
            FastAPIInstrumentor().instrument(tracer_provider=provider)
    app = apps[variant]()
    if tool == "sentry-late":
        sentry()
    if tool == "otel":
        FastAPIInstrumentor.instrument_app(app, tracer_provider=provider)
    asyncio.run(load(app))
    if exporter is not None:
        read_spans(exporter)
    print(json.dumps(SEEN))


if __name__ == "__main__":
    main(*sys.argv[1:])
