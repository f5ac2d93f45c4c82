"""Pseudonymous user ids: HMAC as Python has it, the same user everywhere, and the id nowhere."""

import hashlib
import hmac
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from click.testing import Result
from hypothesis import given, settings
from hypothesis import strategies as st
from lifecycle import query

from lcm_ml.errors import LcmError
from lcm_ml.sources.pseudonyms import KEY_VARIABLE, Pseudonyms, user_columns
from lcm_ml.warehouse.contracts import raw_inputs

Cli = Callable[..., Result]
KEY = "correct horse battery staple"
MEMORY = duckdb.connect()
TIME = "2025-01-01 10:00:00"
EVENT = {"event_id": "e1", "user_id": "alice", "event_time": TIME, "event_type": "view", "amount": "1"}


@pytest.fixture(autouse=True)
def with_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)


def expected(user_id: str, key: str = KEY) -> str:
    return hmac.new(key.encode(), user_id.encode(), hashlib.sha256).hexdigest()[:32]


def write(path: Path, *rows: dict[str, Any]) -> Path:
    frame = pl.DataFrame(rows, infer_schema_length=None)
    if path.suffix == ".csv":
        frame.write_csv(path)
    elif path.suffix == ".parquet":
        frame.write_parquet(path)
    else:
        frame.write_ndjson(path)
    return path


def load(cli: Cli, *arguments: object) -> Result:
    return cli("load", "files", *arguments, "--pseudonymise")


def loaded(cli: Cli, *arguments: object) -> Result:
    result = load(cli, *arguments)
    assert result.exit_code == 0, result.output
    return result


def everything(path: Path) -> str:
    """All that the warehouse holds, and its bytes, as text."""
    with duckdb.connect(str(path), read_only=True) as con:
        names = con.execute("select table_schema || '.' || table_name from information_schema.tables").fetchall()
        rows = [con.execute(f"select * from {name}").fetchall() for (name,) in names]
    assert len(rows) > 5
    return repr(rows) + path.read_bytes().decode("latin-1")


@settings(max_examples=100, deadline=None)
@given(
    ids=st.lists(st.text(max_size=80), min_size=1, max_size=5),
    key=st.text(min_size=1, max_size=150),
    id_case=st.sampled_from(["keep", "lower", "upper"]),
)
def test_it_is_hmac_as_python_has_it(ids: list[str], key: str, id_case: str) -> None:
    key_bytes = key.encode("utf-8", "surrogatepass")
    pseudonyms = Pseudonyms(key_bytes, id_case)
    folded = {"keep": "trim(id)", "lower": "lower(trim(id))", "upper": "upper(trim(id))"}[id_case]
    pseudonyms.prepare(MEMORY)
    rows = MEMORY.execute(f"select {folded}, {pseudonyms.sql('id')} from (select unnest(?) as id)", [ids]).fetchall()
    assert len(rows) == len(ids)
    for cleaned, pseudonym in rows:
        digest = hmac.new(key_bytes, cleaned.encode(), hashlib.sha256).hexdigest()[:32]
        assert pseudonym == (digest if cleaned else None)


def test_a_known_value_of_the_standard() -> None:
    """RFC 4231, test cases 2 and 6: a short key, and one that is longer than a block."""
    assert Pseudonyms(b"Jefe").of("what do ya want for nothing?") == "5bdcc146bf60754e6a042426089575c7"
    text = "Test Using Larger Than Block-Size Key - Hash Key First"
    assert Pseudonyms(b"\xaa" * 131).of(text) == "60e431591ee0b67f0d8a26aacbf5b77f"


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_padded_ids_are_the_same_user(cli: Cli, warehouse: Path, tmp_path: Path, suffix: str) -> None:
    rows = [EVENT | {"event_id": str(n), "user_id": user} for n, user in enumerate(["alice", " alice ", "Alice", "  "])]
    loaded(cli, "--events", write(tmp_path / f"e.{suffix}", *rows))
    found = query(warehouse, "select user_id from raw.events order by event_id")["user_id"].to_list()
    assert found == [expected("alice"), expected("alice"), expected("Alice"), None]


def test_the_var_id_case_folds_before_the_hash(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "models" / "ml").mkdir(parents=True)
    (tmp_path / "dbt_project.yml").write_text("vars: {id_case: lower}")
    monkeypatch.setenv("LCM_PROJECT_DIR", str(tmp_path))
    pseudonyms = Pseudonyms.from_environment()
    assert pseudonyms.of(" ALICE") == pseudonyms.of("alice") == expected("alice")
    assert Pseudonyms(KEY.encode(), "upper").of("alice") == expected("ALICE").upper()


def test_no_table_keeps_an_id(cli: Cli, warehouse: Path, tmp_path: Path) -> None:
    """Every raw table, rejected rows with columns that are not loaded, and constants: the id is nowhere."""
    ids = {"user": "Secret-Alice-4711", "visitor": "Secret-Visitor-0815"}
    user = {"user_id": ids["user"]}
    tables = {
        "events": [
            EVENT | user, EVENT | user | {"event_id": "e2", "user_id": ids["visitor"]},
            EVENT | user | {"event_id": "e3", "event_time": "never", "mail": f"{ids['user']}@example.org"},
        ],
        "users": [user | {"signed_up_at": TIME}, user | {"signed_up_at": "yesterday"}],
        "campaign_touches": [user | {"campaign_id": "c", "touched_at": TIME}],
        "support_tickets": [user | {"ticket_id": "t", "created_at": TIME, "text": "help"}],
        "identities": [user | {"anonymous_id": ids["visitor"], "linked_at": TIME}],
    }  # fmt: skip
    arguments: list[object] = []
    for table, rows in tables.items():
        for suffix in ("csv", "jsonl"):
            written = [{"mail": None} | row for row in rows] if table == "events" else rows
            arguments += [f"--{table.replace('_', '-')}", write(tmp_path / f"{table}.{suffix}", *written)]
    loaded(cli, *arguments)
    content = everything(warehouse)
    assert expected(ids["user"]) in content
    for secret in (*ids.values(), KEY):
        assert secret not in content
    for table in tables:
        for column in user_columns(raw_inputs()[table]):
            found = set(query(warehouse, f"select {column} from raw.{table}")[column])
            assert found <= {expected(user) for user in ids.values()}
    originals = query(warehouse, "select original from raw.rejected_rows where table_name = 'events'")["original"]
    assert len(originals) == 2
    for original in originals:
        shown = json.loads(original)
        assert (shown["user_id"], shown["event_time"]) == (expected(ids["user"]), "never")
        assert "mail" not in shown


def test_constants_are_hidden_too(cli: Cli, warehouse: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "e.csv", {name: EVENT[name] for name in ("event_id", "event_time", "event_type")})
    loaded(cli, "--events", path, "--set", "events.user_id=Secret-Bob", "--set", "events.channel=app")
    assert query(warehouse, "select user_id, channel from raw.events").row(0) == (expected("Secret-Bob"), "app")
    assert "Secret-Bob" not in everything(warehouse)


def test_every_column_of_a_user_is_one(cli: Cli) -> None:
    found = {table.name: user_columns(table) for table in raw_inputs().values() if user_columns(table)}
    assert found == {
        "events": ["user_id"], "users": ["user_id"], "campaign_touches": ["user_id"], "support_tickets": ["user_id"],
        "identities": ["anonymous_id", "user_id"],
    }  # fmt: skip


def test_an_id_that_is_loaded_twice_is_refused(cli: Cli, warehouse: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "e.csv", EVENT)
    result = load(cli, "--events", path, "--map", "events.session_id=user_id")
    assert result.exit_code == 1
    assert "session_id" in result.output


def test_derived_event_ids_need_the_key(
    cli: Cli, warehouse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{name: value for name, value in EVENT.items() if name != "event_id"}] * 2
    path = write(tmp_path / "e.csv", *rows)
    ids = []
    for key, pseudonymise in ((KEY, True), (KEY, True), (KEY + "!", True), (KEY, False)):
        monkeypatch.setenv(KEY_VARIABLE, key)
        result = cli("load", "files", "--events", path, *(["--pseudonymise"] if pseudonymise else []))
        assert result.exit_code == 0
        ids.append(query(warehouse, "select event_id from raw.events order by 1")["event_id"].to_list())
    assert len(set(ids[0])) == 2
    assert ids[0] == ids[1]
    assert not set(ids[0]) & {*ids[2], *ids[3]}


def test_loads_of_two_kinds_are_not_mixed(
    cli: Cli, warehouse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = write(tmp_path / "a.csv", EVENT)
    more = write(tmp_path / "b.csv", EVENT | {"event_id": "e2"})
    loaded(cli, "--events", first)
    options = json.loads(query(warehouse, "select options from raw.loads").item())
    check = hmac.new(KEY.encode(), b"lcm key check", hashlib.sha256).hexdigest()[:8]
    assert options["pseudonyms"] == {"key_check": check, "id_case": "keep"}

    plain = cli("load", "files", "--events", more, "--append")
    assert plain.exit_code == 1
    assert "add --pseudonymise" in plain.output
    monkeypatch.setenv(KEY_VARIABLE, KEY + "!")
    another = load(cli, "--events", more, "--append")
    assert another.exit_code == 1
    assert f"check value is {check}" in another.output.replace("\n", " ")
    assert cli("pseudonym", "alice").exit_code == 1
    assert KEY not in another.output
    assert query(warehouse, "select count(*) from raw.events").item() == 1

    monkeypatch.setenv(KEY_VARIABLE, KEY)
    loaded(cli, "--events", more, "--append")
    assert query(warehouse, "select count(distinct user_id), count(*) from raw.events").row(0) == (1, 2)
    assert "nothing new" in loaded(cli, "--events", more, "--append").output

    assert cli("load", "files", "--events", first).exit_code == 0
    mixed = load(cli, "--events", more, "--append")
    assert mixed.exit_code == 1
    assert "plain user ids" in mixed.output


@pytest.mark.parametrize(("key", "words"), [(None, "is not set"), ("short", "shorter"), (" " * 40, "shorter")])
def test_without_a_good_key_nothing_is_loaded(
    cli: Cli, warehouse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str | None, words: str
) -> None:
    if key is None:
        monkeypatch.delenv(KEY_VARIABLE)
    else:
        monkeypatch.setenv(KEY_VARIABLE, key)
    path = write(tmp_path / "e.csv", EVENT)
    for command in (["load", "files", "--events", path, "--pseudonymise"], ["pseudonym", "a"]):
        result = cli(*command)
        assert result.exit_code == 1
        assert words in result.output
        assert KEY_VARIABLE in result.output
        assert not warehouse.exists()


def test_the_key_is_in_no_repr() -> None:
    assert KEY not in repr(Pseudonyms.from_environment())


def test_a_pseudonym_can_be_looked_up(cli: Cli, warehouse: Path, tmp_path: Path) -> None:
    loaded(cli, "--events", write(tmp_path / "e.csv", EVENT | {"user_id": "Zoë O'Brien"}))
    found = cli("pseudonym", "Zoë O'Brien ").output.strip()
    assert query(warehouse, "select user_id from raw.events").item() == found == expected("Zoë O'Brien")
    assert json.loads(cli("pseudonym", "Zoë O'Brien", "--json").stdout) == {"pseudonym": found}
    assert "Example" in cli("pseudonym", "--help").output
    with pytest.raises(LcmError, match="blank"):
        Pseudonyms(KEY.encode()).of("  ")


def test_the_complete_journey(cli: Cli, warehouse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the package's tables cut down to a few households, so that it takes no time."""
    from lcm_ml.sources import complete_journey

    needed = ("transactions", "products", "demographics", "campaigns", "campaign_descriptions", "coupon_redemptions")
    for file in (complete_journey.data_folder() / f"{name}.parquet" for name in needed):
        columns = [name for name, *_ in duckdb.execute(f"describe from '{file}'").fetchall()]
        few = "where cast(household_id as varchar) in ('1', '2', '3')" if "household_id" in columns else ""
        duckdb.execute(f"copy (from '{file}' {few}) to '{tmp_path / file.name}' (format parquet)")
    monkeypatch.setattr(complete_journey, "data_folder", lambda: tmp_path)
    assert cli("load", "complete-journey").exit_code == 0
    before = query(warehouse, "select * exclude (load_id, loaded_at) from raw.events order by source_row")
    assert cli("load", "complete-journey", "--pseudonymise").exit_code == 0
    after = query(warehouse, "select * exclude (load_id, loaded_at) from raw.events order by source_row")
    assert after.drop("user_id").equals(before.drop("user_id"))
    assert after["user_id"].to_list() == [expected(user) for user in before["user_id"]]
    for table in ("users", "campaign_touches"):
        users = query(warehouse, f"select distinct user_id from raw.{table}")["user_id"].to_list()
        assert 0 < len(users) <= 3
        assert set(users) <= {expected(user) for user in "123"}
