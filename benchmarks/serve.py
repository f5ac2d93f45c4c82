"""`lcm-ml support serve` under load: 200 requests a second at random moments (open loop: what waits is counted).

Beside it, in the same run and in turns with it, a bare FastAPI endpoint that answers a constant. Server and generator
share this machine's processors. Ends with 1 when a request fails or the 99th percentile of score look-ups is above
50 ms.

    .venv/bin/python benchmarks/serve.py                    # the snapshot of LCM_WAREHOUSE
    .venv/bin/python benchmarks/serve.py --users 1000000    # a synthetic one
"""

import argparse
import asyncio
import json
import os
import random
import resource
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from lcm_ml import project
from lcm_ml.service import store

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "python"))

from simulated_snapshot import publish

RESULTS = Path(__file__).parent / "results"
MOST_P99_MS = 50
MIX = {"score": 0.7, "profile": 0.15, "next-action": 0.05, "search": 0.05, "ask": 0.05}
QUESTIONS = ("Where is my parcel?", "I got charged twice!", "How do I return shoes that are too small?", "怎么开发票？")
CONNECTIONS = 64


@contextmanager
def started(command: list[str], environment: dict[str, str]) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A server's process that prints a JSON document with its url once it answers."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | environment)
    try:
        assert process.stdout
        lines = ""
        while not lines.rstrip().endswith("}"):
            line = process.stdout.readline()
            assert line, f"{command} ended"
            lines += line
        yield json.loads(lines)["url"], process
    finally:
        process.terminate()
        process.wait(30)


def serve_bare() -> None:
    """The reference: FastAPI and uvicorn as the service uses them, with nothing to do."""
    import socket

    import uvicorn
    from fastapi import FastAPI

    app = FastAPI()

    @app.get("/v1/scores/{user_id}")
    async def constant(user_id: str) -> dict[str, str | float]:
        return {"user_id": user_id, "churn_probability": 0.5}

    listening = socket.create_server(("127.0.0.1", 0), backlog=512)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    print(json.dumps({"url": f"http://127.0.0.1:{listening.getsockname()[1]}"}), flush=True)
    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, proxy_headers=False)
    uvicorn.Server(config).run(sockets=[listening])


class Client:
    """Keep-alive connections to one server, each for one request at a time."""

    def __init__(self, url: str, token: str) -> None:
        self._host, port = url.removeprefix("http://").split(":")
        self._port = int(port)
        self._head = f"Host: {self._host}:{port}\r\nAuthorization: Bearer {token}\r\n"
        self._free: asyncio.LifoQueue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.LifoQueue()

    async def open(self) -> None:
        for _ in range(CONNECTIONS):
            self._free.put_nowait(await self._connection())

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self._host, self._port)

    async def request(self, path: str, body: dict[str, Any] | None = None) -> int:
        """The answer's status, once all of it was read."""
        reader, writer = await self._free.get()
        if reader.at_eof():  # it was idle for too long
            writer.close()
            reader, writer = await self._connection()
        content = json.dumps(body).encode() if body else b""
        head = f"{'POST' if body else 'GET'} {path} HTTP/1.1\r\n{self._head}"
        head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n" if body else "\r\n"
        writer.write(head.encode() + content)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in answer.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        await reader.readexactly(length)
        self._free.put_nowait((reader, writer))
        return int(answer[9:12])


Found = dict[str, list[tuple[float, int]]]


async def drive(
    client: Client, draw: Callable[[], tuple[str, str, Any]], rate: float, seconds: float, found: Found
) -> float:
    """Send requests at random moments, whether the ones before were answered or not.

    Returns:
        Requests answered a second.
    """
    started_at = time.perf_counter()
    tasks = []

    async def one(due: float, kind: str, path: str, body: Any) -> None:
        status = await client.request(path, body)
        found.setdefault(kind, []).append((time.perf_counter() - due, status))

    due = started_at
    while due < started_at + seconds:
        due += random.expovariate(rate)
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(due, *draw())))
    await asyncio.gather(*tasks)
    return len(tasks) / (time.perf_counter() - started_at)


def told(found: Found) -> dict[str, Any]:
    figures = {}
    for kind, answers in found.items():
        p50, p95, p99 = np.percentile([seconds for seconds, _ in answers], [50, 95, 99]) * 1000
        errors = sum(status >= 400 for _, status in answers)
        figures[kind] = {
            "requests": len(answers), "errors": errors,
            "p50_ms": round(p50, 2), "p95_ms": round(p95, 2), "p99_ms": round(p99, 2),
        }  # fmt: skip
    return figures


def drawer(current: Path) -> Callable[[], tuple[str, str, Any]]:
    """Requests in the proportions of MIX, for users that have what is asked for."""

    def ids(relation: str) -> list[str]:
        path = current / f"{relation}.parquet"
        if not path.exists():
            return []
        query = f"select user_id from (select distinct user_id from read_parquet('{path}')) using sample 5000"
        with duckdb.connect() as con:
            return [row[0] for row in con.execute(query).fetchall()]

    scored, known, acting = ids(store.SCORES), ids(store.PROFILES), ids(store.NEXT_ACTIONS)
    kinds = [kind for kind in MIX if kind != "next-action" or acting]
    weights = [MIX[kind] for kind in kinds]

    def draw() -> tuple[str, str, Any]:
        kind = random.choices(kinds, weights)[0]
        user = random.choice({"score": scored, "next-action": acting}.get(kind, known))
        if kind == "ask":
            return kind, "/v1/ask", {"question": random.choice(QUESTIONS), "user_id": user}
        paths = {"score": f"/v1/scores/{user}", "search": f"/v1/users?q={user[:-1] or user}"}
        return kind, paths.get(kind, f"/v1/users/{user}/{kind}"), None

    return draw


async def measure(url: str, bare: str, token: str, current: Path, options: argparse.Namespace) -> dict[str, Any]:
    service, reference = Client(url, token), Client(bare, token)
    await service.open()
    await reference.open()
    draw = drawer(current)
    warm: Found = {}
    await drive(service, draw, options.rate, 3, warm)
    await drive(reference, lambda: ("bare", "/v1/scores/u", None), options.rate, 3, warm)
    found: Found = {}
    rates = []
    for _ in range(options.rounds):
        await drive(reference, lambda: ("bare", "/v1/scores/u", None), options.rate, options.seconds, found)
        rates.append(await drive(service, draw, options.rate, options.seconds, found))
    figures = told(found)
    return {
        "rate_wanted": options.rate,
        "rate_achieved": round(float(np.mean(rates)), 1),
        "figures": figures,
        "score_beside_bare": {
            name: round(figures["score"][name] / figures["bare"][name], 2) for name in ("p50_ms", "p95_ms", "p99_ms")
        },
    }


def memory(pid: int) -> dict[str, int]:
    """Megabytes of a process: its own, and files that are mapped and may be dropped at any time. Linux alone."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    found = {line.split(":")[0]: int(line.split()[1]) // 1024 for line in lines if line.startswith(("Rss", "VmHWM"))}
    return {"own_mb": found["RssAnon"], "mapped_mb": found["RssFile"], "peak_mb": found["VmHWM"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, help="make a synthetic snapshot with so many")
    parser.add_argument("--rate", type=float, default=200)
    parser.add_argument("--seconds", type=float, default=10, help="of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare:
        serve_bare()
        return
    random.seed(1)
    token = secrets.token_hex(16)
    with tempfile.TemporaryDirectory() as scratch:
        environment = {"LCM_API_TOKEN": token}
        published = project.beside_warehouse("published")
        if options.users:
            published = Path(scratch) / "x.published"
            publish(published, options.users)
            environment["LCM_WAREHOUSE"] = str(Path(scratch) / "x.duckdb")
        command = [str(Path(sys.executable).with_name("lcm-ml")), "support", "serve", "--port", "0", "--json"]
        before = time.perf_counter()
        with (
            started(command, environment) as (url, process),
            started([sys.executable, __file__, "--bare"], {}) as (bare, _),
        ):
            ready = time.perf_counter() - before
            result = asyncio.run(measure(url, bare, token, published / "current", options))
            result |= {"ready_seconds": round(ready, 1), "server_memory": memory(process.pid)}
    result |= {
        "users": options.users or "the snapshot's",
        "processors": os.cpu_count(),
        "generator_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    RESULTS.mkdir(exist_ok=True)
    named = RESULTS / f"serve{'_synthetic' if options.users else ''}.json"
    named.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))
    errors = sum(row["errors"] for row in result["figures"].values())
    sys.exit(bool(errors or result["figures"]["score"]["p99_ms"] > MOST_P99_MS))


if __name__ == "__main__":
    main()
