"""The snapshot in a real PostgreSQL server: equal rows, whole at every moment, and a password nobody sees."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import postgres_server
import pytest
from lifecycle import query, warehouse_at
from polars.testing import assert_frame_equal
from typer.testing import CliRunner

from lcm_ml.cli.main import app
from lcm_ml.errors import LcmError
from lcm_ml.publishing import catalogue, manifest
from lcm_ml.publishing.postgres import Server
from lcm_ml.publishing.snapshot import publish
from lcm_ml.warehouse import contracts
from lcm_ml.warehouse.connection import connect

psycopg = pytest.importorskip("psycopg")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    reason = postgres_server.why_none()
    if reason:
        pytest.skip(reason)
    with postgres_server.server() as address:
        yield address


@pytest.fixture(scope="module")
def snapshots(sample: Path) -> list[Path]:
    """The folders of two snapshots, older first, cut down to what is told apart here."""
    made = []
    with warehouse_at(sample), connect(read_only=True) as con, catalogue.publishing_lock("test", print) as folder:
        for _ in range(2):
            published = publish(con, folder, None, lambda *_: None)
            made.append(folder / "snapshots" / published["snapshot_id"])
    return made


@pytest.fixture
def schema(url: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """A schema of the test's own."""
    name = f"s{abs(hash(request.node.name)) % 10**8}"
    yield name
    rows(url, f"drop schema if exists {name} cascade", f"drop schema if exists {name}_staging cascade")


def rows(url: str, *statements: str) -> list[tuple[Any, ...]]:
    """What the last of the statements returns."""
    with psycopg.connect(url, autocommit=True) as con:
        for statement in statements:
            cursor = con.execute(statement)
        return cursor.fetchall() if cursor.description else []


def load(url: str, schema: str, snapshot: Path) -> dict[str, Any]:
    return Server.of(url, schema).load(snapshot, lambda *_: None)


def served(url: str, schema: str) -> str:
    return str(rows(url, f"select distinct snapshot_id from {schema}.user_profiles")[0][0])


def test_every_relation_has_the_rows_of_the_snapshot(url: str, schema: str, snapshots: list[Path]) -> None:
    loaded = load(url, schema, snapshots[0])
    relations = manifest.read(snapshots[0])["relations"]
    assert loaded["relations"] == len(relations)
    assert loaded["rows"] == sum(relation["rows"] for relation in relations.values()) > 1000
    for name in relations:
        parquet = pl.read_parquet(snapshots[0] / f"{name}.parquet")
        with psycopg.connect(url) as con:
            cursor = con.execute(f"select * from {schema}.{name}")
            assert [column.name for column in cursor.description] == parquet.columns
            found = pl.DataFrame(cursor.fetchall(), schema=parquet.schema, orient="row")
        assert_frame_equal(found, parquet, check_row_order=False)
    recorded = rows(url, f"select relation, row_count, sha256 from {schema}.published_relations")
    assert {row[0]: row[1:] for row in recorded} == {
        name: (relation["rows"], relation["sha256"]) for name, relation in relations.items()
    }


def test_texts_and_figures_arrive_as_they_are(url: str, schema: str, snapshots: list[Path], tmp_path: Path) -> None:
    snapshot = tmp_path / snapshots[0].name
    shutil.copytree(snapshots[0], snapshot)
    odd = pl.DataFrame(
        {
            "text": ["", None, "a\tb\nc\r\\d", "\\N", "\\.", "\"quoted\", and 'so'", "雪 é 🙂", "zero\0byte"],
            "value": [0.1, None, float("nan"), float("inf"), -1e308, 5e-324, 1 / 3, -0.0],
            "snapshot_id": ["of the one before"] * 8,
        }
    )
    odd.write_parquet(snapshot / "odd.parquet")
    known = manifest.read(snapshot)
    known["relations"] = {
        "odd": {"rows": 8, "sha256": manifest.digest(snapshot / "odd.parquet"), "columns": odd.columns}
    }
    manifest.write(snapshot, known)
    load(url, schema, snapshot)
    found = rows(url, f"select text, value from {schema}.odd")
    assert [row[0] for row in found] == [*odd["text"].to_list()[:-1], "zerobyte"]
    assert repr([row[1] for row in found]) == repr(odd["value"].to_list())
    assert rows(url, f"select distinct snapshot_id from {schema}.odd") == [(known["snapshot_id"],)]


def test_types_and_descriptions(url: str, schema: str, snapshots: list[Path]) -> None:
    load(url, schema, snapshots[0])
    types = dict(
        rows(
            url,
            "select column_name, data_type from information_schema.columns "
            f"where table_schema = '{schema}' and table_name in ('churn_scores_latest', 'cohort_retention')",
        )
    )
    assert types["as_of_date"] == "date"
    assert types["churn_probability"] == "double precision"
    assert types["churn_decile"] == "integer"
    assert types["is_predicted_churn"] == "boolean"
    assert types["scored_at"] == "timestamp without time zone"
    assert types["cohort_users"] == "bigint"
    assert types["amount"] == "numeric"
    comments = rows(
        url,
        f"select col_description('{schema}.churn_scores_latest'::regclass, ordinal_position), column_name "
        f"from information_schema.columns where table_schema = '{schema}' and table_name = 'churn_scores_latest'",
    )
    described = contracts.descriptions()["churn_scores_latest"].columns
    assert {column: comment for comment, column in comments if column != "snapshot_id"} == described


def test_a_reader_never_sees_a_half_state(url: str, schema: str, snapshots: list[Path]) -> None:
    load(url, schema, snapshots[0])
    stop, found, failures = threading.Event(), [], []
    names = ("user_profiles", "lifecycle_current", "user_stage_history", "cohort_retention")
    counts = {name: manifest.read(snapshots[0])["relations"][name]["rows"] for name in names}

    def read() -> None:
        with psycopg.connect(url, autocommit=True) as con:
            while not stop.is_set():
                selects = [f"select '{name}', count(*), max(snapshot_id) from {schema}.{name}" for name in names]
                try:
                    found.append(con.execute(" union all ".join(selects)).fetchall())
                except psycopg.Error as error:
                    failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for turn in range(1, 4):
            load(url, schema, snapshots[turn % 2])
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert failures == []
    for answer in found:
        assert {name: count for name, count, _ in answer} == counts
        assert len({snapshot_id for *_, snapshot_id in answer}) == 1
    assert {answer[0][2] for answer in found} == {snapshot.name for snapshot in snapshots}


# Waits for a lock that the test holds, so that it can be killed there.
LOAD = (
    "import sys, pathlib\nfrom lcm_ml.publishing.postgres import Server\n"
    "Server.of(sys.argv[1], sys.argv[2]).load(pathlib.Path(sys.argv[3]), lambda *_: None)\n"
)


@pytest.mark.parametrize("moment", ["while it loads", "before it swaps"])
def test_a_load_that_is_killed_leaves_the_old_tables(url: str, schema: str, snapshots: list[Path], moment: str) -> None:
    load(url, schema, snapshots[0])
    if moment == "while it loads":
        held = f"{schema}_staging.cohort_retention"
        rows(url, f"create table {held} (nothing integer)")
    else:
        held = f"{schema}.user_profiles"
    with psycopg.connect(url) as con:
        con.execute(f"lock table {held} in access share mode")
        command = [sys.executable, "-c", LOAD, url, schema, str(snapshots[1])]
        process = subprocess.Popen(command, env=os.environ | {"LCM_LOCK_TIMEOUT": "60"})
        waiting = (
            "select 1 from pg_stat_activity where application_name = 'lcm-ml publish' and wait_event_type = 'Lock'"
        )
        while not rows(url, waiting):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert served(url, schema) == snapshots[0].name
    assert len(rows(url, f"select * from {schema}.cohort_retention limit 1")[0]) > 1
    load(url, schema, snapshots[1])
    assert served(url, schema) == snapshots[1].name
    assert rows(url, f"select 1 from pg_tables where schemaname = '{schema}_staging'") == []


def test_a_reader_who_stays_is_told_and_not_thrown_out(
    url: str, schema: str, snapshots: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    load(url, schema, snapshots[0])
    monkeypatch.setenv("LCM_LOCK_TIMEOUT", "1")
    with psycopg.connect(url) as con:
        con.execute(f"select count(*) from {schema}.data_quality")
        with pytest.raises(LcmError, match="always a reader"):
            load(url, schema, snapshots[1])
        assert con.execute(f"select distinct snapshot_id from {schema}.user_profiles").fetchall() == [
            (snapshots[0].name,)
        ]


def test_grants_stay(url: str, schema: str, snapshots: list[Path]) -> None:
    load(url, schema, snapshots[0])
    rows(
        url,
        "drop role if exists bi",
        "create role bi",
        f"grant usage on schema {schema} to bi",
        f"grant select on {schema}.user_profiles to bi with grant option",
        f"grant select on {schema}.data_quality to public",
    )
    load(url, schema, snapshots[1])
    allowed = rows(url, "set role bi", f"select distinct snapshot_id from {schema}.user_profiles")
    assert allowed == [(snapshots[1].name,)]
    assert rows(url, "set role bi", f"select count(*) > 0 from {schema}.data_quality") == [(True,)]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        rows(url, "set role bi", f"select * from {schema}.alerts_latest")
    rows(url, "drop owned by bi")


def test_what_is_not_ours_is_left_alone(url: str, schema: str, snapshots: list[Path]) -> None:
    rows(url, f"create schema {schema}", f"create table {schema}.user_profiles as select 'mine' as snapshot_id")
    with pytest.raises(LcmError, match=f"{schema}.user_profiles was not published by lcm"):
        load(url, schema, snapshots[0])
    assert served(url, schema) == "mine"
    rows(url, f"alter table {schema}.user_profiles rename to my_profiles")
    load(url, schema, snapshots[0])
    rows(url, f"create view {schema}.my_view as select user_id from {schema}.user_profiles")
    with pytest.raises(LcmError, match="my_view"):
        load(url, schema, snapshots[1])
    assert served(url, schema) == snapshots[0].name
    rows(url, f"drop view {schema}.my_view")
    load(url, schema, snapshots[1])
    assert rows(url, f"select * from {schema}.my_profiles") == [("mine",)]


def test_a_changed_file_is_not_loaded(url: str, schema: str, snapshots: list[Path], tmp_path: Path) -> None:
    load(url, schema, snapshots[0])
    snapshot = tmp_path / snapshots[1].name
    shutil.copytree(snapshots[1], snapshot)
    (snapshot / "data_quality.parquet").write_bytes((snapshot / "alerts_latest.parquet").read_bytes())
    with pytest.raises(LcmError, match=r"data_quality\.parquet"):
        load(url, schema, snapshot)
    assert served(url, schema) == snapshots[0].name


def test_the_commands_load_it_and_show_no_password(url: str, schema: str, sample: Path) -> None:
    runner = CliRunner(env={"LCM_PUBLISH_TO": url})
    with warehouse_at(sample):
        published = runner.invoke(app, ["publish", "--schema", schema])
        assert published.exit_code == 0, published.output
        newest = served(url, schema)
        assert newest in published.output
        back = runner.invoke(app, ["snapshots", "rollback", "--schema", schema])
        assert back.exit_code == 0, back.output
        assert served(url, schema) != newest
        wrong = runner.invoke(app, ["publish", "--schema", schema, "--to", url.replace("geheim", "geheim2")])
        assert wrong.exit_code == 1
        assert "next: check the address, the user and the password" in wrong.output
        for to in (
            "postgresql://lcm:geheim@[bad/db",
            "postgresql://lcm:geheim@/db?nonsense=1",
            "mysql://lcm:geheim@h/d",
        ):
            refused = runner.invoke(app, ["publish", "--to", to])
            assert refused.exit_code == 2
            assert "geheim" not in refused.output
    for result in (published, back, wrong):
        assert "geheim" not in result.output
        assert "Traceback" not in result.output
    settings = query(sample, "select value from meta.settings")["value"].to_list()
    assert not [value for value in settings if "geheim" in value]
