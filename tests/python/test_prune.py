"""Retention: what is computed of pruned events stays, whatever is built afterwards; scores leave their totals."""

import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from click.testing import Result
from lifecycle import MARTS, ONLY_MARTS, WITHOUT_TESTS, assert_same, build, change, dbt, lcm, mart, query, warehouse_at

from lcm_ml.errors import LcmError
from lcm_ml.privacy import compact, places, retention
from lcm_ml.warehouse import contracts, writer
from lcm_ml.warehouse.connection import LOCK_HELD, connect

pytestmark = pytest.mark.slow

DAYS = 168
SETTINGS = {"lapsed_window_days": 112, "event_retention_days": DAYS, "score_retention_days": 84}
COMPUTED = [name for name in MARTS if name != "data_quality"]
KEPT = [name for name in contracts.KEPT if name != "prunings"]
EVENT = {"event_type": "refund", "currency": "USD"}


def events(tmp_path: Path, name: str, rows: list[dict[str, Any]]) -> str:
    pl.DataFrame([EVENT | row for row in rows], infer_schema_length=None).write_parquet(tmp_path / f"{name}.parquet")
    return str(tmp_path / f"{name}.parquet")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of a simulated year, dirty rows and all."""
    out = tmp_path_factory.mktemp("shop")
    size = ("--users", "120", "--days", "360", "--seed", "11", "--end", "2026-01-01", "--dirty", "0.02")
    lcm(out / "unused.duckdb", "simulate", *size, "--out", str(out))
    return out


@pytest.fixture(scope="module")
def whole(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Loaded and built. An old event comes again in December; of two rows that cannot be read one is old."""
    path = tmp_path_factory.mktemp("whole") / "lcm.duckdb"
    files = [argument for file in sorted(shop.glob("*.parquet")) for argument in (f"--{file.stem}", str(file))]
    lcm(path, "load", "files", *(text.replace("_", "-") if text.startswith("--") else text for text in files))
    good = "user_id is not null and quantity between 1 and 9 and unit_price > 0 and event_time > '2025-01-10'"
    first = (
        f"select * from raw.events where event_type = 'purchase' and currency = 'USD' and {good} order by event_time"
    )
    again = query(path, first).row(0, named=True) | {"event_time": "2025-12-20 10:00:00"}
    names = ("event_id", "user_id", "event_time", "event_type", "product_id", "order_id")
    line = {name: again[name] for name in names} | {"amount": "777"}
    unreadable = [
        {"event_id": month, "user_id": "u", "event_time": f"2025-{month}-01 10:00:00", "amount": "much"}
        for month in ("02", "12")
    ]
    lcm(path, "load", "files", "--events", events(path.parent, "again", [line, *unreadable]), "--append")
    build(path, *ONLY_MARTS, variables=SETTINGS)
    rules = query(path, "select rule from staging.stg_events_checked where event_time = timestamp '2025-12-20 10:00'")
    assert "duplicate_event_id" in rules["rule"].to_list()
    return path


@pytest.fixture(scope="module")
def pruned(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of it, pruned and not built since."""
    path = tmp_path_factory.mktemp("pruned") / "lcm.duckdb"
    shutil.copy(whole, path)
    lcm(path, "prune", "--yes")
    return path


@pytest.fixture
def copies(whole: Path, pruned: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A copy of each, which a test may change."""
    paths = tmp_path / "whole" / "lcm.duckdb", tmp_path / "pruned" / "lcm.duckdb"
    for path, source in zip(paths, (whole, pruned), strict=True):
        path.parent.mkdir()
        shutil.copy(source, path)
    return paths


def assert_same_marts(left: Path, right: Path) -> None:
    for name in COMPUTED:
        assert mart(left, name).height > 0
        assert_same(mart(left, name), mart(right, name), name)


def hashes(path: Path) -> list[tuple[Any, ...]]:
    return query(path, "select * from marts.as_of_dates order by as_of_date").rows()


def test_events_leave_and_their_sums_stay(whole: Path, pruned: Path) -> None:
    end = query(whole, "select as_of_date from marts.as_of_dates where is_scoring_date").item()
    cut = end - timedelta(days=DAYS)
    for table, day in (
        ("raw.events", "cast(coalesce(event_time, loaded_at) as date)"),
        ("staging.stg_events_checked", "cast(coalesce(event_time, loaded_at) as date)"),
        ("intermediate.int_events", "event_date"),
    ):
        assert query(whole, f"select count(*) from {table} where {day} < date '{cut}'").item() > 1000
        assert query(pruned, f"select count(*) from {table} where {day} < date '{cut}'").item() == 0
        left = f"select count(*) from {table} where {day} >= date '{cut}'"
        # The event that came again is gone with the one it repeats.
        assert query(pruned, left).item() == query(whole, left).item() - (table != "intermediate.int_events")
    times = (
        "select json_extract_string(original, '$.event_time') as at from raw.rejected_rows where rule like '%amount'"
    )
    assert sorted(query(whole, times)["at"]) == ["2025-02-01 10:00:00", "2025-12-01 10:00:00"]
    assert query(pruned, times)["at"].to_list() == ["2025-12-01 10:00:00"]
    for name in KEPT:
        assert query(pruned, f"select count(*) from raw.{name}").item() > 10, name
    assert query(pruned, "select prune_before from raw.prunings").item() == cut


def test_nothing_is_computed_anew_and_a_full_refresh_gives_the_same(whole: Path, copies: tuple[Path, Path]) -> None:
    _, path = copies
    run = build(path, *ONLY_MARTS, variables=SETTINGS)
    assert [line for line in run.own if "reading" not in line] == []
    assert hashes(path) == hashes(whole)
    assert_same_marts(whole, path)
    build(path, *ONLY_MARTS, "--full-refresh", variables=SETTINGS)
    assert hashes(path) == hashes(whole)
    assert_same_marts(whole, path)
    assert dbt(path, "test", "--select", "rows_add_up", "int_orders", "int_sessions", variables=SETTINGS).success
    counted = "select sum(row_count) from marts.data_quality where kind = 'pruned'"
    gone = query(path, "select sum(events + rejected_rows) from raw.prunings").item()
    assert query(path, counted).item() == gone > 1000
    change(path, "update marts.data_quality set row_count = row_count - 1 where kind = 'pruned'")
    assert not dbt(path, "test", "--select", "rows_add_up", variables=SETTINGS).success


@pytest.mark.long
@pytest.mark.parametrize("table", KEPT)
def test_each_kept_table_is_needed(whole: Path, copies: tuple[Path, Path], table: str) -> None:
    _, path = copies
    change(path, f"delete from raw.{table}")
    build(path, *WITHOUT_TESTS, "--select", "+user_features", "--full-refresh", variables=SETTINGS)
    assert hashes(path) != hashes(whole)
    assert mart(path, "user_features").equals(mart(whole, "user_features")) == (table == "kept_days")


@pytest.mark.long
def test_what_comes_later_counts_as_if_nothing_was_pruned(
    copies: tuple[Path, Path], shop: Path, tmp_path: Path
) -> None:
    """Late refunds of pruned orders, a category that changes, and new events: in one build, then in a full refresh."""
    whole, path = copies
    cut = query(path, "select prune_before from raw.prunings").item()
    bought = query(
        whole,
        f"select user_id, order_key, product_id from intermediate.int_events where event_type = 'purchase' "
        f"and event_date < date '{cut}' and product_id is not null order by hash(event_id) limit 12",
    )
    late = {"event_time": "2025-12-28 10:00:00", "event_type": "refund"}
    rows: list[dict[str, Any]] = []
    for n, (user, order, product) in enumerate(bought.rows()):
        named = {"order_id": order if n % 3 else None, "product_id": product if n % 3 != 1 else None}
        rows.append({"event_id": f"late-{n}", "user_id": user, **named, **late})
        sale = {"order_id": f"new-{n}", "product_id": product, "amount": 12.5, "event_type": "purchase"}
        rows.append({"event_id": f"sale-{n}", "user_id": user, "event_time": "2025-12-29 10:00:00", **sale})
    products = pl.read_parquet(shop / "products.parquet").with_columns(
        category=pl.when(pl.col("product_id") == bought["product_id"][0])
        .then(pl.lit("another"))
        .otherwise(pl.col("category"))
    )
    products.write_parquet(tmp_path / "products.parquet")
    for one in copies:
        added = ("--events", events(tmp_path, "late", rows), "--products", str(tmp_path / "products.parquet"))
        lcm(one, "load", "files", *added, "--append")
        build(one, *ONLY_MARTS, variables=SETTINGS)
    refunds = "select * exclude (linked_user_id, linked_date) from intermediate.int_refunds order by event_id"
    found = query(path, refunds)
    assert found.filter(pl.col("event_id").str.starts_with("late"))["refunded_order_key"].null_count() == 0
    assert found.equals(query(whole, refunds))
    assert_same_marts(whole, path)
    build(path, *ONLY_MARTS, "--full-refresh", variables=SETTINGS)
    assert found.equals(query(path, refunds))
    assert_same_marts(whole, path)


@pytest.mark.long
def test_a_file_that_is_loaded_again_counts_nothing_twice(
    whole: Path, copies: tuple[Path, Path], shop: Path, tmp_path: Path
) -> None:
    _, path = copies
    again = pl.read_parquet(shop / "events.parquet").reverse()
    again.write_parquet(tmp_path / "again.parquet")
    lcm(path, "load", "files", "--events", str(tmp_path / "again.parquet"), "--append")
    for arguments in ((), ("--full-refresh",)):
        build(path, *ONLY_MARTS, *arguments, variables=SETTINGS)
        assert_same_marts(whole, path)
        rules = dict(
            query(
                path, "select rule, count(*) from staging.stg_events_checked where rule is not null group by 1"
            ).rows()
        )
        assert rules["before_retention"] > 1000
        assert dbt(path, "test", "--select", "rows_add_up", variables=SETTINGS).success
    # They go with the next pruning, and still count nothing.
    change(path, "update marts.as_of_dates set as_of_date = as_of_date + 1 where is_scoring_date")
    lcm(path, "prune", "--yes")
    build(path, *ONLY_MARTS, "--full-refresh", variables=SETTINGS)
    assert_same_marts(whole, path)
    assert query(path, "select count(*) from raw.prunings").item() == 2
    assert dbt(path, "test", "--select", "rows_add_up", variables=SETTINGS).success


@pytest.mark.long
def test_forgotten_users_leave_the_kept_tables_too(copies: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    whole, path = copies
    user = query(path, "select user_id from raw.kept_orders group by 1 order by count(*) desc, 1 limit 1").item()

    def with_settings(*_: Any, **__: Any) -> None:
        build(one, *ONLY_MARTS, variables=SETTINGS)

    monkeypatch.setattr("lcm_ml.warehouse.build.build", with_settings)
    monkeypatch.setenv(LOCK_HELD, "1")
    # What other tests write meanwhile is theirs.
    monkeypatch.setattr(places, "of_dbt", list)
    export = lcm(path, "export-user", user, "--out", str(path.with_name("export")))
    assert {"raw.kept_orders", "raw.kept_order_products", "raw.kept_sessions"} <= set(export["rows"])
    shutil.rmtree(path.with_name("export"))
    for one in copies:
        done = lcm(one, "forget", user, "--yes")
        assert done["left"] == []
        assert query(one, f"select count(*) from marts.user_features where user_id = '{user}'").item() == 0
    assert_same_marts(whole, path)


def tables_of(path: Path) -> dict[str, int]:
    """A hash of the rows of each table that prune could touch."""
    schemas = "schema_name in ('raw', 'staging', 'intermediate', 'ml')"
    with duckdb.connect(str(path), read_only=True) as con:
        names = con.execute(f"select schema_name || '.' || table_name from duckdb_tables() where {schemas}").fetchall()
        union = " union all ".join(
            f"select '{name}', coalesce(bit_xor(hash(t)), 0) from {name} as t"
            for (name,) in names
            if name not in ("raw.prunings", "ml.model_runs")
        )
        return dict(con.execute(union).fetchall())


@pytest.mark.long
@pytest.mark.parametrize("step", ["_check_sums", "_delete_events", "_prune_scores"])
def test_a_stopped_pruning_leaves_the_warehouse_as_it_was(
    copies: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path, done = copies
    before = tables_of(path)
    working = getattr(retention, step)

    def killed(*arguments: Any) -> None:
        working(*arguments)
        raise LcmError("killed")

    monkeypatch.setattr(retention, step, killed)
    with pytest.raises(AssertionError, match="killed"):
        lcm(path, "prune", "--yes")
    assert tables_of(path) == before
    assert query(path, "select count(*) from raw.prunings").item() == 0
    monkeypatch.setattr(retention, step, working)
    lcm(path, "prune", "--yes")
    assert tables_of(path) == tables_of(done) != before


@pytest.mark.long
def test_a_pruning_stopped_before_the_file_is_written_anew_is_done(
    copies: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, done = copies

    def full(*_: Any) -> None:
        raise LcmError("the disk is full")

    monkeypatch.setattr(compact, "rewrite_file", full)
    with pytest.raises(AssertionError, match="the disk is full"):
        lcm(path, "prune", "--yes")
    assert (
        query(path, "select count(*) from raw.events").item() == query(done, "select count(*) from raw.events").item()
    )
    assert lcm(path, "prune", "--yes")["rows"] == {}
    assert [line for line in build(path, *ONLY_MARTS, variables=SETTINGS).own if "reading" not in line] == []


def test_scores_leave_their_totals(copies: tuple[Path, Path]) -> None:
    path, _ = copies
    labels = mart(path, "user_churn_labels")
    dates = labels["as_of_date"].unique().sort()
    end = query(path, "select as_of_date from marts.as_of_dates where is_scoring_date").item()
    cut = end - timedelta(days=84)
    ml = contracts.tables("ml")
    with warehouse_at(path), connect() as con:
        writer.ensure(con, ml)
        con.execute(
            """
            insert into ml.churn_scores by name
            select
                user_id, as_of_date, 28 as horizon_days, 'tree' as model_name, version as model_version,
                hash(user_id, version) % 1000 / 1000.0 as churn_probability,
                1 + hash(user_id) % 10 as churn_decile, version = 'b' as is_served, false as is_in_training_data
            from marts.user_churn_labels cross join (values ('a'), ('b')) as versions (version)
            """
        )
        con.execute("insert into ml.churn_hints by name select user_id, as_of_date, model_version from ml.churn_scores")
        con.execute(
            "insert into ml.model_versions (model_version, evaluated_version, status) values ('c', 'b', 'champion')"
        )
        con.execute(
            "insert into ml.evaluation_predictions by name "
            "select user_id, as_of_date, model_version from ml.churn_scores"
        )
        before = con.sql("select * from ml.churn_scores").pl()
    result = lcm(path, "prune", "--yes")
    gone = before.filter(pl.col("as_of_date") < cut)
    assert result["rows"]["ml.churn_scores"] == result["rows"]["ml.churn_hints"] == gone.height > 100
    assert result["rows"]["ml.evaluation_predictions"] == gone.height / 2
    assert query(path, "select min(as_of_date) from ml.churn_scores").item() == dates.filter(dates >= cut)[0]
    assert set(query(path, "select model_version from ml.evaluation_predictions where as_of_date < date "
                     f"'{cut}'")["model_version"]) == {"b"}  # fmt: skip
    expected = (
        gone.join(labels.select("user_id", "as_of_date", "is_churned"), on=["user_id", "as_of_date"], how="left")
        .group_by("as_of_date", "model_version", "churn_decile")
        .agg(
            users=pl.len(),
            served_users=pl.col("is_served").sum(),
            mean_probability=pl.col("churn_probability").mean(),
            churned_users=pl.col("is_churned").sum(),
        )
        .sort("as_of_date", "model_version", "churn_decile")
    )
    totals = query(
        path,
        f"select {', '.join(expected.columns)} from ml.churn_score_totals "
        "order by as_of_date, model_version, churn_decile",
    )
    assert_same(totals, expected.cast(dict(totals.schema)), "churn_score_totals")
    assert totals["churned_users"].sum() > 0


@pytest.mark.long
def test_the_newest_served_scores_stay_however_old(copies: tuple[Path, Path]) -> None:
    path, _ = copies
    with warehouse_at(path), connect() as con:
        writer.ensure(con, contracts.tables("ml"))
        for day in ("2025-03-03", "2025-03-31"):
            con.execute(
                "insert into ml.churn_scores by name select 'u' as user_id, cast(? as date) as as_of_date, "
                "28 as horizon_days, 'a' as model_version, 1 as churn_decile, true as is_served",
                [day],
            )
    lcm(path, "prune", "--yes")
    assert query(path, "select cast(as_of_date as varchar) from ml.churn_scores").rows() == [("2025-03-31",)]


def refused(path: Path, cli: Callable[..., Result], *more: str) -> str:
    with warehouse_at(path):
        result = cli("prune", *(more or ("--yes",)))
    assert result.exit_code != 0
    return " ".join(result.output.split())


def setting(path: Path, name: str, value: str) -> None:
    change(path, f"delete from meta.settings where name = '{name}'")
    change(path, f"insert into meta.settings values ('{name}', '{value}')")


@pytest.mark.long
def test_what_it_refuses(copies: tuple[Path, Path], cli: Callable[..., Result], sample: Path, tmp_path: Path) -> None:
    path, done = copies
    assert "nobody can be asked" in refused(path, cli, "--json")
    # dbt would add up days of two time zones.
    run = dbt(done, "build", *ONLY_MARTS, variables=SETTINGS | {"shop_timezone": "Asia/Tokyo"})
    assert not run.success
    assert any("shop_timezone" in line for line in run.messages)
    setting(path, "event_retention_days", str(DAYS - 1))
    assert f"{DAYS} or more" in refused(path, cli)
    setting(path, "event_retention_days", "null")
    setting(path, "score_retention_days", "7")
    assert "score_retention_days" in refused(path, cli)
    setting(path, "score_retention_days", "null")
    assert lcm(path, "prune", "--dry-run")["rows"] == lcm(path, "prune", "--yes")["rows"] == {}
    setting(path, "event_retention_days", str(DAYS))
    row = {"event_id": "new", "user_id": "u", "event_time": "2025-12-28 10:00:00", "event_type": "view"}
    lcm(path, "load", "files", "--events", events(tmp_path, "new", [row]), "--append")
    assert "not built yet" in refused(path, cli)
    setting(sample, "event_retention_days", "1000")
    setting(sample, "score_retention_days", "null")
    assert "sample" in refused(sample, cli)


@pytest.mark.long
def test_a_load_that_replaces_begins_anew(copies: tuple[Path, Path], shop: Path) -> None:
    _, path = copies
    lcm(path, "load", "files", "--events", str(shop / "events.parquet"))
    for name in contracts.KEPT:
        assert query(path, f"select count(*) from raw.{name}").item() == 0
