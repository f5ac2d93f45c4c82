"""The service: what it answers from a snapshot, whom it refuses, and what it does while snapshots come and go."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from fastapi import FastAPI
from lifecycle import lcm, query
from simulated_snapshot import point_at, publish

from lcm_ml.service import app as service
from lcm_ml.service import published as swapping
from lcm_ml.service import store
from lcm_ml.service.guard import STRANGERS_A_MINUTE, Bucket

TOKEN = "a-token-of-this-test"
HOSTS = frozenset(("127.0.0.1", "localhost"))
HOSTILE = "<script>alert(1)</script>/&\"'"
USER = "U0000007"


class Client:
    """Calls an app in this process, all on one event loop, as a server would."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self.runner = asyncio.Runner()

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> "Answer":
        return self.runner.run(self.ask(method, path, body, **headers))

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> "Answer":
        given = {"host": "127.0.0.1:8417", "authorization": f"Bearer {TOKEN}"} | headers
        content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        if content:
            given = {"content-type": "application/json", "content-length": str(len(content))} | given
        plain, _, search = path.partition("?")
        scope = {
            "type": "http", "method": method, "path": urllib.request.unquote(plain), "raw_path": plain.encode(),
            "query_string": search.encode(), "scheme": "http", "http_version": "1.1", "root_path": "",
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in given.items() if value],
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8417),
        }  # fmt: skip
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": content, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        return Answer(sent)


class Answer:
    def __init__(self, sent: list[Any]) -> None:
        self.status = sent[0]["status"]
        self.headers = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
        self.body = b"".join(message.get("body", b"") for message in sent[1:])

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def client_of(folder: Path, rate: int = 1_000_000) -> Client:
    return Client(service.create_app(folder, TOKEN, HOSTS, rate))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shop") / "x.published"
    publish(path, 50, user_id=HOSTILE, title=HOSTILE)
    return path


@pytest.fixture(scope="module")
def client(folder: Path) -> Client:
    return client_of(folder)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Snapshots without an assistant, which takes seconds to build and is not asked here."""
    monkeypatch.setattr(store, "build_assistant", lambda *_: None)
    monkeypatch.setattr(swapping, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(swapping, "SWAP_SECONDS", 30.0)  # a busy machine must not fail a test


def test_every_answer_names_its_snapshot_and_date(client: Client, folder: Path) -> None:
    current = (folder / "current").resolve().name
    for method, path, body in (
        ("GET", "/v1/health", None), ("GET", f"/v1/scores/{USER}", None), ("POST", "/v1/scores", {"user_ids": [USER]}),
        ("GET", "/v1/users?q=U", None), ("GET", f"/v1/users/{USER}/profile", None),
        ("GET", f"/v1/users/{USER}/recommendations", None), ("GET", f"/v1/users/{USER}/next-action", None),
        ("POST", "/v1/ask", {"question": "Where is my parcel?", "user_id": USER}),
    ):  # fmt: skip
        answer = client(method, path, body)
        assert answer.status == 200, (path, answer.body)
        assert (answer.json["snapshot_id"], answer.json["as_of_date"]) == (current, "2026-01-01")
        assert answer.headers["cache-control"] == "no-store"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_list_of_users_comes_back_in_its_order_with_those_that_are_missing(client: Client) -> None:
    wanted = ["U0000009", "nobody", "U0000003"]
    found = client("POST", "/v1/scores", {"user_ids": wanted}).json
    assert [row["user_id"] for row in found["scores"]] == ["U0000009", "U0000003"]
    assert found["missing"] == ["nobody"]
    assert client("POST", "/v1/scores", {"user_ids": ["u"] * 1001}).status == 422
    assert client("POST", "/v1/scores", {"user_ids": []}).status == 422


def test_search_is_by_prefix_whatever_the_case_and_has_twenty_at_most(client: Client) -> None:
    ten = [f"U000001{digit}" for digit in range(10)]
    for q in ("U000001", "u000001"):
        assert [user["user_id"] for user in client("GET", f"/v1/users?q={q}").json["users"]] == ten
    assert len(client("GET", "/v1/users?q=U").json["users"]) == 20
    assert client("GET", "/v1/users?q=V").json["users"] == []
    assert client("GET", "/v1/users").status == 422


def test_ids_and_texts_of_the_shop_come_back_as_they_are(client: Client) -> None:
    user = urllib.request.quote(HOSTILE, safe="")
    assert client("GET", f"/v1/scores/{user}").json["score"]["user_id"] == HOSTILE
    assert client("GET", f"/v1/users/{user}/profile").json["profile"]["user_id"] == HOSTILE
    assert client("GET", f"/v1/users/{user}/recommendations").json["recommendations"][0]["title"] == HOSTILE


def test_only_who_shows_the_token_is_let_in(client: Client) -> None:
    for shown in ("", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", TOKEN):
        answer = client("GET", f"/v1/scores/{USER}", authorization=shown)
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert answer.headers["content-type"] == "application/problem+json"
    assert client("GET", f"/v1/scores/{USER}", authorization=f"bearer {TOKEN}").status == 200
    for path in ("/", "/page.js", "/page.css", "/v1/health", "/openapi.json"):
        assert client("GET", path, authorization="").status == 200


def test_other_host_names_are_refused_against_dns_rebinding(client: Client) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example", "", "localhost.:80"):
        assert client("GET", "/v1/health", host=host).status == 400
    for host in ("localhost", "LOCALHOST:1", "127.0.0.1:99"):
        assert client("GET", "/v1/health", host=host).status == 200


def test_who_asks_too_often_is_told_how_long_to_wait(folder: Path, quick: None) -> None:
    often = client_of(folder, rate=12)  # two at once
    statuses = [often("GET", f"/v1/scores/{USER}").status for _ in range(3)]
    assert statuses == [200, 200, 429]
    refused = often("GET", f"/v1/scores/{USER}")
    assert 1 <= int(refused.headers["retry-after"]) <= 5
    # Guesses at the token have a limit of their own, and shut nobody out who has it.
    guesses = [often("GET", "/v1/users?q=U", authorization="Bearer guess").status for _ in range(STRANGERS_A_MINUTE)]
    assert set(guesses) == {401, 429}


def test_the_bucket_fills_with_time() -> None:
    now = [0.0]
    bucket = Bucket(60, clock=lambda: now[0])
    assert [bucket.take() for _ in range(11)] == [0] * 10 + [1]
    now[0] = 3.0
    assert [bucket.take() for _ in range(4)] == [0, 0, 0, 1]
    now[0] = 1000.0
    assert [bucket.take() for _ in range(11)] == [0] * 10 + [1]


def test_malformed_requests_are_told_where_and_not_repeated(client: Client) -> None:
    for body in ({"question": ""}, {"question": "q" * 2001}, {"question": 1}, {"question": "x", "secret-9": 1}, b"{"):
        answer = client("POST", "/v1/ask", body)
        assert answer.status == 422
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json["errors"]
    assert client("POST", "/v1/ask", b"x" * 1_000_001).status == 413
    assert client("POST", "/v1/ask", {"question": "x"}, transfer_encoding="chunked").status == 411
    assert client("GET", "/v1/nothing").status == 404
    assert client("DELETE", "/v1/health").headers["allow"] == "GET"


def test_unknown_users_and_what_is_not_known_of_users(folder: Path, tmp_path: Path, quick: None) -> None:
    publish(tmp_path, 5, without=(store.NEXT_ACTIONS, store.FACTS, store.ARTICLES))
    bare = client_of(tmp_path)
    for path in ("scores/nobody", "users/nobody/profile", "users/nobody/recommendations", "users/nobody/next-action"):
        assert "no such user" in bare("GET", f"/v1/{path}").json["detail"]
    answer = bare("GET", "/v1/users/U0000001/next-action")
    assert (answer.status, answer.json["detail"]) == (404, "this snapshot has no next_best_actions_latest")


def test_nothing_published_and_what_is_damaged_is_503_with_the_reason(tmp_path: Path, quick: None) -> None:
    client = client_of(tmp_path)
    answer = client("GET", "/v1/health")
    assert answer.status == 503
    assert "nothing was published yet" in answer.json["detail"]
    first = publish(tmp_path, 5)
    assert client("GET", "/v1/health").json["snapshot_id"] == first
    damaged = publish(tmp_path, 5)
    with (tmp_path / "current" / "user_contacts.parquet").open("ab") as file:
        file.write(b"x")
    answer = client("GET", f"/v1/scores/{USER}")
    assert answer.status == 503
    assert "user_contacts.parquet" in answer.json["detail"]
    assert str(tmp_path) not in answer.json["detail"]
    point_at(tmp_path, first)
    assert client("GET", "/v1/health").json["snapshot_id"] == first
    (tmp_path / "current" / "manifest.json").write_text("{}", encoding="utf-8")
    assert client("GET", "/v1/health").status == 503
    point_at(tmp_path, damaged)
    shutil.rmtree(tmp_path / "snapshots" / damaged)
    answer = client("GET", "/v1/health")
    assert answer.status == 503
    assert "gone" in answer.json["detail"]


def test_the_request_after_a_swap_sees_the_new_snapshot_and_no_answer_mixes_two(tmp_path: Path, quick: None) -> None:
    client = client_of(tmp_path)
    ids = [publish(tmp_path, 20, segment_name="round 0", title="round 0", stage="round 0")]
    told = {ids[0]: "round 0"}

    async def ask() -> dict[str, Any]:
        return (await client.ask("GET", f"/v1/users/{USER}/profile")).json

    async def swap(place: int) -> None:
        text = f"round {place}"
        new = await asyncio.to_thread(publish, tmp_path, 20, (), segment_name=text, title=text, stage=text)
        told[new] = text
        assert (await ask())["snapshot_id"] == new

    async def ask_on(answers: list[dict[str, Any]], swaps: "asyncio.Task[None]") -> None:
        while not swaps.done():
            answers.append(await ask())
            await asyncio.sleep(0)

    async def everything() -> list[dict[str, Any]]:
        answers = [await ask()]

        async def all_swaps() -> None:
            for place in range(1, 5):
                await swap(place)

        swaps = asyncio.create_task(all_swaps())
        await asyncio.gather(swaps, *(ask_on(answers, swaps) for _ in range(4)))
        return answers

    answers = client.runner.run(everything())
    assert len({answer["snapshot_id"] for answer in answers}) == 5
    for answer in answers:
        text = told[answer["snapshot_id"]]
        assert answer["profile"]["segment_name"] == text
        assert {row["title"] for row in answer["recommendations"]} == {text}
        assert {row["stage"] for row in answer["stages"]} == {text}


def test_a_large_snapshot_is_loaded_while_the_old_one_answers(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    client = client_of(tmp_path)
    old = publish(tmp_path, 5)
    assert client("GET", "/v1/health").json["snapshot_id"] == old
    loaded = threading.Event()
    load = swapping.load_snapshot

    def slow(*arguments: Any) -> store.Snapshot:
        assert loaded.wait(30)
        return load(*arguments)

    monkeypatch.setattr(swapping, "load_snapshot", slow)
    monkeypatch.setattr(swapping, "SWAP_SECONDS", 0.05)
    new = publish(tmp_path, 5)
    assert client("GET", "/v1/health").json["snapshot_id"] == old
    loaded.set()
    monkeypatch.setattr(swapping, "SWAP_SECONDS", 30)
    assert client("GET", "/v1/health").json["snapshot_id"] == new


def test_the_assistant_is_kept_while_the_articles_are_the_same(folder: Path) -> None:
    first = store.load_snapshot((folder / "current").resolve())
    again = publish(folder, 5)
    second = store.load_snapshot(folder / "snapshots" / again, first)
    assert second.snapshot_id != first.snapshot_id
    assert second.assistant is first.assistant
    point_at(folder, first.snapshot_id)


def test_a_failure_tells_neither_client_nor_log_whom_it_was_about(
    folder: Path, quick: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: store.UserRows, user_id: str) -> None:
        raise KeyError(user_id)

    client = client_of(folder)
    monkeypatch.setattr(store.UserRows, "of", broken)
    answer = client("GET", f"/v1/scores/{USER}")
    assert answer.status == 500
    assert caplog.messages
    for text in (answer.body.decode(), caplog.text):
        assert USER not in text
    assert "KeyError" in caplog.text


def test_it_says_what_the_commands_say(sample_run: Path) -> None:
    """On the published sample: the card of `lcm-ml profile`, the scores of the warehouse, an answer with facts."""
    client = client_of(sample_run.parent / f"{sample_run.stem}.published")
    scores = query(sample_run, "select * from serving.churn_scores_latest order by user_id").to_dicts()
    found = client("POST", "/v1/scores", {"user_ids": [row["user_id"] for row in scores]}).json
    assert found["missing"] == []
    assert [row["churn_probability"] for row in found["scores"]] == [row["churn_probability"] for row in scores]
    user = query(
        sample_run, "select user_id from serving.user_profiles where next_products is not null order by user_id limit 1"
    ).item()
    wanted = lcm(sample_run, "profile", user)
    answer = client("GET", f"/v1/users/{user}/profile").json
    for part in ("profile", "interests", "reasons", "recommendations", "stages", "contacts", "hints"):
        got, known = answer[part], wanted[part]
        for mine, theirs in zip(
            [got] if part == "profile" else got, [known] if part == "profile" else known, strict=True
        ):
            # In tables instants are UTC without saying so; the service says so.
            assert {name: mine[name] for name in theirs if not name.endswith("_at")} == pytest.approx(
                {name: value for name, value in theirs.items() if not name.endswith("_at")}
            )
    lines = {line["label"]: line["text"] for part in answer["card"] for line in part["lines"]}
    assert lines["stage"].startswith(wanted["profile"]["stage"])
    told = client("POST", "/v1/ask", {"question": "I got charged twice!", "user_id": user}).json
    asked = lcm(sample_run, "support", "ask", "I got charged twice!", "--user", user)
    assert (told["facts"], told["intent"], told["is_refused"]) == (asked["facts"], "payment", False)
    assert told["citations"][0]["article_id"] == asked["citations"][0]["article_id"]


@pytest.fixture
def serve(folder: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """`lcm-ml support serve` in a process of its own."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, **environment: str) -> "subprocess.Popen[str]":
        given = os.environ | {"LCM_WAREHOUSE": str(folder.with_suffix(".duckdb"))} | environment
        command = [str(Path(sys.executable).with_name("lcm-ml")), "support", "serve", *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=given)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_the_command_serves_and_ends_when_it_is_told_to(serve: Callable[..., "subprocess.Popen[str]"]) -> None:
    process = serve("--port", "0", "--json")
    assert process.stdout
    lines = [process.stdout.readline() for _ in range(5)]
    url = json.loads("".join(lines))["url"]
    with urllib.request.urlopen(f"{url}/v1/health") as answer:
        assert json.load(answer)["status"] == "ok"
    process.send_signal(signal.SIGTERM)
    rest, told = process.communicate(timeout=20)
    assert (process.returncode, rest) == (0, "")
    # A new token is shown once, and not in the document, which may go to a file.
    assert told.count("token") == 1
    assert "new, shown once" in told


@pytest.mark.parametrize(
    ("arguments", "token", "told"),
    [
        (("--host", "0.0.0.0"), TOKEN, "--allow-remote"),
        ((), "short", "LCM_API_TOKEN"),
        ((), "with space " * 3, "LCM_API_TOKEN"),
    ],
)
def test_what_would_be_unsafe_is_wrong_use(
    cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], token: str, told: str
) -> None:
    monkeypatch.setenv("LCM_API_TOKEN", token)
    result = cli("support", "serve", "--json", *arguments)
    assert result.exit_code == 2
    error = json.loads(result.stdout)
    assert told in error["error"] + error["next_step"]
    assert "short" not in result.output


def test_without_the_extra_it_says_what_to_install(cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.setenv("LCM_API_TOKEN", TOKEN)
    result = cli("support", "serve", "--json")
    assert result.exit_code == 1
    assert "pip install 'lcm-ml[serve]'" in json.loads(result.stdout)["next_step"]
