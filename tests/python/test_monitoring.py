"""Monitoring stays silent while nothing changes, and names what does."""

import shutil
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lifecycle import ONLY_MARTS, build, change, lcm, query, warehouse_at
from shifts import SHIFTS, alerts_of, in_marts
from typer.testing import CliRunner

from lcm_ml.churn.metrics import Measured
from lcm_ml.cli.main import app
from lcm_ml.monitoring.diagnosis import diagnose
from lcm_ml.monitoring.drift import drift_of, jensen_shannon, psi
from lcm_ml.monitoring.realised import Realised, realised_scores
from lcm_ml.monitoring.signs import DataLimits, DataSign, Sign
from lcm_ml.monitoring.watch import data_state

COUNTS = st.lists(st.integers(0, 500), min_size=5, max_size=5).map(lambda values: np.array(values, dtype=float))


@given(COUNTS, COUNTS)
def test_drift_is_symmetric_and_nothing_for_equal_shares(before, now):
    assert psi(before, now) == pytest.approx(psi(now, before))
    assert psi(before, now) >= 0
    assert 0 <= jensen_shannon(before, now) <= 1
    assert psi(before, before) == jensen_shannon(before, before) == 0


def history(dates: int, users: int, shift: float = 0.0) -> tuple[pl.DataFrame, pl.Series]:
    rng = np.random.default_rng(0)
    days = [date(2025, 1, 6) + timedelta(days=28 * k) for k in range(dates)]
    before = pl.concat(pl.DataFrame({"as_of_date": [day] * users, "x": rng.normal(size=users)}) for day in days)
    return before, pl.Series("x", rng.normal(shift, 1, users))


def test_a_shifted_feature_is_found_and_an_unchanged_one_is_not():
    assert drift_of("x", *history(8, 1000)).severity is None
    assert drift_of("x", *history(8, 1000, shift=0.4)).severity == "warning"
    assert drift_of("x", *history(8, 1000, shift=1.0)).severity == "critical"
    before, now = history(8, 1000)
    lost = drift_of("x", before, pl.select(pl.when(pl.int_range(1000) % 2 == 0).then(now)).to_series())
    assert lost.severity == "critical"
    assert (lost.missing_now, lost.missing_before) == (0.5, 0.0)


def test_a_feature_that_always_moved_has_a_higher_limit():
    before, _ = history(8, 1000)
    dates = before["as_of_date"].unique().sort().to_list()
    growing = before.with_columns(x=pl.col("x") + pl.col("as_of_date").replace_strict(dates, range(8)) * 0.5)
    now = pl.Series("x", np.random.default_rng(1).normal(4.0, 1, 1000))
    assert drift_of("x", growing, now).severity is None


def test_categories_drift_by_level_and_new_levels_count():
    days = [date(2025, 1, 6), date(2025, 2, 3), date(2025, 3, 3)]
    before = pl.concat(pl.DataFrame({"as_of_date": [day] * 300, "c": ["a", "b", "b"] * 100}) for day in days)
    assert drift_of("c", before, pl.Series("c", ["a", "b", "b"] * 100)).severity is None
    assert drift_of("c", before, pl.Series("c", ["a", "new", "new"] * 100)).severity == "critical"


def test_a_sign_needs_a_past_and_a_change_that_matters():
    past = (10.0, 10.2, 9.9, 10.1)
    assert Sign("events_per_user", "view", 3.0, past, 5000, 0.35).severity == "critical"
    assert Sign("events_per_user", "view", 9.0, past, 5000, 0.35).severity is None
    assert Sign("events_per_user", "view", 3.0, past[:2], 5000, 0.35).severity is None
    assert Sign("churn_rate", "users", 0.4, (0.2, 0.21, 0.19), 30, 0.05, True).severity is None
    assert Sign("churn_rate", "users", 0.4, (0.2, 0.21, 0.19), 3000, 0.05, True).severity == "critical"


def measured(value: float, spread: float) -> Measured:
    return Measured(value, np.random.default_rng(0).normal(value, spread, 400))


def test_scores_that_do_worse_than_tested_are_critical():
    day = date(2025, 6, 2)
    figures = {"auc": measured(0.70, 0.01), "base_rate": measured(0.30, 0.01)}
    served = Realised(day, "v", 2000, 0.15, figures)
    alerts = diagnose(day, [], [], None, [served], {"auc": (0.82, 0.86)}, [])
    assert [(alert.severity, alert.cause, alert.subject) for alert in alerts] == [
        ("critical", "performance", "auc"),
        ("warning", "performance", "calibration"),
    ]
    fine = Realised(day, "v", 2000, 0.30, {"auc": measured(0.83, 0.01), "base_rate": measured(0.30, 0.01)})
    assert diagnose(day, [], [], None, [fine], {"auc": (0.82, 0.86)}, []) == []


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built warehouse of a shop in which nothing changes."""
    folder = tmp_path_factory.mktemp("watched")
    path = folder / "lcm.duckdb"
    lcm(path, "simulate", "--users", "900", "--days", "600", "--seed", "4", "--out", str(folder / "shop"))
    tables = [f"--{file.stem.replace('_', '-')}={file}" for file in (folder / "shop").glob("*.parquet")]
    lcm(path, "load", "files", *tables)
    build(path, *ONLY_MARTS, "+alerts_latest", variables={"as_of_count": 30})
    return path


@pytest.fixture
def changed(shop: Path, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "lcm.duckdb"
    shutil.copy(shop, path)
    yield path
    path.unlink()


def grid(path: Path) -> list[date]:
    return query(path, "select as_of_date from marts.as_of_dates where is_on_grid order by 1")["as_of_date"].to_list()


@pytest.mark.slow
def test_nothing_is_critical_while_nothing_changes(shop: Path) -> None:
    loud = [alert for day in grid(shop)[-10:] for alert in alerts_of(shop, day) if alert.severity == "critical"]
    assert loud == []


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIFTS)
def test_a_shift_is_found_in_its_first_period_and_named(changed: Path, name: str) -> None:
    day = grid(changed)[-1]
    change(changed, *in_marts(name, day - timedelta(days=28)))
    loud = [alert for alert in alerts_of(changed, day) if alert.severity == "critical"]
    assert {alert.cause for alert in loud} == {SHIFTS[name][0]}
    assert all(alert.advice and alert.message for alert in loud)


@pytest.mark.parametrize(
    ("hours", "share", "causes"), [(1.0, 0.01, []), (100.0, 0.01, ["stale_data"]), (1.0, 0.2, ["quarantine"])]
)
def test_old_and_dirty_data_are_told(hours: float, share: float, causes: list[str]) -> None:
    data = [
        DataSign("freshness", "load", "hours_since_load", hours, 48.0),
        DataSign("freshness", "events", "days_without_events", 900.0),
        DataSign("quality", "newest load", "quarantined_share", share, 0.05),
    ]
    alerts = diagnose(date(2025, 6, 2), [], [], None, [], {}, [], data)
    assert [(alert.cause, alert.severity) for alert in alerts] == [(cause, "warning") for cause in causes]


@pytest.mark.slow
def test_the_state_of_the_data_is_that_of_the_watched_day(shop: Path) -> None:
    day = grid(shop)[-2]
    with duckdb.connect(str(shop), read_only=True) as con:
        loaded = con.execute("select max(loaded_at) from raw.loads").fetchall()[0][0]
        found = data_state(con, day, DataLimits(48.0, 0.05), loaded + timedelta(hours=50))
    signs = {sign.metric: sign for sign in found}
    assert signs["hours_since_load"].value == pytest.approx(50)
    assert signs["hours_since_load"].is_alert
    assert signs["days_without_events"].value == 0
    dirty = query(shop, "select sum(row_count) from marts.data_quality where kind = 'quarantined'").item()
    rows = query(shop, "select sum(row_count) from marts.data_quality where kind = 'rows_in'").item()
    assert signs["quarantined_share"].value == pytest.approx(float(dirty / rows))


@pytest.mark.slow
def test_the_command_ends_with_3_stores_what_it_found_and_keeps_alerts_apart_by_run(changed: Path) -> None:
    day = grid(changed)[-1]
    with warehouse_at(changed):
        quiet = CliRunner().invoke(app, ["monitor", "--as-of", str(day), "--json"])
        assert quiet.exit_code == 0, quiet.output
        change(changed, *in_marts("carts stop", day - timedelta(days=28)))
        loud = CliRunner().invoke(app, ["monitor", "--as-of", str(day)])
    assert loud.exit_code == 3
    assert "broken_tracker" in loud.output
    stored = query(changed, "select * from serving.alerts_latest where severity = 'critical'")
    assert stored["cause"].unique().to_list() == ["broken_tracker"]
    assert query(changed, "select count(distinct run_id) from ml.drift_metrics").item() == 2


@pytest.mark.slow
def test_what_became_of_served_scores_is_told_by_purchase_days(changed: Path) -> None:
    day = grid(changed)[-3]
    change(
        changed,
        f"""
        insert into ml.churn_scores by name
        select
            user_id, as_of_date, 28 as horizon_days, 'm' as model_name, 'v' as model_version, 'r' as run_id,
            case when is_churned then 0.7 else 0.2 end as churn_probability, true as is_served,
            false as is_in_training_data
        from marts.user_churn_labels where as_of_date = date '{day}'
        """,
    )
    with duckdb.connect(str(changed), read_only=True) as con:
        assert realised_scores(con, day + timedelta(days=27)) == []
        found = realised_scores(con, day + timedelta(days=28))
    assert [served.as_of_date for served in found] == [day]
    assert found[0].figures["auc"].value == 1.0
    rate = query(changed, f"select avg(is_churned::int) from marts.user_churn_labels where as_of_date = date '{day}'")
    assert found[0].figures["base_rate"].value == pytest.approx(rate.item())
