"""The OpenAPI document against what the service does, on requests that schemathesis makes up."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given
from hypothesis import settings as example_settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error, positive_data_acceptance
from simulated_snapshot import publish

from lcm_ml.service.app import create_app

TOKEN = "a-token-of-this-test"
SHOWN = {"Authorization": f"Bearer {TOKEN}"}
HOSTS = frozenset(("127.0.0.1", "localhost", "testserver"))
OPERATIONS = (
    "GET /v1/health", "GET /v1/scores/{user_id}", "POST /v1/scores", "GET /v1/users", "GET /v1/users/{user_id}/profile",
    "GET /v1/users/{user_id}/recommendations", "GET /v1/users/{user_id}/next-action", "POST /v1/ask",
)  # fmt: skip


def api(folder: Path) -> dict[str, Any]:
    """The operations of the service over a folder, by name, as its own OpenAPI document has them."""
    document = schemathesis.openapi.from_asgi("/openapi.json", create_app(folder, TOKEN, HOSTS, 10_000_000))
    return {found.ok().label: found.ok() for found in document.get_all_operations()}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("shop") / "x.published"
    publish(folder, 10)
    return api(folder)


@pytest.fixture(scope="module")
def unpublished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return api(tmp_path_factory.mktemp("none") / "x.published")


def try_out(cases: Any, check: Callable[[Any], None], examples: int) -> None:
    """Let schemathesis make up requests and look at each answer."""

    @example_settings(max_examples=examples, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
    @given(cases)
    def run(case: Any) -> None:
        check(case)

    run()


def test_the_document_has_these_operations(published: dict[str, Any]) -> None:
    assert set(published) == set(OPERATIONS)


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize("name", OPERATIONS)
def test_answers_are_as_the_document_says(published: dict[str, Any], name: str, mode: GenerationMode) -> None:
    """By all checks: what is malformed is refused, what is well formed is not, and the token is asked for."""
    if mode is GenerationMode.NEGATIVE and name == "GET /v1/health":
        pytest.skip("it takes nothing that could be malformed")
    cases = published[name].as_strategy(generation_mode=mode)
    try_out(cases, lambda case: case.call_and_validate(headers=SHOWN), 10)


@pytest.mark.parametrize("name", [name for name in OPERATIONS if "{user_id}" in name])
def test_so_are_answers_about_users_that_exist(published: dict[str, Any], name: str) -> None:
    def check(case: Any) -> None:
        case.path_parameters = {"user_id": "U0000003"}
        assert case.call_and_validate(headers=SHOWN).status_code == 200

    try_out(published[name].as_strategy(), check, 3)


@pytest.mark.parametrize("name", OPERATIONS)
def test_so_are_answers_without_a_snapshot(unpublished: dict[str, Any], name: str) -> None:
    def check(case: Any) -> None:
        answer = case.call(headers=SHOWN)
        case.validate_response(answer, excluded_checks=[not_a_server_error, positive_data_acceptance])
        assert answer.status_code == 503

    try_out(unpublished[name].as_strategy(), check, 5)
