"""Forecasts on series whose truth is known, and the command from the marts to the alert."""

import shutil
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from lifecycle import change, lcm, query, warehouse_at
from typer.testing import CliRunner

from lcm_ml.cli.main import app
from lcm_ml.decisions import forecast_models
from lcm_ml.decisions.anomalies import anomalies, surprises, tamed
from lcm_ml.decisions.forecast_models import NAIVE, last_year, seasonal_naive
from lcm_ml.decisions.forecasting import Forecast, forecast
from lcm_ml.decisions.rolling import block_interval, naive_scale, roll
from lcm_ml.decisions.series import FloatArray, Series, make_series, shop_series
from lcm_ml.monitoring.diagnosis import diagnose
from lcm_ml.monitoring.unusual import Unusual

START = date(2024, 1, 1)
WEEK = np.array([0.8, 0.85, 0.9, 1.0, 1.15, 1.3, 1.0])


def shop_values(days: int, seed: int = 0, noise: float = 0.08) -> FloatArray:
    """A trend times a week times noise: what the models may know of it is known."""
    rng = np.random.default_rng(seed)
    steps = np.arange(days)
    return (200 + 0.2 * steps) * WEEK[steps % 7] * (1 + noise * rng.standard_normal(days))


def daily(values: FloatArray) -> Series:
    return Series("revenue", "day", START, values)


def figure(found: Forecast, metric: str, model: str | None = None) -> float:
    rows = found.metrics.filter(
        pl.col("metric") == metric, pl.col("horizon") == "all", pl.col("model_name") == (model or found.served)
    )
    return float(rows["value"].item())


@pytest.fixture(scope="module")
def known() -> list[Forecast]:
    found = [forecast(daily(shop_values(350, seed)), 28) for seed in range(3)]
    return [each for each in found if each is not None]


def test_a_known_series_is_forecast_better_than_by_the_naive_and_covered(known: list[Forecast]) -> None:
    assert len(known) == 3
    for found in known:
        assert figure(found, "mase") < 1 < figure(found, "mase", NAIVE)
        rows = found.metrics.filter(pl.col("metric") == "mase_less_naive", "is_served")
        assert rows["ci_high"].item() < 0
    for percent in (80, 95):
        mean = np.mean([figure(found, f"coverage_{percent}") for found in known])
        assert mean == pytest.approx(percent / 100, abs=0.05)


def test_what_comes_lies_where_the_intervals_say() -> None:
    inside = {80: [], 95: []}
    for seed in range(6):
        weekly = shop_values(7 * 96, seed).reshape(-1, 7).sum(axis=1)
        found = forecast(Series("revenue", "week", START, weekly[:-4]), 28)
        assert found is not None
        for percent, kept in inside.items():
            low, high = (found.rows[f"{end}_{percent}"].to_numpy() for end in ("low", "high"))
            kept.extend((low <= weekly[-4:]) & (weekly[-4:] <= high))
            assert (low <= found.rows["value"].to_numpy()).all()
    assert np.mean(inside[80]) >= 0.6
    assert np.mean(inside[95]) >= 0.85


def test_the_forecast_follows_week_and_trend(known: list[Forecast]) -> None:
    found = known[0]
    truth = (200 + 0.2 * np.arange(350, 378)) * WEEK[np.arange(350, 378) % 7]
    assert found.rows["value"].to_numpy() == pytest.approx(truth, rel=0.12)
    assert found.rows["date"].to_list() == [START + timedelta(days=350 + step) for step in range(28)]


def test_a_closed_day_and_a_spike_bend_the_forecast_little(known: list[Forecast]) -> None:
    values = shop_values(350)
    values[-3], values[-10] = 0.0, values[-10] * 10
    found = forecast(daily(values), 28)
    assert found is not None
    assert found.rows["value"].to_numpy() == pytest.approx(known[0].rows["value"].to_numpy(), rel=0.15)


def test_choosing_sees_nothing_of_the_origins_that_are_reported_on() -> None:
    values = shop_values(7 * 70).reshape(-1, 7).sum(axis=1)
    models = forecast_models.models_of("week", 1)
    rolling = roll(Series("revenue", "week", START, values), 4, models)
    assert rolling is not None
    chosen_on = rolling.origins[rolling.for_choosing]
    assert chosen_on[-1] + 4 <= rolling.origins[rolling.first_evaluated]
    changed = values.copy()
    changed[rolling.origins[rolling.first_evaluated] :] *= 3
    other = roll(Series("revenue", "week", START, changed), 4, models)
    assert other is not None
    for name in rolling.forecasts:
        part = rolling.for_choosing
        assert rolling.mase(name)[part] == pytest.approx(other.mase(name)[part])
        assert rolling.mase(name)[-1] != pytest.approx(other.mase(name)[-1])


def test_mase_of_the_naive_by_hand() -> None:
    values = np.array([1.0, 3.0, 2.0, 6.0])
    assert naive_scale(values, 1) == pytest.approx((2 + 1 + 4) / 3)
    assert naive_scale(values, 2) == pytest.approx((1 + 3) / 2)
    assert seasonal_naive(values, 5, 2).tolist() == [2.0, 6.0, 2.0, 6.0, 2.0]


def test_last_year_comes_again_at_todays_level() -> None:
    year = np.full(364, 10.0)
    year[28 + 5] = 50.0
    values = np.concatenate([year[:28], year[28:], np.full(28, 20.0)])
    assert last_year(values, 7, "day").tolist() == [20.0] * 5 + [100.0, 20.0]
    assert np.isnan(last_year(values[1:], 7, "day")).all()


def test_without_the_library_plain_models_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast_models, "is_installed", lambda: False)
    found = forecast(daily(shop_values(300)), 14)
    assert found is not None
    assert found.served == NAIVE
    assert found.rows["value"].to_list() == shop_values(300)[-7:].tolist() * 2


def test_too_little_history_gives_nothing() -> None:
    assert forecast(daily(shop_values(120)), 28) is None
    assert anomalies(daily(shop_values(60))).is_empty()


@given(st.lists(st.floats(0, 1000), min_size=220, max_size=220), st.integers(0, 100))
@hypothesis_settings(max_examples=5)
def test_intervals_are_ordered_and_never_below_nothing(values: list[float], closed: int) -> None:
    array = np.array(values)
    array[60 : 60 + closed] = 0.0
    found = forecast(Series("orders", "week", START, array), 28)
    assert found is not None
    rows = found.rows
    assert rows["low_95"].min() >= 0
    for lower, upper in (("low_95", "low_80"), ("low_80", "value"), ("value", "high_80"), ("high_80", "high_95")):
        assert (rows[lower] <= rows[upper] + 1e-9).all()


def test_gaps_are_zeros_up_to_the_end_and_unfinished_weeks_are_left_out() -> None:
    day = date(2024, 1, 18)  # a Thursday
    sales = pl.DataFrame(
        {
            "series": ["orders"] * 3,
            "grain": ["day", "day", "week"],
            "date": [date(2024, 1, 10), date(2024, 1, 12), date(2024, 1, 1)],
            "value": [2.0, 3.0, 9.0],
        }
    )
    stages = pl.DataFrame({"series": ["stage_new"], "grain": ["week"], "date": [date(2024, 1, 15)], "value": [5.0]})
    found = {(each.name, each.grain): each for each in shop_series(sales, stages, day)}
    assert found["orders", "day"].values.tolist() == [2.0, 0.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert found["orders", "day"].date_at(8) == day
    assert found["orders", "week"].values.tolist() == [9.0, 0.0]
    assert found["stage_new", "week"].values.tolist() == [5.0]
    assert make_series(sales.head(0), {}) == []


def test_false_alarms_are_rare_in_an_unchanged_year() -> None:
    rates = []
    for seed in range(10):
        values = shop_values(730, seed)
        found = surprises(daily(values), range(365, 730))
        rates.append(np.mean(((values < found.low) | (values > found.high))[365:]))
    assert np.mean(rates) <= 0.015
    assert max(rates) <= 0.03


@pytest.mark.parametrize("seed", range(4))
def test_planted_anomalies_are_found_even_after_a_closed_christmas(seed: int) -> None:
    values = shop_values(500, seed)
    values[440] = 0.0
    before = {row["date"] for row in anomalies(daily(values)).to_dicts()}
    halved, spiked = values.copy(), values.copy()
    halved[-3:-1] *= 0.5
    spiked[-4] *= 2
    dates = [daily(values).date_at(place) for place in (497, 498, 496)]
    assert {row["date"] for row in anomalies(daily(halved)).to_dicts()} - before == set(dates[:2])
    found = anomalies(daily(spiked)).filter(pl.col("date") == dates[2])
    assert found.height == 1
    assert found["value"].item() > found["high"].item()


def test_taming_leaves_usual_values_and_changes_that_last() -> None:
    values = shop_values(200)
    assert np.mean(tamed(values, 7) == values) > 0.98
    doubled = np.concatenate([values, 2 * shop_values(200)])
    assert (tamed(doubled, 7)[-100:] == doubled[-100:]).mean() > 0.9


def test_neighbouring_origins_make_an_interval_wider() -> None:
    walk = np.repeat(np.random.default_rng(0).normal(size=10), 4)
    one, four = (block_interval(walk, np.ones(40), block) for block in (1, 4))
    assert one[0] == four[0] == pytest.approx(walk.mean())
    assert four[2] - four[1] > 1.5 * (one[2] - one[1])


def fall(days: int, share: float, series: str = "revenue") -> list[Unusual]:
    return [
        Unusual(series, "day", START + timedelta(days=k), 100 * (1 - share), 100.0, 90.0, 110.0) for k in range(days)
    ]


@pytest.mark.parametrize(
    ("unusual", "severities"),
    [
        (fall(1, 0.5), ["warning"]),
        (fall(2, 0.5), ["critical"]),
        (fall(2, 0.2), ["warning"]),
        (fall(2, -0.5), ["warning"]),
        (fall(2, 0.5) + fall(2, 0.5, "orders"), ["critical", "info"]),
        ([], []),
    ],
)
def test_a_fall_that_lasts_is_critical_and_told_once(unusual: list[Unusual], severities: list[str]) -> None:
    alerts = diagnose(START, [], [], None, [], {}, [], unusual=unusual)
    assert [alert.severity for alert in alerts] == severities
    assert all(alert.cause.endswith("_anomaly") and alert.advice for alert in alerts)


@pytest.fixture
def shop(sample: Path, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "lcm.duckdb"
    shutil.copy(sample, path)
    yield path
    path.unlink()


def test_the_command_forecasts_what_the_marts_knew(shop: Path) -> None:
    result = lcm(shop, "forecast")
    day = date.fromisoformat(result["as_of_date"])
    rows = query(shop, "select * from serving.forecasts_latest")
    assert set(rows.filter(pl.col("grain") == "day")["series"]) == {"revenue", "orders", "active_users"}
    assert "stage_new" in rows["series"]
    by_day = rows.filter(pl.col("grain") == "day", pl.col("series") == "orders").sort("date")
    assert by_day["date"].to_list() == [day + timedelta(days=step) for step in range(28)]
    metrics = query(shop, "select * from ml.forecast_metrics where metric = 'mase'")
    assert set(metrics["model_name"]) >= {NAIVE, "ets", "theta", "mstl", "combination"}
    assert metrics.filter("is_served").height == len(result["series"])

    # What happens on the date itself and later changes nothing.
    change(shop, f"update marts.purchase_days set amount = amount * 100 where purchase_date >= date '{day}'")
    lcm(shop, "forecast", "--series", "revenue", "--days", "14")
    again = query(shop, "select * from serving.forecasts_latest")
    assert again.filter(pl.col("series") == "revenue", pl.col("grain") == "day").height == 14
    others = pl.col("series") != "revenue"
    assert (
        again.filter(others).sort("series", "grain", "date").equals(rows.filter(others).sort("series", "grain", "date"))
    )
    model = rows.filter(pl.col("series") == "revenue", pl.col("grain") == "day").sort("date")
    shorter = again.filter(pl.col("series") == "revenue", pl.col("grain") == "day").sort("date")
    if set(model["model_name"]) == set(shorter["model_name"]):
        assert shorter["value"].to_list() == pytest.approx(model["value"].to_list()[:14])


def test_a_planted_anomaly_becomes_an_alert_and_goes_with_it(shop: Path) -> None:
    day = lcm(shop, "forecast", "--series", "orders")["as_of_date"]
    known = query(shop, "select 1 from ml.forecast_anomalies").height
    change(
        shop,
        "create table before as select * from marts.purchase_days",
        f"update marts.purchase_days set orders = orders * 20 where purchase_date = date '{day}' - 2",
    )
    found = lcm(shop, "forecast", "--series", "orders")["anomalies"]
    assert len(found) > known
    with warehouse_at(shop):
        CliRunner().invoke(app, ["monitor"])
    alert = query(shop, "select * from serving.alerts_latest where cause = 'orders_anomaly' and subject like '%day'")
    assert alert["severity"].to_list() == ["warning"]
    change(
        shop,
        "update marts.purchase_days p set orders = b.orders from before b where p.user_id = b.user_id "
        "and p.purchase_date = b.purchase_date",
    )
    lcm(shop, "forecast", "--series", "orders")
    assert query(shop, "select 1 from ml.forecast_anomalies").height == known


def test_a_shop_without_purchases_has_no_forecast_and_no_failure(shop: Path) -> None:
    change(shop, "delete from marts.purchase_days", "delete from marts.lifecycle_weekly")
    result = lcm(shop, "forecast")
    assert result["series"] == []
    assert result["notes"]
    assert query(shop, "select 1 from ml.forecasts").is_empty()
