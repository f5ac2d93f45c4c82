"""Reasons add up to the score, and read like sentences."""

import re

import numpy as np
import polars as pl
import pytest
import yaml
from lifecycle import ROOT
from synthetic import LAST, churn_frame

from lcm_ml.churn.calibration import Calibration, fit_calibration
from lcm_ml.churn.estimator import recipes
from lcm_ml.churn.metrics import log_odds
from lcm_ml.churn.model import ChurnModel, fit_model
from lcm_ml.churn.reasons import reason_rows, usual_values
from lcm_ml.churn.wording import NAMED, phrase
from lcm_ml.frames.frame import Frame
from lcm_ml.frames.splits import split_by_date


@pytest.fixture(scope="module")
def frame():
    return churn_frame()


def with_calibration(model: ChurnModel, kind: str) -> ChurnModel:
    rng = np.random.default_rng(0)
    p = rng.random(400)
    found = fit_calibration(kind, p, (rng.random(400) < p**1.5).astype(float)) if kind != "none" else Calibration()
    assert found.kind == kind
    return ChurnModel(model.encoding, model.estimator, found, model.trained_on, model.horizon_days, model.constant)


def all_reasons(model: ChurnModel, day: Frame, probability: np.ndarray, top: int) -> pl.DataFrame:
    return pl.concat(reason_rows(model, "v", day, probability, "r", top, usual_values(model, day)).frames())


@pytest.mark.parametrize("calibration", ["none", "sigmoid", "isotonic"])
@pytest.mark.parametrize(
    ("name", "method"),
    [("xgboost", "tree_shap"), ("logistic", "linear"), ("decision_tree", "occlusion"), ("ensemble", "occlusion")],
)
def test_contributions_add_up_to_the_log_odds_of_the_score(frame, name, method, calibration):
    model = with_calibration(
        fit_model(recipes([name])[0], frame, split_by_date(frame.dates(), 28), 0).model, calibration
    )
    day = frame.at(LAST)
    probability = model.predict(day.data)
    rows = all_reasons(model, day, probability, 3)
    assert rows["method"].unique().to_list() == [method]
    assert rows.height == day.data.height * 5
    assert rows.select("user_id", "reason_rank").is_unique().all()
    total = rows.group_by("user_id", maintain_order=True).agg(pl.col("contribution").sum())
    expected = dict(zip(day.data["user_id"], log_odds(probability), strict=True))
    assert [expected[user] for user in total["user_id"]] == pytest.approx(total["contribution"].to_list(), abs=1e-5)
    if calibration == "none" and method != "occlusion":
        # Exact: what is left for the remainder is what the other features say.
        everything = all_reasons(model, day, probability, 20)
        rest = everything.filter(pl.col("reason") == "everything else")["contribution"]
        assert rest.abs().max() < 1e-4


def test_what_raises_the_risk_is_told_as_raising_it(frame):
    model = fit_model(recipes(["xgboost"])[0], frame, split_by_date(frame.dates(), 28), 0).model
    day = frame.at(LAST)
    rows = all_reasons(model, day, model.predict(day.data), 3)
    recency = rows.filter(pl.col("feature") == "days_since_last_purchase").with_columns(
        pl.col("feature_value").cast(pl.Float64)
    )
    longest, shortest = recency.sort("feature_value", descending=True).head(20), recency.sort("feature_value").head(20)
    assert (longest["contribution"] > 0).all()
    assert (shortest["contribution"] < 0).all()
    assert re.fullmatch(r"\d+ days? since the last purchase \(others: \d+\)", longest["reason"][0])


def test_every_feature_has_its_words():
    models = yaml.safe_load((ROOT / "models/marts/_marts__models.yml").read_text())["models"]
    columns = next(model["columns"] for model in models if model["name"] == "user_features")
    skipped = {"as_of_date", "user_id", "is_active_buyer"}
    unknown = [
        column["name"]
        for column in columns
        if column["name"] not in skipped
        and not column["name"].endswith("_hash")
        and column["name"] not in NAMED
        and phrase(column["name"]).kind == "named"
    ]
    assert unknown == []


@pytest.mark.parametrize(
    ("feature", "value", "told"),
    [
        ("days_since_last_purchase", 61, "61 days since the last purchase"),
        ("days_since_last_purchase", 1, "1 day since the last purchase"),
        ("orders_28d", 0, "no order in the last 28 days"),
        ("orders_28d", 1, "1 order in the last 28 days"),
        ("categories_84d", 7, "7 categories bought in the last 84 days"),
        ("amount_total", 1234.5, "1,234 spent so far"),
        ("discount_share_84d", 0.256, "26% of the value was discount in the last 84 days"),
        ("orders_trend_28d", -3, "-3 orders in the last 28 days against the 28 before"),
        ("favourite_channel", "app", "favourite channel: app"),
        ("is_suspected_bot", True, "looks like a bot: yes"),
        ("rating_mean", None, "unknown: stars given on average"),
        ("my_own_feature", 2.0, "my own feature: 2"),
    ],
)
def test_phrases(feature, value, told):
    assert phrase(feature).tell(value) == told
