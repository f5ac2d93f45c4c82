"""The promises about time: no future in the features, and an incremental build that equals a full one."""

import itertools
import shutil
import time
from datetime import date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from lifecycle import MARTS, ONLY_MARTS, WITHOUT_TESTS, assert_same, build, change, dbt, lcm, mart, query

END = "2026-01-01"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of a simulated shop, dirty rows and all."""
    out = tmp_path_factory.mktemp("shop")
    arguments = ("--users", "250", "--days", "260", "--seed", "11", "--end", END, "--dirty", "0.02")
    lcm(out / "unused.duckdb", "simulate", *arguments, "--out", str(out))
    answer_on_grid_dates(out / "campaign_touches.parquet")
    return out


def answer_on_grid_dates(path: Path) -> None:
    """Let every third touch be answered at noon of the next as_of_date: the day on which an error by one would show."""
    touches = pl.read_parquet(path)
    days = (pl.col("touched_at") - pl.lit(datetime(2018, 1, 1))).dt.total_days()
    next_date = pl.lit(datetime(2018, 1, 1, 12)) + pl.duration(days=(days // 28 + 1) * 28)
    chosen = pl.int_range(pl.len()) % 3 == 0
    kept = touches.with_columns(
        pl.when(chosen)
        .then(next_date)
        .otherwise("responded_at")
        .cast(touches.schema["responded_at"])
        .alias("responded_at")
    )
    assert kept.filter(chosen).height > 20
    kept.write_parquet(path)


def files_of(shop: Path) -> list[str]:
    arguments = []
    for path in sorted(shop.glob("*.parquet")):
        arguments += [f"--{path.stem.replace('_', '-')}", str(path)]
    return arguments


@pytest.fixture(scope="module")
def whole(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The warehouse built once from everything."""
    path = tmp_path_factory.mktemp("whole") / "lcm.duckdb"
    lcm(path, "load", "files", *files_of(shop))
    build(path)
    return path


@pytest.mark.slow
def test_no_table_is_overlooked_while_dbt_caches_its_schema(
    whole: Path, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """dbt's cache learns of a schema's tables one by one; a thread that looks meanwhile must still find them all."""
    from dbt.adapters.base.impl import BaseAdapter
    from dbt.adapters.cache import RelationsCache

    add, list_relations, turns = RelationsCache.add, BaseAdapter.list_relations, itertools.count()

    def add_slowly(cache: RelationsCache, relation: Any) -> None:
        add(cache, relation)
        time.sleep(0.1)

    def list_one_after_another(adapter: BaseAdapter, *arguments: Any) -> Any:
        time.sleep(0.3 * min(next(turns), 4))
        return list_relations(adapter, *arguments)

    path = tmp_path / "lcm.duckdb"
    lcm(path, "load", "files", *files_of(shop))
    monkeypatch.setattr(RelationsCache, "add", add_slowly)
    monkeypatch.setattr(BaseAdapter, "list_relations", list_one_after_another)
    run = dbt(path, "run", "--select", "stg_identities", "stg_currency_rates", "stg_campaigns", "stg_support_tickets")
    assert run.success
    for table in ("identities", "currency_rates", "campaigns", "support_tickets"):
        rows = f"select count(*) from staging.stg_{table}"
        assert query(path, rows).item() == query(whole, rows).item() > 0


def grid(path: Path) -> list[date]:
    return query(path, "select as_of_date from marts.as_of_dates where is_on_grid order by 1")["as_of_date"].to_list()


# What a shop's tables would not hold yet on the day of the cut.
CUTS = [
    "delete from raw.events where try_cast(event_time as timestamp) >= timestamp '{cut}'",
    "delete from raw.users where signed_up_at >= timestamp '{cut}'",
    "delete from raw.campaigns where starts_at >= timestamp '{cut}'",
    "delete from raw.campaign_touches where touched_at >= timestamp '{cut}'",
    "update raw.campaign_touches set responded_at = null where responded_at >= timestamp '{cut}'",
    "delete from raw.support_tickets where created_at >= timestamp '{cut}'",
    "update raw.support_tickets set resolved_at = null where resolved_at >= timestamp '{cut}'",
    "delete from raw.identities where linked_at >= timestamp '{cut}'",
]

# Marts of the scoring date alone, and their keys.
KNOWN_OF_USERS = {
    "user_interests": ["user_id", "category"],
    "user_preferences": ["user_id"],
    "user_stage_history": ["user_id", "from_date"],
    "user_contacts": ["user_id", "contact_rank"],
}


@pytest.mark.slow
def test_what_is_known_of_a_user_ends_with_the_scoring_date(whole: Path, tmp_path: Path) -> None:
    cut = grid(whole)[-2]
    paths = [tmp_path / name / "lcm.duckdb" for name in ("everything", "cut")]
    for path in paths:
        path.parent.mkdir()
        shutil.copy(whole, path)
    change(paths[1], *(statement.format(cut=cut) for statement in CUTS))
    for path in paths:
        run = dbt(
            path, "run", "--select", *(f"+{name}" for name in KNOWN_OF_USERS), variables={"data_end_date": str(cut)}
        )
        assert run.success, run.messages[-20:]
    for name, key in KNOWN_OF_USERS.items():
        left, right = (query(path, f"select * from marts.{name}").sort(key) for path in paths)
        assert left.height > 50, name
        assert_same(left, right, name)


@pytest.mark.parametrize("position", [3, *(pytest.param(place, marks=pytest.mark.slow) for place in (1, -2))])
def test_the_future_never_reaches_the_past(whole: Path, shop: Path, tmp_path: Path, position: int) -> None:
    cut = grid(whole)[position]
    path = tmp_path / "lcm.duckdb"
    lcm(path, "load", "files", *files_of(shop))
    before = query(path, "select count(*) as n from raw.events").item()
    change(path, *(statement.format(cut=cut) for statement in CUTS))
    assert query(path, "select count(*) as n from raw.events").item() < before
    # The log of the loads would not know the deleted rows either.
    change(
        path,
        "update raw.load_files set rows_in = n + rows_rejected "
        "from (select count(*) as n from raw.events) where table_name = 'events'",
    )
    build(path, *ONLY_MARTS, variables={"data_end_date": str(cut)})
    assert query(path, "select max(as_of_date) from marts.as_of_dates").item() == cut

    known = f"as_of_date <= date '{cut}' and as_of_date in (select as_of_date from marts.as_of_dates where is_on_grid)"
    for name in ("user_features", "lapsed_user_features", "user_lifecycle", "lifecycle_transitions"):
        expected = mart(whole, name, known)
        assert expected.height > 0
        assert_same(mart(path, name, known), expected, name)
    weeks = f"as_of_date <= date '{cut}'"
    assert_same(mart(path, "lifecycle_weekly", weeks), mart(whole, "lifecycle_weekly", weeks), "lifecycle_weekly")
    observed = f"as_of_date + horizon_days <= date '{cut}'"
    expected = mart(whole, "user_churn_labels", observed)
    assert position == 1 or expected.height > 0
    assert_same(mart(path, "user_churn_labels"), expected, "user_churn_labels")


@pytest.mark.slow
def test_the_test_of_the_future_can_fail(whole: Path, tmp_path: Path) -> None:
    """Were features read from after the date, the comparison above would show it."""
    features = mart(whole, "user_features")
    dates = grid(whole)
    shifted = features.filter(pl.col("as_of_date") == dates[2]).with_columns(as_of_date=pl.lit(dates[1]))
    honest = features.filter(pl.col("as_of_date") == dates[1])
    with pytest.raises(AssertionError):
        assert_same(shifted, honest, "user_features")


def test_building_twice_computes_nothing_again(whole: Path) -> None:
    tables = {name: mart(whole, name) for name in MARTS}
    run = build(whole, *WITHOUT_TESTS)
    assert not [line for line in run.own if "computes" in line or "rebuilt" in line], run.own
    for name, before in tables.items():
        assert_same(mart(whole, name), before, name)
    made = made_by_last_build(whole)
    assert "as_of_dates" in made
    assert not made & {"stg_users", "stg_products", "campaign_touches", "products", "user_profiles", "churn_scores_now"}


def made_by_last_build(path: Path) -> set[str]:
    """Models that the newest build made or added to, rather than leave as they were."""
    last = "select arg_max(build_id, started_at) from meta.builds"
    found = query(path, f"select model_name from meta.model_builds where build_id = ({last})")
    return set(found["model_name"])


@pytest.mark.slow
def test_what_is_gone_or_made_of_other_rows_is_made_again(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "lcm.duckdb"
    path.write_bytes(whole.read_bytes())
    change(
        path,
        "drop view serving.churn_scores_latest",
        "drop table staging.stg_users",
        "update raw.campaigns set kind = 'moved'",
    )
    build(path, *WITHOUT_TESTS)
    made = made_by_last_build(path)
    assert {"stg_users", "stg_campaigns", "campaign_touches", "churn_scores_latest"} <= made
    assert not made & {"stg_products", "stg_campaign_touches", "products", "user_profiles"}
    assert query(path, "select distinct kind from marts.campaign_touches")["kind"].to_list() == ["moved"]
    for name in MARTS:
        assert_same(mart(path, name), mart(whole, name), name)


@pytest.fixture(scope="module")
def halves(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, date]:
    """Events up to a day, and the rest with a late row for a user some weeks before; the late row's day."""
    out = tmp_path_factory.mktemp("halves")
    events = pl.read_parquet(shop / "events.parquet")
    times = events["event_time"].cast(pl.String).str.to_datetime(strict=False)
    early = times.is_null() | (times < pl.datetime(2025, 12, 20))
    late_day = date(2025, 11, 12)
    is_late = pl.Series([False] * events.height)
    purchases = events.with_row_index().filter((times.dt.date() == late_day) & (events["event_type"] == "purchase"))
    is_late[purchases["index"].to_list()[:3]] = True
    assert is_late.sum() > 0
    events.filter(early & ~is_late).write_parquet(out / "first.parquet")
    events.filter(~early | is_late).write_parquet(out / "second.parquet")
    return out / "first.parquet", out / "second.parquet", late_day


@pytest.mark.slow
def test_new_and_late_rows_touch_only_their_dates(shop: Path, halves: tuple[Path, Path, date], tmp_path: Path) -> None:
    first, second, late_day = halves
    path = tmp_path / "lcm.duckdb"
    others = [argument for argument in files_of(shop) if not argument.endswith("events.parquet")]
    others.remove("--events")
    lcm(path, "load", "files", "--events", str(first), *others)
    build(path, *ONLY_MARTS)
    before = query(path, "select as_of_date, input_hash from marts.as_of_dates")

    lcm(path, "load", "files", "--events", str(second), "--append")
    run = build(path, *ONLY_MARTS)

    after = query(path, "select as_of_date, input_hash from marts.as_of_dates")
    unchanged = before.join(after, on=["as_of_date", "input_hash"])["as_of_date"].to_list()
    assert unchanged
    assert all(day <= late_day for day in unchanged)
    touched = after.filter(~pl.col("as_of_date").is_in(unchanged))["as_of_date"]
    new = touched.filter(~touched.is_in(before["as_of_date"].to_list()))
    reached = touched.filter(touched.is_in(before["as_of_date"].to_list()))
    assert len(new) > 0
    assert len(reached) > 0
    said = [line for line in run.own if line.startswith("lcm: user_features computes")]
    assert sorted(said) == [
        f"lcm: user_features computes {len(new)} dates, {new.min()} to {new.max()}",
        f"lcm: user_features computes the users of new rows on {len(reached)} dates, "
        f"{reached.min()} to {reached.max()}",
    ], run.own
    assert not [line for line in run.own if "rebuilt" in line], run.own

    incremental = {name: mart(path, name) for name in MARTS}
    build(path, "--full-refresh", *ONLY_MARTS)
    for name, expected in incremental.items():
        assert_same(mart(path, name), expected, name)


@pytest.mark.slow
def test_attributes_that_change_are_followed(shop: Path, whole: Path, tmp_path: Path) -> None:
    """A product in another category, one that is gone, and a visitor who turns out to be another user."""
    path = tmp_path / "lcm.duckdb"
    path.write_bytes(whole.read_bytes())
    change(
        path,
        "update raw.products set category = 'moved', loaded_at = loaded_at + interval 1 second "
        "where product_id in (select product_id from raw.products order by 1 limit 3)",
        "delete from raw.products where product_id = (select max(product_id) from raw.products)",
        "update raw.identities set linked_at = linked_at - interval 40 day "
        "where anonymous_id in (select anonymous_id from raw.identities order by 1 limit 5)",
    )
    run = build(path, *ONLY_MARTS)
    rebuilt = [line.split()[2] for line in run.own if "rebuilt" in line]
    assert rebuilt == ["int_orders"], run.own
    made = made_by_last_build(path)
    assert {"stg_products", "stg_identities"} <= made
    assert not made & {"stg_users", "stg_campaign_touches"}
    followed = {name: mart(path, name) for name in MARTS}
    assert "moved" in mart(path, "user_features")["favourite_category"].unique().to_list()

    build(path, "--full-refresh", *ONLY_MARTS)
    for name, expected in followed.items():
        assert_same(mart(path, name), expected, name)


@pytest.mark.slow
def test_a_changed_setting_rebuilds_the_models_it_touches(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "lcm.duckdb"
    path.write_bytes(whole.read_bytes())
    run = build(path, *ONLY_MARTS, variables={"loyal_min_purchase_days": 2})
    assert any("rebuilt user_lifecycle whole" in line for line in run.own), run.own
    loyal = "select count(*) as n from marts.user_lifecycle where stage = 'loyal'"
    assert query(path, loyal).item() > query(whole, loyal).item()


def test_a_killed_build_is_refused(whole: Path, tmp_path: Path) -> None:
    """A dbt that dies leaves its row open; lcm-ml says which command mends it."""
    from typer.testing import CliRunner

    from lcm_ml.cli.main import app

    path = tmp_path / "lcm.duckdb"
    path.write_bytes(whole.read_bytes())
    change(path, "update meta.builds set status = 'open', finished_at = null")
    from lifecycle import warehouse_at

    with warehouse_at(path):
        result = CliRunner().invoke(app, ["fit"])
    assert result.exit_code == 1
    assert "did not finish" in result.output
    assert "dbt build" in result.output
    build(path, *ONLY_MARTS)
    assert query(path, "select arg_max(status, started_at) from meta.builds").item() == "ok"
