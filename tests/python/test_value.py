"""Expected purchases and spend, against shops whose truth is known and against slow computations by other means."""

from datetime import date, timedelta
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from lifecycle import change, lcm, query
from scipy.stats import beta, gamma

from lcm_ml.churn.bg_nbd import BgNbd
from lcm_ml.frames.purchase_history import purchase_outcomes, purchase_summaries
from lcm_ml.insights import conformal, purchase_model, spend_trees, value
from lcm_ml.insights.gamma_gamma import GammaGamma, fit_gamma_gamma
from lcm_ml.insights.purchase_model import DAYS_PER_MONTH, LIFETIME_MONTHS, fit_purchase_model
from lcm_ml.insights.value_evaluation import NAIVE, by_decile, evaluate, served_model
from lcm_ml.reporting.section import Section
from lcm_ml.reporting.sections.value import SECTIONS
from lcm_ml.sources.simulate import SimulationConfig, simulate

HISTORY, HORIZON = 420, 90
CONFIG = SimulationConfig(users=6000, days=HISTORY + HORIZON, seed=3, preset="plain")
AT = CONFIG.end_date - timedelta(days=HORIZON)


def one(*values: float) -> list[np.ndarray]:
    return [np.array([float(each)]) for each in values]


# --- closed forms


@pytest.mark.parametrize("model", [BgNbd(0.9, 14, 0.7, 2.5), BgNbd(0.9, 14, 1.0, 2.5), BgNbd(1.4, 9.6, 0.3, 0.4)])
@pytest.mark.parametrize("user", [(0, 0, 60), (1, 10, 60), (4, 50, 60), (200, 295, 300)])
def test_expected_purchases_agree_with_quadrature(model, user):
    x, t_x, age = one(*user)
    middles = (np.arange(1500) + 0.5) / 1500
    # Who is there purchases at its rate; with the drop-out probability p that makes (1 - e^(-rate p t)) / p.
    rate = gamma.ppf(middles, model.r + x, scale=1 / (model.alpha + age))[:, None]
    p = np.maximum(beta.ppf(middles, model.a, model.b + x), 1e-12)[None, :]
    expected = model.probability_alive(x, t_x, age) * (-np.expm1(-rate * p * 90) / p).mean()
    assert model.expected_purchases(x, t_x, age, 90.0) == pytest.approx(expected, rel=1e-3)


RATES = st.floats(0.05, 20)


@example(1.0, 1.0, 0.99999, 1.0, 0, 1.0, 1.0)
@example(1.0, 1.0, 2.0, 1.0, 99, 1.0, 2.0)
@example(1.0, 1.0, 2.0, 9.94356799934118, 99, 1.0, 1.0)
@given(RATES, st.floats(1, 100), RATES, RATES, st.integers(0, 300), st.floats(1, 30), st.floats(1, 1000))
def test_expected_purchases_grow_with_the_horizon_and_exceed_the_chance_of_one(r, alpha, a, b, x, gap, silent):
    model, known = BgNbd(r, alpha, a, b), one(x, x * gap, x * gap + silent)
    found = [model.expected_purchases(*known, days)[0] for days in (1, 30, 90, 365, 1000)]
    assert np.isfinite(found).all()
    assert (np.diff(found) >= -1e-9).all()
    assert found[2] >= 1 - model.probability_no_purchase(*known, 90)[0] - 1e-6


def worths(users: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mean = 3.0 / rng.gamma(4.0, 1 / 45.0, users)
    count = rng.geometric(0.2, users).astype(float)
    return count, rng.gamma(3.0 * count) * mean / 3.0, mean


def test_gamma_gamma_recovers_its_own_parameters():
    count, total, mean = worths(30_000)
    found = fit_gamma_gamma(count, total)
    assert (found.p, found.q, found.gamma) == pytest.approx((3.0, 4.0, 45.0), rel=0.06)
    assert fit_gamma_gamma(count, total * 1000).gamma == pytest.approx(found.gamma * 1000, rel=0.01)
    # Regressed to the mean by as much as it should: what users are worth on average, in each fifth of the expectation.
    expected = found.expected_value(count, total)
    for fifth in np.array_split(np.argsort(expected), 5):
        assert expected[fifth].mean() == pytest.approx(mean[fifth].mean(), rel=0.04)
    assert GammaGamma(3, 4, 45).expected_value(*one(0, 0))[0] == GammaGamma(3, 4, 45).mean == 45


# --- the plain shop, which is BG/NBD and nothing else


@pytest.fixture(scope="module")
def plain() -> dict[str, pl.DataFrame]:
    """What was purchased before AT, at the dates known by then, and what came after."""
    events = simulate(CONFIG).tables["events"]
    days = (
        events.group_by("user_id", purchase_date=pl.col("event_time").cast(pl.Date))
        .agg(pl.col("amount").sum())
        .with_columns(linked_user_id=pl.lit(None, pl.String), linked_date=pl.lit(None, pl.Date))
    )
    past = [AT - timedelta(days=28 * k) for k in (10, 9, 8, 7, 6, 5, 4)]
    with duckdb.connect() as con:
        con.register("days", days.to_arrow())
        con.execute("create schema marts; create table marts.purchase_days as from days")
        summaries = purchase_summaries(con, [*past, AT], value.HORIZONS)
        outcomes = purchase_outcomes(con, [*past, AT], HORIZON)
    # What features would tell, in a shop with nothing but purchases.
    features = summaries.select(
        "user_id",
        "as_of_date",
        "purchases_last_30",
        "amount_last_365",
        days_since=pl.col("age") - pl.col("last_age"),
        gap=pl.when(pl.col("repeats") > 0).then(pl.col("last_age") / pl.col("repeats")),
    )
    return {
        "users": summaries.filter(as_of_date=AT),
        "features": features,
        "past": summaries.filter(pl.col("as_of_date") < AT),
        "outcomes": outcomes,
    }


@pytest.fixture(scope="module")
def forecasts(plain):
    model = fit_purchase_model(plain["users"])
    now = pl.col("as_of_date") == AT
    past = value.Past(plain["past"], plain["features"].filter(~now), plain["outcomes"].filter(~now))
    quantiles = model.quantiles(plain["users"], [HORIZON])
    found = value.forecast(plain["users"], [plain["features"].filter(now)], model, quantiles, past, HORIZON)
    outcome = value.with_outcomes(plain["users"].select(value.KEYS), plain["outcomes"])
    compared = value.compared(found, plain["users"], HORIZON)
    return model, found, compared, outcome, evaluate(compared, outcome)


def test_some_users_at_a_time_are_forecast_as_all_at_once(plain, forecasts):
    model, whole, *_ = forecasts
    now = pl.col("as_of_date") == AT
    past = value.Past(plain["past"], plain["features"].filter(~now), plain["outcomes"].filter(~now))
    features = plain["features"].filter(now)
    some, others = features.gather_every(3), features.filter(pl.int_range(pl.len()) % 3 > 0)
    parts = [some, features.clear(), others]
    found = value.forecast(plain["users"], parts, model, model.quantiles(plain["users"], [HORIZON]), past, HORIZON)
    assert found.by_trees.equals(whole.by_trees)
    nobody = value.forecast(plain["users"], [], model, model.quantiles(plain["users"], [HORIZON]), past, HORIZON)
    assert nobody.by_trees is None


def figure(figures: pl.DataFrame, model: str, metric: str) -> dict[str, float]:
    return figures.filter(model_name=model, metric=metric).row(0, named=True)


def test_what_happened_is_what_the_true_parameters_expect(plain, forecasts):
    model, _, compared, outcome, _ = forecasts
    truth = CONFIG.parameters.purchases
    history = [plain["users"][name].to_numpy() for name in ("repeats", "last_age", "age")]
    by_truth = BgNbd(truth.r, truth.alpha, truth.a, truth.b).expected_purchases(*history, HORIZON)
    purchased = outcome["purchases"].to_numpy()
    error = (purchased - by_truth).std() * np.sqrt(len(purchased))
    # A day with two purchases is one day, which the truth does not know of: a few in a hundred.
    assert abs(purchased.sum() - by_truth.sum()) < 3 * error + 0.03 * by_truth.sum()
    fitted = compared[purchase_model.NAME]["expected_purchases"].to_numpy()
    assert fitted.sum() == pytest.approx(purchased.sum(), rel=0.06)
    assert np.abs(fitted - by_truth).mean() < 0.05 * by_truth.mean()
    assert model.purchases.r == pytest.approx(truth.r, rel=0.15)


def test_both_models_beat_the_naive_guess_and_their_intervals_hold(forecasts):
    *_, figures = forecasts
    for name in (purchase_model.NAME, spend_trees.NAME):
        assert figure(figures, name, "mae_less_naive")["ci_high"] < 0
        assert figure(figures, name, "total_ratio")["value"] == pytest.approx(1, abs=0.1)
        assert 0.75 <= figure(figures, name, "coverage_80")["value"] <= 0.85, name
        assert figure(figures, name, "spearman")["value"] > figure(figures, NAIVE, "spearman")["ci_high"]


def test_the_spend_of_each_tenth_is_what_was_expected_of_it(forecasts):
    _, _, compared, outcome, _ = forecasts
    tenths = by_decile(compared, outcome).filter(model_name=purchase_model.NAME)
    assert tenths["n_users"].sum() == outcome.height
    assert tenths["expected_amount"].is_sorted(descending=True)
    top = tenths.head(3)
    assert top["expected_amount"].to_list() == pytest.approx(top["realised_amount"].to_list(), rel=0.2)


def test_simulated_quantiles_are_those_of_what_happened(plain, forecasts):
    spent = forecasts[3]["amount"].to_numpy()
    quantiles = forecasts[0].quantiles(plain["users"], [30, HORIZON])[HORIZON]
    for place, level in enumerate(conformal.LEVELS[1:], start=1):
        # As many lie at or below a quantile as its level says; more where the quantile is 0.
        bought = quantiles[:, place] > 0
        below = np.where(bought, spent <= quantiles[:, place], level)
        assert below[bought].mean() == pytest.approx(level, abs=0.03), level


def test_lifetime_value_discounts_what_is_expected_by_month(plain, forecasts):
    model, users = forecasts[0], plain["users"]
    whole = model.predict(users, round(LIFETIME_MONTHS * DAYS_PER_MONTH))["expected_amount"].to_numpy()
    undiscounted, tenth = model.lifetime(users, 0.0), model.lifetime(users, 0.1)
    assert undiscounted["lifetime_value"].to_numpy() == pytest.approx(whole, rel=1e-3, abs=1e-9)
    ratio = tenth["lifetime_value"].sum() / undiscounted["lifetime_value"].sum()
    assert 1.1**-3 < ratio < 1.1 ** -(0.5 / 12)
    sizes = tenth.group_by("value_decile").agg(pl.len(), pl.col("lifetime_value").min()).sort("value_decile")
    assert sizes["len"].max() - sizes["len"].min() <= 1
    assert sizes["lifetime_value"].is_sorted(descending=True)


# --- intervals and rules


def spends(users: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Quantiles that are half as wide as they should be, and outcomes, of which some are 0."""
    rng = np.random.default_rng(seed)
    level = rng.gamma(4.0, 0.5, users)
    quantiles = np.maximum(level[:, None] + 0.3 * np.array([-1.28, 0, 0.84, 1.28]), 0)
    return quantiles, np.maximum(level + 0.6 * rng.normal(size=users), 0)


def test_conformal_intervals_hold_what_they_promise_on_new_users():
    narrow, outcome = spends(4000, 1)
    by = conformal.margin(conformal.from_quantiles(narrow), outcome)
    fresh, later = spends(20_000, 2)

    def held(ends: conformal.Intervals) -> float:
        return float(((later >= ends.low) & (later <= ends.high)).mean())

    raw = conformal.from_quantiles(fresh)
    assert held(raw) < 0.65
    assert held(conformal.moved(raw, by)) == pytest.approx(0.8, abs=0.015)


@given(st.lists(st.lists(st.floats(0, 10), min_size=4, max_size=4), min_size=1, max_size=20), st.floats(-3, 3))
def test_a_larger_margin_never_leaves_out_what_a_smaller_one_holds(quantiles, by):
    raw = conformal.from_quantiles(np.array(quantiles))
    inner, outer = conformal.moved(raw, by), conformal.moved(raw, by + 0.5)
    assert (outer.low <= inner.low).all()
    assert (outer.high >= inner.high).all()
    assert (inner.low <= inner.middle).all()
    assert (inner.high >= inner.middle).all()
    assert (inner.low >= 0).all()


def test_equal_forecasts_have_no_rank_correlation_and_the_truth_has_all():
    outcome = pl.DataFrame({"purchases": [0.0, 1.0, 2.0, 3.0] * 30, "amount": [0.0, 5.0, 20.0, 90.0] * 30})
    truth = outcome.rename({"purchases": "expected_purchases", "amount": "expected_amount"})
    same = truth.with_columns(expected_amount=pl.lit(10.0))
    found = evaluate({NAIVE: same, "bg_nbd": truth}, outcome)
    assert figure(found, NAIVE, "spearman")["value"] is None
    assert figure(found, NAIVE, "total_ratio")["value"] == pytest.approx(10 / 28.75)
    assert figure(found, "bg_nbd", "spearman")["value"] == pytest.approx(1)
    assert figure(found, "bg_nbd", "mae")["value"] == 0


@pytest.mark.parametrize(
    ("difference", "trees_total", "history_total", "served"),
    [
        ((-5.0, -1.0), 1.05, 1.0, "xgboost"),
        ((-5.0, 0.5), 1.05, 1.0, "bg_nbd"),  # may be chance
        ((-5.0, -1.0), 1.2, 1.05, "bg_nbd"),  # the total is off
        ((-5.0, -1.0), 1.2, 1.4, "xgboost"),  # off, but nearer
    ],
)
def test_trees_serve_where_they_are_better_beyond_chance(difference, trees_total, history_total, served):
    rows = [
        ("xgboost", "mae_less_bg_nbd", -3.0, *difference),
        ("xgboost", "total_ratio", trees_total, None, None),
        ("bg_nbd", "total_ratio", history_total, None, None),
    ]
    names = ("model_name", "metric", "value", "ci_low", "ci_high")
    assert served_model(pl.DataFrame(rows, schema=list(names), orient="row")) == served
    assert served_model(evaluate({}, pl.DataFrame())) == "bg_nbd"


def test_concentration_of_equal_and_of_one_holder():
    equal = value.concentration(pl.DataFrame({"lifetime_value": [2.0] * 50}))
    assert equal["gini"] == pytest.approx(0)
    assert equal["top_tenth_share"] == pytest.approx(0.1)
    alone = value.concentration(pl.DataFrame({"lifetime_value": [0.0] * 99 + [7.0]}))
    assert alone["gini"] == pytest.approx(0.99)
    assert alone["top_tenth_share"] == pytest.approx(1)


# --- the command


def sections(path: Path) -> list[Section]:
    with duckdb.connect(str(path), read_only=True) as con:
        return [make(con) for make in SECTIONS]


def test_the_command_values_every_buyer_once_and_again_without_a_trace(sample):
    assert all(section.filled_by == "lcm-ml value" for section in sections(sample))
    first = lcm(sample, "value")
    again = lcm(sample, "value")
    assert {**first, "run_id": None} == {**again, "run_id": None}
    buyers = query(sample, "select count(distinct user_id) from marts.user_lifecycle where purchase_days > 0").item()
    latest = query(sample, "select * from serving.user_values_latest")
    assert latest.height == latest["user_id"].n_unique() == first["users"] == buyers
    assert latest.drop("discount_rate").null_count().sum_horizontal().item() == 0
    assert (latest["amount_low_90d"] <= latest["amount_high_90d"]).all()
    assert (latest["expected_amount_365d"] >= latest["expected_amount_90d"]).all()
    served = query(
        sample,
        """
        select count(*) filter (where is_served) as served
        from ml.user_values group by user_id, as_of_date, horizon_days
        """,
    )
    assert (served["served"] == 1).all()
    assert any("365 days" in note for note in first["notes"])
    shown = sections(sample)
    assert all(section.figures and all(figure.says for figure in section.figures) for section in shown)


def test_what_happens_later_changes_no_value(sample):
    at = date(2025, 10, 27)
    names = "user_id, model_name, horizon_days, expected_purchases, expected_amount, amount_low, amount_high"
    rows = f"select {names} from ml.user_values where as_of_date = '{at}' order by all"
    told = lcm(sample, "value", "--as-of", str(at))
    before = query(sample, rows)
    change(
        sample,
        f"""
        insert into marts.purchase_days by name
        select user_id, purchase_date + 1000 as purchase_date, 5 as orders, 9999 as amount
        from marts.purchase_days
        union all
        select user_id, date '{at}' as purchase_date, 5 as orders, 9999 as amount from marts.purchase_days
        """,
    )
    again = lcm(sample, "value", "--as-of", str(at))
    assert before.height > 0
    assert before.equals(query(sample, rows))
    assert told["horizons"] == again["horizons"]


def test_a_shop_without_buyers_gets_a_note_and_no_rows(sample):
    change(sample, "delete from marts.purchase_days")
    told = lcm(sample, "value")
    assert told["users"] == 0
    assert "too few" in told["notes"][0]
    assert query(sample, f"select 1 from ml.user_values where as_of_date = '{told['as_of_date']}'").is_empty()
