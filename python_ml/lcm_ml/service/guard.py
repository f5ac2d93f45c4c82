"""What every request passes before the service sees it: host, token, rate and size; and the headers of every answer."""

import hmac
import json
import logging
import math
import time
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

PROBLEM = "application/problem+json"
MOST_BYTES = 1_000_000
"""Of a request's body: a thousand long ids fit."""
STRANGERS_A_MINUTE = 600
"""Requests without the token: the page's files, health, and guesses at the token."""
BURST_SECONDS = 10
OPEN_PATHS = ("/", "/page.js", "/page.css", "/openapi.json", "/v1/health")
HEADERS = [
    (b"cache-control", b"no-store"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]

log = logging.getLogger("lcm_ml.service")


class Bucket:
    """A token bucket: so many requests a minute, with ten seconds' worth at once."""

    def __init__(self, a_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = a_minute / 60
        self._most = max(1.0, self._rate * BURST_SECONDS)
        self._clock = clock
        self._left, self._seen = self._most, clock()

    def take(self) -> int:
        """0 when the request may pass; otherwise the whole seconds after which one will."""
        now = self._clock()
        self._left = min(self._most, self._left + (now - self._seen) * self._rate)
        self._seen = now
        if self._left >= 1:
            self._left -= 1
            return 0
        return math.ceil((1 - self._left) / self._rate)


def problem(status: int, detail: str, **more: Any) -> bytes:
    """An error's body, after RFC 9457."""
    told = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail, **more}
    return json.dumps(told).encode()


class Guard:
    """ASGI middleware. It is written without a framework's base class since it runs for each of many requests a second.

    Args:
        app: what answers.
        token: what a client has to show as `Authorization: Bearer TOKEN`.
        hosts: names that a request may be addressed to: a page of another site that lets its name point here (DNS
            rebinding) is not among them.
        rate: requests a minute with the token.
    """

    def __init__(self, app: App, token: str, hosts: frozenset[str], rate: int) -> None:
        self._app = app
        self._token = token.encode()
        self._hosts = hosts
        self._known, self._strangers = Bucket(rate), Bucket(STRANGERS_A_MINUTE)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer the request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        refused = self._refused(scope)
        if refused:
            await _refuse(with_headers, *refused)
            return
        try:
            await self._app(scope, receive, with_headers)
        except Exception as error:  # the one place where nothing may get through: texts of errors name users
            log.error("%s at %s", type(error).__name__, place(error))
            if not started:
                await _refuse(with_headers, 500, "the service failed; its log names the place")

    def _refused(self, scope: Message) -> tuple[int, str, list[tuple[bytes, bytes]]] | None:
        headers = dict(scope["headers"])
        if _name(headers.get(b"host", b"")) not in self._hosts:
            return 400, "this service does not answer to that host name", []
        kind, _, shown = headers.get(b"authorization", b"").partition(b" ")
        is_known = kind.lower() == b"bearer" and hmac.compare_digest(shown.strip(), self._token)
        if wait := (self._known if is_known else self._strangers).take():
            return 429, f"too many requests: wait {wait} s", [(b"retry-after", str(wait).encode())]
        if not is_known and scope["path"] not in OPEN_PATHS:
            return 401, "show the token: Authorization: Bearer TOKEN", [(b"www-authenticate", b"Bearer")]
        if b"transfer-encoding" in headers:
            return 411, "send the body with its Content-Length", []
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > MOST_BYTES:
            return 413, f"the body is longer than {MOST_BYTES:,} bytes", []
        return None


async def _refuse(send: Send, status: int, detail: str, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    body = problem(status, detail)
    told = [(b"content-type", PROBLEM.encode()), (b"content-length", str(len(body)).encode()), *(headers or [])]
    await send({"type": "http.response.start", "status": status, "headers": told})
    await send({"type": "http.response.body", "body": body})


def _name(host: bytes) -> str:
    """The name in a Host header, without its port."""
    text = host.decode("latin-1").lower()
    return text.partition("]")[0].lstrip("[") if text.startswith("[") else text.partition(":")[0]


def place(error: BaseException) -> str:
    """File and line where it was raised."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else "an unknown place"
