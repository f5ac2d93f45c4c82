"""Counterfactual hints: the smallest change, found by brute force too, and users that could exist."""

import itertools
import json
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import LAST, churn_data

from lcm_ml.churn.estimator import Recipe
from lcm_ml.churn.hints import COARSE_VALUES, VALUES, Lever, find_levers, hint_rows
from lcm_ml.churn.model import ChurnModel, fit_model
from lcm_ml.churn.ties import moved_along, possible, settle
from lcm_ml.churn.wording import phrase
from lcm_ml.errors import LcmError
from lcm_ml.frames.frame import Frame, make_frame
from lcm_ml.frames.splits import split_by_date
from lcm_ml.warehouse.contracts import tables

HIGH = 0.45
LEVERS = {
    "letters_84d": {"direction": "up"},
    "coupon_share": {"direction": "up", "most": 0.8},
    "complaints_84d": {"direction": "down"},
}


@pytest.fixture(scope="module")
def frame() -> Frame:
    """Users whose churn depends on three levers that nothing is tied to, with some values missing, and on recency."""
    data = churn_data(dates=4, users=400)
    rng = np.random.default_rng(1)
    letters, share, complaints = (
        rng.poisson(2, data.height), rng.beta(1.2, 3, data.height).round(3), rng.poisson(1, data.height)
    )  # fmt: skip
    z = 0.06 * data["days_since_last_purchase"].to_numpy() - 0.5 * letters - 2.5 * share + 0.7 * complaints
    missing = rng.random(data.height) < 0.05
    return make_frame(
        data.with_columns(
            is_churned=rng.random(data.height) < 1 / (1 + np.exp(-z)),
            letters_84d=pl.Series(letters),
            coupon_share=pl.Series(np.where(missing, np.nan, share)).fill_nan(None),
            complaints_84d=pl.Series(complaints),
        ),
        28,
    )


@pytest.fixture(scope="module", params=["logistic", "xgboost"])
def model(request: pytest.FixtureRequest, frame: Frame) -> ChurnModel:
    quick = {"logistic": {}, "xgboost": {"learning_rate": 0.3}}[request.param]
    recipe = Recipe(request.param, request.param, quick)
    return fit_model(recipe, frame, split_by_date(frame.dates(), 28), 0).model


def hints_of(model: ChurnModel, day: Frame, levers: dict[str, Any] = LEVERS, high: float = HIGH) -> pl.DataFrame:
    return pl.concat(hint_rows(model, "v", day, model.predict(day.data), "r", high, levers).rows.frames())


def changed(user: pl.DataFrame, changes: dict[str, list[float]]) -> pl.DataFrame:
    return user.with_columns(pl.lit(to).cast(user.schema[name]).alias(name) for name, (_, to) in changes.items())


def total_move(day: Frame, changes: dict[str, list[float]]) -> float:
    """In shares of the users scored together that lie between the ends, those at an end counting half."""

    def rank(name: str, value: float) -> float:
        values = day.data.get_column(name).drop_nulls()
        return float((values < value).sum() + (values == value).sum() / 2) / values.len()

    return round(sum(abs(rank(name, to) - rank(name, before)) for name, (before, to) in changes.items()), 8)


def smallest_by_brute_force(model: ChurnModel, day: Frame, user: pl.DataFrame) -> tuple[int, float] | None:
    """Changes and total move of the best of all combinations, by predicting each of them."""

    def allowed(lever: Lever, targets: Any) -> list[dict[str, list[float]]]:
        before = user.item(0, lever.feature)
        moves = (
            [] if before is None else [v for v in targets if (v > before) == (lever.direction == "up") and v != before]
        )
        return [{lever.feature: [before, value]} for value in moves]

    levers = find_levers(model, day, LEVERS)[0]
    tried = [change for lever in levers for change in allowed(lever, lever.targets)]
    for some in itertools.product(*([{}, *allowed(lever, lever.coarse)] for lever in levers)):
        if sum(map(len, some)) > 1:
            tried.append({name: ends for change in some for name, ends in change.items()})
    after = model.predict(pl.concat(changed(user, changes) for changes in tried))
    found = [
        (len(changes), total_move(day, changes))
        for changes, probability in zip(tried, after, strict=True)
        if probability < HIGH
    ]
    return min(found, default=None)


def test_the_change_is_the_smallest_of_all(model: ChurnModel, frame: Frame) -> None:
    day = frame.at(LAST)
    rows = hints_of(model, day)
    assert rows.height == (model.predict(day.data) >= HIGH).sum() > 50
    assert {1, 2} <= set(rows["n_changes"])
    for count in rows["n_changes"].unique():
        for row in rows.filter(pl.col("n_changes") == count).head(5).iter_rows(named=True):
            user = day.data.filter(pl.col("user_id") == row["user_id"])
            best = smallest_by_brute_force(model, day, user)
            found = (count, total_move(day, json.loads(row["changes"]))) if count else None
            assert found == pytest.approx(best) if best else found is None


def test_a_hint_really_leaves_the_band(model: ChurnModel, frame: Frame) -> None:
    day = frame.at(LAST)
    rows = hints_of(model, day)
    told = rows.filter(pl.col("n_changes") > 0)
    moved = pl.concat(
        changed(day.data.filter(pl.col("user_id") == user), json.loads(changes))
        for user, changes in told.select("user_id", "changes").iter_rows()
    )
    again = model.predict(moved)
    assert again == pytest.approx(told["probability_after"].to_numpy(), abs=1e-6)
    assert again.max() < HIGH <= told["churn_probability"].min()
    assert rows.filter(pl.col("n_changes") == 0)["probability_after"].is_null().all()


def test_only_levers_move_their_way_to_values_that_occur(model: ChurnModel, frame: Frame) -> None:
    day = frame.at(LAST)
    for row in hints_of(model, day).iter_rows(named=True):
        user = day.data.filter(pl.col("user_id") == row["user_id"]).row(0, named=True)
        changes = json.loads(row["changes"])
        assert len(changes) == row["n_changes"] <= 3
        for name, (before, after) in changes.items():
            assert before == user[name]
            assert after in set(day.data[name])
            assert (after > before) == (LEVERS[name]["direction"] == "up")
            assert after <= LEVERS[name].get("most", np.inf)
            assert name == "coupon_share" or (isinstance(after, int) and isinstance(before, int))


def test_rows_fit_their_contract_and_read_like_sentences(model: ChurnModel, frame: Frame) -> None:
    rows = hints_of(model, frame.at(LAST))
    assert sorted(rows.columns) == sorted(tables("ml")["churn_hints"].column_names)
    one = rows.filter((pl.col("n_changes") == 1) & pl.col("changes").str.contains("letters"))["hint"][0]
    assert one.startswith("letters 84d: from ")
    assert phrase("sessions_28d").change(1, 4) == "visits in the last 28 days: from 1 to 4"
    assert (
        phrase("discount_share_84d").change(0.12, 0.25)
        == "from 12% to 25% of the value was discount in the last 84 days"
    )
    assert phrase("days_since_last_touch").change(61, 20) == "from 61 to 20 days since the last campaign contact"


def test_nobody_in_the_band_and_no_levers(model: ChurnModel, frame: Frame) -> None:
    day = frame.at(LAST)
    none = hint_rows(model, "v", day, model.predict(day.data), "r", 1.1, LEVERS)
    assert none.rows.height == 0
    assert none.summary()["leaving"] == 0
    helpless = hints_of(model, day, {})
    assert helpless["n_changes"].to_list() == [0] * helpless.height
    assert helpless["changes"].unique().to_list() == ["{}"]


def test_a_feature_that_follows_another_is_no_lever(model: ChurnModel, frame: Frame) -> None:
    twin = pl.col("days_since_last_purchase").mul(3).add(0.01 * pl.col("noise"))
    day = make_frame(frame.data.with_columns(letters_84d=twin), 28).at(LAST)
    levers, left_out = find_levers(model, day, LEVERS)
    assert [lever.feature for lever in levers] == ["coupon_share", "complaints_84d"]
    assert "days_since_last_purchase" in left_out["letters_84d"]
    assert find_levers(model, day, {"same": {"direction": "up"}})[1] == {"same": "the model does not use it"}


def test_many_values_are_thinned_to_values_that_occur(model: ChurnModel, frame: Frame) -> None:
    levers, _ = find_levers(model, frame.at(LAST), LEVERS)
    share = next(lever for lever in levers if lever.feature == "coupon_share")
    assert COARSE_VALUES < len(share.targets) <= VALUES
    assert len(share.coarse) <= COARSE_VALUES
    assert set(share.coarse) <= set(share.targets) <= set(frame.at(LAST).data["coupon_share"])
    low, high = np.quantile(frame.at(LAST).data["coupon_share"].drop_nulls(), [0.05, 0.95], method="nearest")
    assert low <= share.targets.min() < share.targets.max() <= high


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"leters_84d": {"direction": "up"}}, "no feature"),
        ({"channel": {"direction": "up"}}, "no number"),
        ({"letters_84d": {"direction": "sideways"}}, "direction"),
        ({"letters_84d": "up"}, "direction"),
        ({"letters_84d": {"direction": "up", "most": "many"}}, "numbers"),
        ({"views_28d": {"direction": "up"}, "events_84d": {"direction": "up"}}, "move together"),
    ],
)
def test_a_var_that_cannot_be_used_is_explained(
    model: ChurnModel, frame: Frame, entry: dict[str, Any], words: str
) -> None:
    day = frame.at(LAST)
    wide = make_frame(day.data.with_columns(views_28d=pl.col("letters_84d"), events_84d=pl.col("complaints_84d")), 28)
    with pytest.raises(LcmError, match=words) as error:
        find_levers(model, wide, entry)
    assert "actionable_features" in str(error.value)


# --- users that could exist: the features of a history, and of the same history with something added

days = st.integers(1, 300)
history = st.fixed_dictionaries(
    {
        "visits": st.lists(days, min_size=1, max_size=8),
        "touches": st.lists(st.tuples(days, st.booleans()), max_size=8),
        "orders": st.lists(
            st.tuples(st.integers(1, 84), st.integers(1, 4), st.integers(5, 90)), min_size=1, max_size=5
        ),
    }
)


def features_of(past: dict[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """What user_features says of it: visits by days ago, contacts with their responses, orders of today's taste."""
    visits, touches, orders = past["visits"], past["touches"], past["orders"]
    found: dict[str, float] = {}
    for window, limit in (("28d", 28), ("84d", 84), ("total", 10**6)):
        found[f"sessions_{window}"] = found[f"events_{window}"] = sum(day <= limit for day in visits)
        found[f"touches_{window}"] = sum(day <= limit for day, _ in touches)
        found[f"responses_{window}"] = sum(day <= limit for day, responded in touches if responded)
    found["sessions_trend_28d"] = sum(day <= 28 for day in visits) - sum(28 < day <= 56 for day in visits)
    found["days_since_last_event"] = min(visits)
    found["active_days_84d"] = len({day for day in visits if day <= 84})
    found["days_since_last_touch"] = min((day for day, _ in touches), default=np.nan)
    found["response_rate_total"] = found["responses_total"] / found["touches_total"] if touches else np.nan
    found["orders_84d"] = found["orders_total"] = len(orders)
    found["session_to_order_84d"] = len(orders) / found["sessions_84d"] if found["sessions_84d"] else np.nan
    lines, paid = sum(count for _, count, _ in orders), float(sum(money for _, _, money in orders))
    found["amount_84d"] = found["amount_total"] = paid
    found["order_value_84d"] = paid / len(orders)
    found["lines_per_order_84d"] = found["products_per_order_total"] = lines / len(orders)
    found["categories_per_order_total"] = lines / len(orders)
    found["line_value_84d"] = found["line_value_total"] = paid / lines
    for window in ("84d", "total"):
        found[f"categories_{window}"] = found[f"products_{window}"] = lines
    discount = past.get("discount", 0.0)
    found["discount_share_84d"] = found["discount_share_total"] = discount / (paid + discount)
    return {name: np.array([float(value)]) for name, value in found.items() if not name.startswith("responses_28")}


@settings(max_examples=60, deadline=None)
@given(past=history, more=st.integers(1, 4))
def test_moves_are_those_of_a_history_with_more_in_it(past: dict[str, Any], more: int) -> None:
    before = features_of(past)
    recent = [day for day in past["visits"] if day <= 28]
    bought = past["orders"][0]
    moves = {
        "sessions_28d": past | {"visits": past["visits"] + [min(recent, default=28)] * more},
        "touches_84d": past | {"touches": past["touches"] + [(84, False)] * more},
        # One category more is one line more, of a product that is new too, in an order that there was.
        "categories_84d": past | {"orders": [(bought[0], bought[1] + more, bought[2]), *past["orders"][1:]]},
        "discount_share_84d": past | {"discount": 10.0 * more},
    }
    for feature, then in moves.items():
        expected = features_of(then)
        found = settle(before, feature, expected[feature])
        for name, value in expected.items():
            assert found[name][0] == pytest.approx(value[0], nan_ok=True), (feature, name)
        assert moved_along(before, feature) >= {n for n in before if not np.array_equal(before[n], expected[n], True)}


def test_a_count_that_falls_takes_its_parts_along() -> None:
    before = features_of({"visits": [3], "touches": [(5, True), (90, False)], "orders": [(3, 1, 10)]})
    found = settle(before, "touches_84d", np.array([0.0]))
    assert (found["touches_28d"][0], found["touches_total"][0]) == (0, 1)
    assert found["days_since_last_touch"][0] == 85
    assert found["response_rate_total"][0] == 1


def test_there_are_no_more_responses_than_contacts() -> None:
    before = features_of({"visits": [3], "touches": [(5, True)], "orders": [(3, 1, 10)]})
    more = settle(before, "responses_84d", np.array([2.0]))
    assert not possible(more)[0]
    assert possible(settle(more, "touches_84d", np.array([2.0])))[0]
