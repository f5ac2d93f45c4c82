"""Who will respond to a campaign, and what touched users will spend: models compared on later campaigns."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from lcm_ml.churn.calibration import Calibration, choose_calibration
from lcm_ml.churn.encoding import Encoding, FloatMatrix, learn_encoding
from lcm_ml.churn.estimator import FloatArray
from lcm_ml.churn.metrics import Measured, Outcome, Resamples, figure, measure_outcome
from lcm_ml.decisions.later import Split, split_by_campaign
from lcm_ml.decisions.response_models import BASELINES, MODELS, RESPONSE, SPEND, Fitted, baseline
from lcm_ml.frames.touches import touch_features

FOLDS = 3
MIN_TOUCHES = 200
MIN_RESPONSES = 25
"""On each side of the split: with fewer the figures would say nothing."""
RESPONSE_METRICS = ("auc", "average_precision", "log_loss", "brier", "ece", "calibration_slope")
COMPARED = {RESPONSE: "past_rate", SPEND: "past_spend"}
DIFFERENCES = {RESPONSE: ("auc", "log_loss"), SPEND: ("mae", "rank_correlation")}
CHOSEN_BY = {RESPONSE: "log loss", SPEND: "squared error"}


@dataclass(frozen=True)
class Responses:
    """What is known of responses; empty frames and a note where there is too little.

    Attributes:
        metrics: target, model_name, is_chosen, calibration, metric, value, ci_low, ci_high, n_touches, n_campaigns.
        scores: user_id, campaign_kind, channel, is_open, response_probability, expected_spend, response_decile.
        chosen: the model of each target.
        note: why something is missing; None where nothing is.
        about: cut, touches on both sides, base rate.
    """

    metrics: pl.DataFrame
    scores: pl.DataFrame
    chosen: dict[str, str]
    note: str | None
    about: dict[str, Any]


def respond(
    touches: pl.DataFrame,
    to_score: Iterable[pl.DataFrame],
    days: int,
    seed: int = 0,
    advance: Callable[[str, float], None] = lambda _what, _share: None,
) -> Responses:
    """Compare the models on the later campaigns, choose on the earlier ones, and score.

    Args:
        touches: the treatment arm's touches whose outcome is known, with features (`frames.touches`).
        to_score: rows of users and campaign kinds with the same features, and is_open, some users at a time.
        days: of the outcome window.
        seed: of models and resamples.
        advance: told what is under way.
    """
    split = split_by_campaign(touches, days) if touches.height else None
    if note := _too_little(touches, split):
        return _nothing(note)
    assert split is not None
    about = {
        "cut": split.cut,
        "n_train": split.train.height,
        "n_test": split.test.height,
        "n_campaigns": split.test["campaign_id"].n_unique(),
        "base_rate": split.test["is_responded"].mean(),
        "train_rate": split.train["is_responded"].mean(),
    }
    encoding, _ = learn_encoding(touches, touch_features(touches))
    x = encoding.matrix(touches)
    metrics, chosen, models = [], {}, {}
    for place, target in enumerate((RESPONSE, SPEND)):
        advance(f"{target}: comparing", 0.4 * place)
        chosen[target], calibration, rows = _compared(split, target, days, seed)
        metrics.append(rows)
        models[target] = Fitted(chosen[target], target, x, _target(touches, target), seed), calibration
    del x
    advance("scoring", 0.8)
    scores = pl.concat([_scored(part, encoding, models) for part in to_score]).with_columns(response_decile=_decile())
    return Responses(pl.concat(metrics), scores, chosen, None, about)


def _scored(rows: pl.DataFrame, encoding: Encoding, models: dict[str, tuple[Fitted, Calibration]]) -> pl.DataFrame:
    x = encoding.matrix(rows)
    said = {target: calibration.apply(fitted.predict(x)) for target, (fitted, calibration) in models.items()}
    return rows.select(
        "user_id",
        "channel",
        "is_open",
        campaign_kind="kind",
        response_probability=pl.Series(said[RESPONSE]),
        expected_spend=pl.Series(said[SPEND]),
    )


def _decile() -> pl.Expr:
    """1 is the tenth of a kind's users that is most likely to respond; ties fall by user_id."""
    place = pl.struct(-pl.col("response_probability"), "user_id").rank("ordinal").over("campaign_kind")
    return ((place - 1) * 10 // pl.len().over("campaign_kind") + 1).cast(pl.Int32)


def _too_little(touches: pl.DataFrame, split: Split | None) -> str | None:
    if touches.is_empty():
        return "no campaign touch has an outcome that is known yet: load campaigns and campaign_touches"
    if split is None:
        return "there is only one campaign whose outcome is known: figures need later campaigns to be measured on"
    for part, rows in (("to learn from", split.train), ("to be measured on", split.test)):
        responses = int(rows["is_responded"].sum())
        if rows.height < MIN_TOUCHES or responses < MIN_RESPONSES:
            return (
                f"too few touches {part}: {rows.height} with {responses} responses; {MIN_TOUCHES} with "
                f"{MIN_RESPONSES} are needed on each side of the split by campaign"
            )
    return None


def _nothing(note: str) -> Responses:
    return Responses(pl.DataFrame(), pl.DataFrame(), {}, note, {})


def _matrices(train: pl.DataFrame, rows: pl.DataFrame) -> tuple[FloatMatrix, FloatMatrix]:
    encoding, _ = learn_encoding(train, touch_features(train))
    return encoding.matrix(train), encoding.matrix(rows)


def _target(rows: pl.DataFrame, target: str) -> FloatArray:
    return rows["is_responded" if target == RESPONSE else "spend"].cast(pl.Float64).to_numpy()


def _compared(split: Split, target: str, days: int, seed: int) -> tuple[str, Calibration, pl.DataFrame]:
    """The model that does best on the earlier campaigns, its calibration, and everybody's figures on the later ones."""
    x, x_test = _matrices(split.train, split.test)
    y, y_test = _target(split.train, target), _target(split.test, target)
    fold = _folds(split.train, seed)
    losses: dict[str, float] = {}
    said: dict[str, FloatArray] = {}
    maps: dict[str, Calibration] = {}
    for name in MODELS:
        aside = np.empty(len(y))
        for k in np.unique(fold):
            inside = fold == k
            aside[inside] = Fitted(name, target, x[~inside], y[~inside], seed).predict(x[inside])
        maps[name] = choose_calibration(aside, y, seed) if target == RESPONSE else Calibration()
        mapped = maps[name].apply(aside)
        losses[name] = _loss(y, mapped, target)
        said[name] = maps[name].apply(Fitted(name, target, x, y, seed).predict(x_test))
    best = min(losses, key=lambda name: losses[name])
    for name in BASELINES[target]:
        said[name] = baseline(name, y, split.test, days)
    users = split.test["user_id"].to_numpy().astype(str)
    resamples = Resamples([users], seed)
    measured = {name: _measured(target, users, y_test, each, resamples) for name, each in said.items()}
    rows = [
        {
            "target": target,
            "model_name": name,
            "is_chosen": name == best,
            "calibration": maps[name].kind if name in maps else "none",
            "metric": metric,
            **figure(value),
            "n_touches": len(y_test),
            "n_campaigns": split.test["campaign_id"].n_unique(),
        }
        for name, figures in measured.items()
        for metric, value in {**figures, **_differences(target, name, figures, measured)}.items()
    ]
    return best, maps[best], pl.DataFrame(rows, schema_overrides={"ci_low": pl.Float64, "ci_high": pl.Float64})


def _folds(train: pl.DataFrame, seed: int) -> npt.NDArray[np.int64]:
    """Fold of each row, all touches of a user in the same one."""
    users = train["user_id"].unique(maintain_order=True).sort()
    fold = np.random.default_rng(seed).permutation(len(users)) % FOLDS
    own = pl.DataFrame({"user_id": users, "fold": fold})
    return train.select("user_id").join(own, on="user_id", how="left", maintain_order="left")["fold"].to_numpy()


def _loss(y: FloatArray, said: FloatArray, target: str) -> float:
    if target == SPEND:
        return float(np.mean((y - said) ** 2))
    kept = np.clip(said, 1e-6, 1 - 1e-6)
    return float(-np.mean(y * np.log(kept) + (1 - y) * np.log(1 - kept)))


def _measured(
    target: str, users: npt.NDArray[np.str_], y: FloatArray, said: FloatArray, resamples: Resamples
) -> dict[str, Measured]:
    if target == RESPONSE:
        found = measure_outcome(Outcome(users, y, said, said), resamples)
        return {name: found[name] for name in RESPONSE_METRICS}
    from scipy.stats import rankdata

    weights = np.c_[np.ones(len(y)), resamples.weights(users)]
    total = weights.sum(axis=0)
    a, b = rankdata(y), rankdata(said)
    a, b = a - a.mean(), b - b.mean()
    # Ranks are those of all rows: only their weights are drawn again.
    mean_a, mean_b = a @ weights / total, b @ weights / total
    with np.errstate(divide="ignore", invalid="ignore"):
        correlation = ((a * b) @ weights / total - mean_a * mean_b) / np.sqrt(
            (a**2 @ weights / total - mean_a**2) * (b**2 @ weights / total - mean_b**2)
        )
    values = {
        "mae": np.abs(y - said) @ weights / total,
        "rmse": np.sqrt((y - said) ** 2 @ weights / total),
        "bias": (said - y) @ weights / total,
        "rank_correlation": correlation,
    }
    return {name: Measured(float(value[0]), value[1:]) for name, value in values.items()}


def _differences(
    target: str, name: str, figures: dict[str, Measured], measured: dict[str, dict[str, Measured]]
) -> dict[str, Measured]:
    """Paired with the user's own past rate or spend, which needs no model."""
    if name in BASELINES[target]:
        return {}
    naive = COMPARED[target]
    return {f"{metric}_less_{naive}": figures[metric].minus(measured[naive][metric]) for metric in DIFFERENCES[target]}
