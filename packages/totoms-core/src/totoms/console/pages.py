"""The HTML pages of the console, rendered on the server."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from totoms.console.data import plain
from totoms.console.model import Console
from totoms.console.picture import picture_of
from totoms.console.samples import body_of
from totoms.console.trying import call
from totoms.errors import NotFound, TotoError

_MENU: Final = (
    ("/", "Overview"),
    ("/endpoints", "Endpoints"),
    ("/topics", "Topics"),
    ("/messages", "Messages"),
    ("/dead-letters", "Dead letters"),
    ("/files", "Files"),
    ("/secrets", "Secrets"),
    ("/logs", "Log"),
)
_Show = Callable[..., Response]
_Page = Callable[[Request], Awaitable[Response]]


class Pages:
    """Renders the pages.

    Args:
        console: What they show.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._templates = Environment(
            loader=PackageLoader("totoms.console"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            finalize=_visible,
        )
        self._templates.filters |= {"clock": _clock, "duration": _duration, "pretty": _pretty, "part": quote}

    def routes(self) -> list[Route]:
        """Return the routes. Routes that change something are left out without `write`."""
        found = [
            self._route("/", self._overview),
            self._route("/endpoints", self._endpoints),
            self._route("/endpoints/try", self._try, "POST"),
            self._route("/topics", self._topics),
            self._route("/messages", self._messages),
            self._route("/messages/{message:path}", self._message),
            self._route("/dead-letters", self._dead_letters),
            self._route("/files", self._files),
            self._route("/secrets", self._secrets),
            self._route("/logs", self._logs),
        ]
        if self._console.write:
            found += [
                self._route("/dead-letters/replay", self._replay, "POST"),
                self._route("/dead-letters/purge", self._purge, "POST"),
                self._route("/publish", self._publish, "POST"),
            ]
        return found

    def _route(self, path: str, page: _Page, method: str = "GET") -> Route:
        async def serve(request: Request) -> Response:
            try:
                return await page(request)
            except TotoError as error:
                status = 404 if isinstance(error, NotFound) else 409
                # htmx puts the answer to a form into the page; a browser shows it as a page.
                template = "trouble.html" if "hx-request" in request.headers else "problem.html"
                return self._show(request, template, status, problem=error.message)

        return Route(path, serve, methods=[method], name=path)

    def _show(self, request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        here = "/" + request.url.path.split("/")[1]
        text = self._templates.get_template(template).render(
            menu=_MENU,
            here=here,
            console=self._console,
            address=str(request.url.path),
            query=request.url.query,
            **values,
        )
        return HTMLResponse(text, status)

    # --- look ---

    async def _overview(self, request: Request) -> Response:
        services = self._console.recorder.services()
        drawing = picture_of(self._console.connections(), [one.name for one in services])
        return self._show(
            request,
            "overview.html",
            services=services,
            ended={one.name for one in services if not _is_running(one.process)},
            picture=Markup(drawing),  # noqa: S704 - it escapes every name
            recent=self._console.recorder.messages(8),
        )

    async def _endpoints(self, request: Request) -> Response:
        rows = [
            {"service": one, "endpoint": endpoint, "names": _names(endpoint["path"]), "sample": _sample(one, endpoint)}
            for one in self._console.recorder.services()
            for endpoint in one.manifest["endpoints"]
        ]
        return self._show(request, "endpoints.html", rows=rows)

    async def _try(self, request: Request) -> Response:
        form = await request.form()
        given = {name: str(value) for name, value in form.items()}
        name = given.get("service", "")
        service = next((one for one in self._console.recorder.services() if one.name == name), None)
        if service is None:
            raise NotFound(f"There is no service {name!r}.")
        answer = await call(
            self._console,
            service,
            given.get("method", ""),
            given.get("path", ""),
            values={key.removeprefix("in-"): value for key, value in given.items() if key.startswith("in-")},
            query=given.get("query", ""),
            body=given.get("body", ""),
            user=given.get("user", ""),
        )
        return self._show(request, "answer.html", answer=answer)

    async def _topics(self, request: Request) -> Response:
        return self._show(
            request,
            "topics.html",
            subscriptions=await self._console.subscriptions(),
            connections=self._console.connections(),
        )

    async def _messages(self, request: Request) -> Response:
        wanted = {name: request.query_params.get(name, "") for name in ("topic", "cid", "text")}
        found = self._console.recorder.messages(100, **wanted)
        return self._show(request, "messages.html", messages=found, wanted=wanted)

    async def _message(self, request: Request) -> Response:
        message = self._console.recorder.message(request.path_params["message"])
        if message is None:
            raise NotFound("This message is not known any more: the console keeps the newest ones only.")
        nodes = self._console.trace(message.trace) if message.trace else []
        logs = self._console.recorder.logs(50, cid=message.cid) if message.cid else []
        return self._show(request, "message.html", message=message, nodes=nodes, logs=logs)

    async def _dead_letters(self, request: Request) -> Response:
        names = [
            topic["subscription"]
            for service in self._console.recorder.services()
            for topic in service.manifest["topics"]
            if topic["subscription"]
        ]
        wanted, letter_id = (request.query_params.get(name, "") for name in ("subscription", "letter"))
        if not wanted and self._console.development:
            wanted = names[0] if len(names) == 1 else ""
        found, letter = [], None
        if wanted in names:
            if letter_id:
                letter = plain(await self._console.dead_letter(wanted, letter_id))
            else:
                found = [plain(one) for one in await self._console.dead_letters(wanted)]
        return self._show(request, "dead_letters.html", names=names, wanted=wanted, letters=found, letter=letter)

    async def _files(self, request: Request) -> Response:
        bucket, prefix, key = (request.query_params.get(name, "") for name in ("bucket", "prefix", "key"))
        buckets = self._console.buckets()
        bucket = bucket or (buckets[0] if len(buckets) == 1 else "")
        values: dict[str, Any] = {"files": [], "text": "", "size": 0}
        if bucket and key:
            values["text"], values["size"] = await self._console.file(bucket, key)
        elif bucket:
            values["files"] = await self._console.files(bucket, prefix)
        return self._show(request, "files.html", buckets=buckets, bucket=bucket, prefix=prefix, key=key, **values)

    async def _secrets(self, request: Request) -> Response:
        return self._show(request, "secrets.html", secrets=await self._console.secrets())

    async def _logs(self, request: Request) -> Response:
        wanted = {name: request.query_params.get(name, "") for name in ("cid", "level", "service")}
        return self._show(request, "logs.html", lines=self._console.recorder.logs(300, **wanted), wanted=wanted)

    # --- change ---

    async def _replay(self, request: Request) -> Response:
        subscription, letters = await _selection(request)
        await self._console.replay(subscription, letters)
        return _back(subscription)

    async def _purge(self, request: Request) -> Response:
        subscription, letters = await _selection(request)
        await self._console.purge(subscription, letters)
        return _back(subscription)

    async def _publish(self, request: Request) -> Response:
        form = await request.form()
        text = str(form.get("data", ""))
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            return self._show(request, "problem.html", 422, problem=f"The data is not JSON: {error}.")
        published = await self._console.publish(str(form.get("topic", "")), str(form.get("type", "")), data)
        return RedirectResponse(f"/messages/{quote(published, safe='')}", 303)


async def _selection(request: Request) -> tuple[str, list[str] | None]:
    form = await request.form()
    letter = str(form.get("letter", ""))
    if not letter and form.get("all") != "yes":
        raise NotFound("Choose a dead letter, or all of them.")
    return str(form.get("subscription", "")), [letter] if letter else None


def _back(subscription: str) -> Response:
    return RedirectResponse(f"/dead-letters?subscription={quote(subscription, safe='')}", 303)


def _names(path: str) -> list[str]:
    return [part.split("}")[0].split(":")[0] for part in path.split("{")[1:]]


def _sample(service: Any, endpoint: dict[str, Any]) -> str:
    body = body_of(endpoint["operation"], service.manifest["schemas"])
    return "" if body is None else json.dumps(body, indent=2, ensure_ascii=False)


def _clock(seconds: float) -> str:
    return f"{time.strftime('%H:%M:%S', time.localtime(seconds))}.{int(seconds % 1 * 1000):03d}" if seconds else "-"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 1:
        return f"{seconds * 1000:.1f} ms"
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _pretty(text: str) -> str:
    """Return JSON indented; other text as it is."""
    with contextlib.suppress(ValueError, RecursionError):
        text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    return text


def _visible(value: Any) -> Any:
    """Return a text with escapes in place of control characters, which could hide or reorder what is shown."""
    if not isinstance(value, str) or isinstance(value, Markup) or value.isprintable():
        return value
    return "".join(one if one.isprintable() or one in "\n\t" else repr(one)[1:-1] for one in value)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        return True
    return True
