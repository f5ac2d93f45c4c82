"""`lcm-ml support serve`: the published snapshot over HTTP, and a page for marketers."""

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lcm_ml.cli.console import JsonOption, command, emit, err, notify, out

if TYPE_CHECKING:
    import socket

TOKEN = "LCM_API_TOKEN"
SHORTEST_TOKEN = 16
LOOPBACK = frozenset(("127.0.0.1", "::1", "localhost"))


def serve(
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)] = 8417,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Listen on an address that other machines reach, without encryption.")
    ] = False,
    name: Annotated[
        list[str] | None, typer.Option(help="A host name that requests may be addressed to, as a proxy passes it on.")
    ] = None,
    rate: Annotated[int, typer.Option(help="Requests a minute.", min=1)] = 15_000,
    as_json: JsonOption = False,
) -> None:
    """Serve the published snapshot on this machine: scores, profiles, next actions, answers; and a page to look at.

    The token comes from LCM_API_TOKEN; without it a new one is made and shown once. Stop with Ctrl-C.

    Example: `LCM_API_TOKEN=$(cat token) lcm-ml support serve --port 8417`
    """
    with command(as_json):
        run_serve(host, port, allow_remote, tuple(name or ()), rate, as_json)


def run_serve(host: str, port: int, allow_remote: bool, names: tuple[str, ...], rate: int, as_json: bool) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises:
        UsageError: for an address beyond this machine that was not allowed, or a token that is too short.
        LcmError: when the extra is not installed, or the address cannot be had.
    """
    # One answer is computed at a time: more threads for it would only take the look-ups' processor.
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"):
        os.environ.setdefault(variable, "1")
    from lcm_ml import project
    from lcm_ml.errors import LcmError, UsageError

    if host not in LOOPBACK:
        if not allow_remote:
            raise UsageError(
                f"{host} can be reached from other machines",
                "leave --host out and put a proxy with TLS before it, or add --allow-remote",
            )
        notify(
            f"warning: other machines can reach {host}, and nothing is encrypted: token and personal data can be read"
        )
    token, is_new = _token()
    try:
        import uvicorn

        from lcm_ml.service.app import create_app
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "uvicorn", "pydantic", "starlette"):
            raise
        raise LcmError(f"the service needs {error.name}", "pip install 'lcm-ml[serve]'") from None
    from lcm_ml.service.server import Server

    app = create_app(project.beside_warehouse("published"), token, LOOPBACK | {host, *names}, rate)
    listening = _listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{listening.getsockname()[1]}"

    loading = err.status("loading the snapshot")
    loading.start()

    def ready() -> None:
        loading.stop()
        if is_new:
            err.print(f"token      {token}   (new, shown once; set {TOKEN} to keep one)")
        emit({"url": url, "page": f"{url}/", "openapi": f"{url}/openapi.json"}, as_json, _show)
        out.file.flush()

    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,  # paths hold user ids
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=5,
    )
    try:
        Server(config, ready).run(sockets=[listening])
    finally:
        loading.stop()


def _token() -> tuple[str, bool]:
    """The token, and whether it was made just now."""
    import secrets

    from lcm_ml.errors import UsageError

    token = os.environ.get(TOKEN, "")
    if not token:
        return secrets.token_urlsafe(32), True
    if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError(
            f"{TOKEN} must have at least {SHORTEST_TOKEN} ASCII letters and digits, without spaces",
            f"take e.g. {TOKEN}=$(openssl rand -hex 32)",
        )
    return token, False


def _listen(host: str, port: int) -> "socket.socket":
    import socket

    from lcm_ml.errors import LcmError

    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        raise LcmError(f"cannot listen on {host}, port {port}: {error.strerror}", "take another --port") from None
    # Answers are sent in two parts: without this the second waits up to 40 ms for the first to be acknowledged.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def _show(result: dict[str, Any]) -> None:
    out.print(f"page       {result['page']}")
    out.print(f"OpenAPI    {result['openapi']}")
