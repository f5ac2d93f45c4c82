"""The service itself: what it answers, and how it says so in its OpenAPI document."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Response, Security
from fastapi import Path as PathParameter
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field, create_model
from starlette.exceptions import HTTPException
from starlette.requests import Request

import lcm_ml
from lcm_ml.insights.profile import card
from lcm_ml.service import store
from lcm_ml.service.contract import row_model
from lcm_ml.service.guard import PROBLEM, Guard, problem
from lcm_ml.service.published import Published
from lcm_ml.service.store import NoSnapshotError, Snapshot

PAGE = Path(__file__).parent / "page"
MOST_IDS, MOST_FOUND = 1000, 20
LONGEST_ID, LONGEST_QUESTION = 200, 2000
FOUND_COLUMNS = ("user_id", "stage", "segment_name", "risk_band", "value_decile")

UserId = Annotated[str, Field(min_length=1, max_length=LONGEST_ID, description="As in user_profiles.")]
InPath = Annotated[
    str, PathParameter(min_length=1, max_length=LONGEST_ID, description="The user, as in user_profiles.")
]


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str = Field(description="Always about:blank: the status says it.")
    title: str = Field(description="The status in words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What is wrong, and what to do about it.")
    errors: list[dict[str, Any]] = Field(
        [], description="Where a request is malformed: place and reason of each fault."
    )


class Answer(BaseModel):
    """What every answer carries. All of an answer comes from this one snapshot."""

    snapshot_id: str = Field(description="The published snapshot that was read.")
    as_of_date: date | None = Field(description="Only what happened strictly before this shop day is in the snapshot.")


class Health(Answer):
    """That the service answers, and from what."""

    status: str = Field(description="ok; otherwise the answer is 503.")
    created_at: datetime = Field(description="When the snapshot was published, UTC.")
    age_seconds: int = Field(description="Seconds since then.")
    version: str = Field(description="Of lcm-ml.")


class UserIds(BaseModel):
    """Whose scores are wanted."""

    model_config = ConfigDict(extra="forbid")
    user_ids: list[UserId] = Field(min_length=1, max_length=MOST_IDS, description=f"At most {MOST_IDS}.")


class FoundUser(BaseModel):
    """A user in a list."""

    user_id: str = Field(description="The user.")
    stage: str | None = Field(None, description="The lifecycle stage.")
    segment_name: str | None = Field(None, description="The segment.")
    risk_band: str | None = Field(None, description="high, medium or low; null where there is no score.")
    value_decile: int | None = Field(None, description="1 is the most valuable.")


class FoundUsers(Answer):
    """Users whose id starts so."""

    users: list[FoundUser] = Field(description=f"The first {MOST_FOUND}, in the order of their ids.")


class CardLine(BaseModel):
    """A line of a card."""

    label: str = Field(description="What.")
    text: str = Field(description="What is known of it, in words.")


class CardPart(BaseModel):
    """Lines under one heading."""

    title: str = Field(description="The heading.")
    lines: list[CardLine] = Field(description="Its lines; what is not known is left out.")


class Question(BaseModel):
    """A question for the support assistant."""

    model_config = ConfigDict(extra="forbid")
    question: str = Field(min_length=1, max_length=LONGEST_QUESTION, description="In English or Chinese.")
    user_id: UserId | None = Field(None, description="Who asks; null for a general answer.")


class Citation(BaseModel):
    """An article that was found."""

    article_id: str = Field(description="The article.")
    intent: str | None = Field(description="What it is about.")
    title: str = Field(description="Its title.")
    passage: str = Field(description="The sentences that answer best.")
    score: float = Field(description="0 to 1.")


class SupportAnswer(Answer):
    """What the assistant says, or that no article fits."""

    language: str = Field(description="en, zh, other or none; answers to the latter two are in English.")
    intent: str = Field(description="What the question is about; unknown where that is not sure.")
    intent_probability: float | None = Field(description="Null where the language is not known.")
    is_refused: bool = Field(description="No article fits well enough.")
    text: str = Field(description="For the user.")
    agent_note: str = Field(description="For the support agent; empty where nobody is known.")
    facts: dict[str, str] = Field(description="Every fact that text and note hold.")
    citations: list[Citation] = Field(description="The best first.")
    user_known: bool = Field(description="Whether the asker's facts were used.")
    notes: list[str] = Field(description="What to know about the answer.")


ERRORS = {
    400: "The host name is not one of this service's, or the body is not JSON.",
    401: "The token is missing or wrong.",
    404: "There is no such user, or nothing is known of it.",
    422: "The request is malformed; `errors` names the places.",
    429: "Too many requests; Retry-After says how many seconds to wait.",
    503: "There is no snapshot that may be served; `detail` says why.",
}


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    schema = {"$ref": "#/components/schemas/Problem"}
    told: dict[int | str, dict[str, Any]] = {
        status: {"description": ERRORS[status], "content": {PROBLEM: {"schema": schema}}} for status in statuses
    }
    if 429 in told:
        seconds = {"description": "Seconds to wait.", "schema": {"type": "integer"}}
        told[429]["headers"] = {"Retry-After": seconds}
    return told


def create_app(folder: Path, token: str, hosts: frozenset[str], rate: int) -> FastAPI:
    """The service over a published folder.

    Args:
        folder: holds `current`.
        token: what clients have to show.
        hosts: names that a request may be addressed to.
        rate: requests a minute.
    """
    published = Published(folder)
    asking = asyncio.Semaphore(1)  # an answer computes for some ms: more at once would only slow the look-ups

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with contextlib.suppress(NoSnapshotError):
            await published.snapshot()
        yield

    app = FastAPI(
        title="lcm",
        version=lcm_ml.__version__,
        summary="What is known of users, read from the published snapshot.",
        docs_url=None,  # they load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    app.add_middleware(Guard, token=token, hosts=hosts, rate=rate)
    app.add_exception_handler(NoSnapshotError, _no_snapshot)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _malformed)
    _pages(app)

    current = Depends(published.snapshot)
    secured = [Security(HTTPBearer(auto_error=False, description="The token of LCM_API_TOKEN."))]
    score, recommendation = row_model(store.SCORES), row_model("recommendations_latest")
    of_profile = {name: row_model(relation) for name, (relation, _) in store.PROFILE_LISTS.items()}

    def guarded(model: type[BaseModel], tag: str, *, of_user: bool) -> dict[str, Any]:
        """What a route is declared with that needs the token; `of_user`: its user may be unknown."""
        unknown = [404] if of_user else []
        errors = _errors(400, 401, *unknown, 422, 429, 503)
        return {"response_model": model, "responses": errors, "dependencies": secured, "tags": [tag]}

    def answer(name: str, doc: str, **fields: Any) -> type[BaseModel]:
        return create_model(name, __base__=Answer, __doc__=doc, **fields)

    one_score = answer("UserScore", "A user's churn score.", score=(score, ...))
    many_scores = answer(
        "UserScores",
        "Churn scores of many users.",
        scores=(_listed(score), Field(description="In the order of the request.")),
        missing=(list[str], Field(description="Users without a score.")),
    )
    whole_profile = answer(
        "UserProfile",
        "All that is known of a user.",
        profile=(row_model(store.PROFILES), ...),
        card=(list[CardPart], Field(description="The same in words, as lcm-ml profile prints it.")),
        **{name: (_listed(model), Field(description=model.__doc__)) for name, model in of_profile.items()},
    )
    recommended = answer(
        "Recommendations",
        "What to offer a user next.",
        recommendations=(_listed(recommendation), Field(description="The best first.")),
    )
    what_next = answer(
        "UserNextAction", "What to do next with a user.", next_action=(row_model(store.NEXT_ACTIONS), ...)
    )

    @app.get("/v1/health", response_model=Health, responses=_errors(400, 429, 503), tags=["service"])
    async def health(snapshot: Snapshot = current) -> dict[str, Any]:
        """Whether there is a snapshot to answer from, which, and how old it is. Needs no token."""
        age = datetime.now(UTC) - snapshot.created_at
        return _envelope(snapshot) | {
            "status": "ok",
            "created_at": snapshot.created_at,
            "age_seconds": max(0, int(age.total_seconds())),
            "version": lcm_ml.__version__,
        }

    @app.get("/v1/scores/{user_id:path}", **guarded(one_score, "scores", of_user=True))
    async def score_of(user_id: InPath, snapshot: Snapshot = current) -> dict[str, Any]:
        """The churn score of one user."""
        rows = snapshot.users[store.SCORES].of(user_id)
        if not rows:
            _require_user(snapshot, user_id)
            raise HTTPException(404, "this user has no churn score: it did not buy within the active window")
        return _envelope(snapshot) | {"score": rows[0]}

    @app.post("/v1/scores", **guarded(many_scores, "scores", of_user=False))
    async def scores_of(wanted: UserIds, snapshot: Snapshot = current) -> dict[str, Any]:
        """The churn scores of up to a thousand users."""
        found = {user_id: snapshot.users[store.SCORES].of(user_id) for user_id in wanted.user_ids}
        return _envelope(snapshot) | {
            "scores": [rows[0] for rows in found.values() if rows],
            "missing": [user_id for user_id, rows in found.items() if not rows],
        }

    @app.get("/v1/users", **guarded(FoundUsers, "users", of_user=False))
    async def search(
        q: Annotated[str, Query(min_length=1, max_length=LONGEST_ID, description="How the id starts.")],
        snapshot: Snapshot = current,
    ) -> dict[str, Any]:
        """Users whose id starts with `q`; upper and lower case are tried too."""
        profiles = snapshot.users[store.PROFILES]
        found = {
            row["user_id"]: {name: row.get(name) for name in FOUND_COLUMNS}
            for prefix in dict.fromkeys((q, q.upper(), q.lower()))
            for row in profiles.starting_with(prefix, MOST_FOUND)
        }
        return _envelope(snapshot) | {"users": [found[name] for name in sorted(found)][:MOST_FOUND]}

    @app.get("/v1/users/{user_id:path}/profile", **guarded(whole_profile, "users", of_user=True))
    async def profile_of(user_id: InPath, snapshot: Snapshot = current) -> dict[str, Any]:
        """All that is known of one user, as rows and in words. Sensitive attributes are marked in the card."""
        found = snapshot.profile(user_id)
        if found is None:
            raise HTTPException(404, NO_USER)
        told = [
            {"title": part.title, "lines": [{"label": label, "text": text} for label, text in part.lines]}
            for part in card(found)
        ]
        return _envelope(snapshot) | found | {"card": told}

    @app.get("/v1/users/{user_id:path}/recommendations", **guarded(recommended, "users", of_user=True))
    async def recommendations_of(user_id: InPath, snapshot: Snapshot = current) -> dict[str, Any]:
        """What to offer one user next, with the reason."""
        rows = snapshot.users["recommendations_latest"].of(user_id)
        if not rows:
            _require_user(snapshot, user_id)
        return _envelope(snapshot) | {"recommendations": rows}

    @app.get("/v1/users/{user_id:path}/next-action", **guarded(what_next, "users", of_user=True))
    async def next_action_of(user_id: InPath, snapshot: Snapshot = current) -> dict[str, Any]:
        """What to do next with one user, why, and whether anything forbids it."""
        _require_user(snapshot, user_id)
        if store.NEXT_ACTIONS not in snapshot.users:
            raise HTTPException(404, f"this snapshot has no {store.NEXT_ACTIONS}")
        rows = snapshot.users[store.NEXT_ACTIONS].of(user_id)
        if not rows:
            raise HTTPException(404, "no next action is known for this user")
        return _envelope(snapshot) | {"next_action": rows[0]}

    @app.post("/v1/ask", **guarded(SupportAnswer, "support", of_user=False))
    async def ask(asked: Question, snapshot: Snapshot = current) -> dict[str, Any]:
        """Answer a question from the shop's articles and the user's own facts, or say that no article fits."""
        facts = snapshot.facts(asked.user_id) if asked.user_id else None
        async with asking:
            told = await asyncio.to_thread(snapshot.assistant.ask_as_rows, asked.question, asked.user_id, facts)
        return _envelope(snapshot) | told

    _describe(app)
    return app


def _listed(model: type[BaseModel]) -> Any:
    return list[model]  # type: ignore[valid-type]


NO_USER = "there is no such user in user_profiles"


def _envelope(snapshot: Snapshot) -> dict[str, Any]:
    return {"snapshot_id": snapshot.snapshot_id, "as_of_date": snapshot.as_of_date}


def _require_user(snapshot: Snapshot, user_id: str) -> None:
    if not snapshot.users[store.PROFILES].of(user_id):
        raise HTTPException(404, NO_USER)


def _pages(app: FastAPI) -> None:
    for path, name, kind in (
        ("/", "page.html", "text/html"),
        ("/page.js", "page.js", "text/javascript"),
        ("/page.css", "page.css", "text/css"),
    ):
        app.add_route(path, _page((PAGE / name).read_bytes(), kind), include_in_schema=False)


def _page(content: bytes, kind: str) -> Callable[[Request], Awaitable[Response]]:
    async def page(_: Request) -> Response:
        return Response(content, media_type=kind)

    return page


def _describe(app: FastAPI) -> None:
    """Complete the OpenAPI document: errors refer to a schema that no endpoint returns otherwise."""
    document = app.openapi()
    schemas = document["components"]["schemas"]
    schemas["Problem"] = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)


async def _no_snapshot(_: Request, error: Exception) -> Response:
    assert isinstance(error, NoSnapshotError)
    return _problem(503, f"{error.message}; {error.next_step}", {"retry-after": "5"})


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _problem(error.status_code, error.detail, error.headers)


async def _malformed(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    # What was sent is not repeated: it may be about a person.
    faults = [{"place": ".".join(map(str, fault["loc"])), "reason": fault["msg"]} for fault in error.errors()]
    return _problem(422, "the request is malformed", errors=faults)


def _problem(status: int, detail: str, headers: Any = None, **more: Any) -> Response:
    return Response(problem(status, detail, **more), status, headers, PROBLEM)
