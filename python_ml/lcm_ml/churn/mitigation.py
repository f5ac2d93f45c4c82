"""What would narrow a gap between groups, and what it would cost. Nothing is served from here.

- Group thresholds (Hardt, Price and Srebro 2016, "Equality of opportunity in supervised learning"): each group has a
  threshold of its own, so that the same share of its churned users is missed. Theirs are drawn at random in part, ours
  are not: two users alike are treated alike.
- Reweighing (Kamiran and Calders 2012, "Data preprocessing techniques for classification without discrimination"):
  training rows are weighted so that group and label are independent. Weights become repeats of rows by systematic
  resampling, which every estimator can take.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date

import numpy as np
import polars as pl

from lcm_ml.churn.estimator import FloatArray
from lcm_ml.churn.fairness import FEWEST, Audit, Decision
from lcm_ml.churn.metrics import Measured, Outcome, Resamples
from lcm_ml.churn.model import ChurnModel, refit
from lcm_ml.churn.permutation import BoolArray, IntArray
from lcm_ml.churn.profit import Costs
from lcm_ml.churn.segments import measure_group
from lcm_ml.errors import LcmError
from lcm_ml.frames.frame import Frame
from lcm_ml.frames.splits import observed_before

GROUP_THRESHOLDS, REWEIGHING = "group_thresholds", "reweighing"
STEPS = 1001

COSTS = ("auc", "log_loss", "selection_rate", "expected_profit", "realised_profit")
"""What a mitigation may cost, measured on all users."""


@dataclass(frozen=True)
class Tried:
    """What a mitigation starts from.

    Attributes:
        model: that predicted the test date.
        frame: labelled rows, those of its training dates and of the test date among them.
        day: the test date.
        threshold: for users of no group, and without the mitigation for all.
    """

    model: ChurnModel
    frame: Frame
    day: date
    threshold: float


def mitigated(
    kind: str, tried: Tried, decision: Decision, attribute: pl.DataFrame, found: Audit
) -> tuple[Decision, dict[str, float]]:
    """The test date, decided with a mitigation for the groups that the audit shows; other users stay as they are.

    Args:
        kind: GROUP_THRESHOLDS or REWEIGHING.
        tried: model, rows and threshold.
        decision: without it.
        attribute: user_id and the attribute, one row per user.
        found: the audit without mitigation.

    Returns:
        The decision, and for GROUP_THRESHOLDS the threshold of each group.

    Raises:
        LcmError: with fewer than two groups, too few dates, or marts that are not those of the fit.
    """
    shown = [group.level for group in found.groups if group.figures]
    if len(shown) < 2:
        raise LcmError(
            f"{found.attribute} has fewer than two groups that are large enough to compare",
            "take another --attribute, or lower the var min_group_size and run `dbt build`",
        )
    outcome = decision.outcome
    test = _test_rows(tried, outcome)
    if kind == REWEIGHING:
        train = tried.frame.at(*tried.model.trained_on)
        levels = shown_levels(train.data.get_column("user_id"), attribute, shown)
        again = refit(tried.model, reweighed(train, levels, tried.model.estimator.seed))
        probability = again.predict(test.data)
        return Decision(replace(outcome, score=probability, probability=probability), probability > tried.threshold), {}
    known = _validation_outcome(tried)
    thresholds = group_thresholds(known, shown_levels(pl.Series(known.users), attribute, shown), tried.threshold)
    levels = shown_levels(pl.Series(outcome.users), attribute, shown)
    return Decision(outcome, contacted_by(outcome.probability, levels, thresholds, tried.threshold)), thresholds


def shown_levels(users: pl.Series, attribute: pl.DataFrame, shown: list[str]) -> pl.Series:
    """The group of each user; null for users without a value and of a suppressed group."""
    name = next(column for column in attribute.columns if column != "user_id")
    own = attribute.filter(pl.col(name).is_in(shown))
    return users.rename("user_id").to_frame().join(own, on="user_id", how="left", maintain_order="left")[name]


def group_thresholds(known: Outcome, levels: pl.Series, threshold: float) -> dict[str, float]:
    """Thresholds that miss the same share of churned users in each group and contact as many users as one threshold.

    Args:
        known: predictions of a date before the test date, and what happened.
        levels: the group of each user, null for those who keep the one threshold.
        threshold: the one threshold.

    Returns:
        Level to threshold. A group with fewer than FEWEST churned users keeps the one threshold.
    """
    members = {level: (levels == level).fill_null(False).to_numpy() for level in sorted(levels.drop_nulls().unique())}
    churned = {level: known.probability[own & (known.y > 0)] for level, own in members.items()}
    able = [level for level in members if len(churned[level]) >= FEWEST]
    shares = np.linspace(0, 1, STEPS)
    # With the share of churned users to miss each group's threshold follows: shape (groups, shares).
    candidates = np.array([np.quantile(churned[level], shares) for level in able]).reshape(len(able), STEPS)
    wanted = sum(int((known.probability[members[level]] > threshold).sum()) for level in able)
    contacts = np.zeros(STEPS)
    for level, limits in zip(able, candidates, strict=True):
        ranked = np.sort(known.probability[members[level]])
        contacts += len(ranked) - np.searchsorted(ranked, limits, side="right")
    best = int(np.argmin(np.abs(contacts - wanted)))
    found = {level: float(limits[best]) for level, limits in zip(able, candidates, strict=True)}
    return {level: found.get(level, threshold) for level in members}


def contacted_by(
    probability: FloatArray, levels: pl.Series, thresholds: Mapping[str, float], otherwise: float
) -> BoolArray:
    """Who is above the threshold of its group."""
    limits = levels.replace_strict(thresholds, default=otherwise, return_dtype=pl.Float64).fill_null(otherwise)
    return np.asarray(probability > limits.to_numpy())


def reweighing_weights(levels: pl.Series, y: FloatArray) -> FloatArray:
    """P(group) P(label) / P(group, label) of each row, shape (rows,): weighted, group and label are independent.

    Rows without a group weigh 1. A group with one label only stays so: no weight adds what is not there.
    """
    cells = pl.DataFrame({"level": levels, "y": y, "row": np.arange(len(y))})
    known = cells.filter(pl.col("level").is_not_null()).with_columns(
        weight=(pl.len().over("level") * pl.len().over("y")) / (pl.len() * pl.len().over("level", "y"))
    )
    weights = np.ones(len(y))
    weights[known.get_column("row").to_numpy()] = known.get_column("weight").to_numpy()
    return weights


def repeats(weights: FloatArray, cells: IntArray, seed: int) -> IntArray:
    """How often each row is taken: its weight rounded down or up, and each cell's sum as its weights' (systematic
    resampling, Madow 1949). Rows of weight 1 are taken once.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(weights))
    order = order[np.argsort(cells[order], kind="stable")]
    taken = np.empty(len(weights), dtype=np.int64)
    taken[order] = np.diff(np.floor(np.r_[0.0, np.cumsum(weights[order])] + rng.random())).astype(np.int64)
    return taken


def reweighed(train: Frame, levels: pl.Series, seed: int) -> Frame:
    """Training rows, repeated or left out so that group and label are independent."""
    y = train.labels()
    cells = levels.rank("dense").fill_null(0).cast(pl.Int64).to_numpy() * 2 + y.astype(np.int64)
    rows = np.repeat(np.arange(len(y)), repeats(reweighing_weights(levels, y), cells, seed))
    return replace(train, data=train.data[rows])


def _test_rows(tried: Tried, outcome: Outcome) -> Frame:
    test = tried.frame.at(tried.day)
    same = test.data.get_column("user_id").to_list() == outcome.users.tolist() and (test.labels() == outcome.y).all()
    if not same or not set(tried.model.trained_on) <= set(tried.frame.dates()):
        raise LcmError("the marts changed since the champion was measured", "run `lcm-ml fit`, then try again")
    return test


def _validation_outcome(tried: Tried) -> Outcome:
    """The model's last training date, predicted with the same settings from what was known by then."""
    model, frame = tried.model, tried.frame
    validation = model.trained_on[-1]
    earlier = observed_before(model.trained_on, validation, frame.horizon_days)
    if not earlier:
        raise LcmError(
            f"no date before {validation} can train a model that chooses thresholds on it",
            "load more history, or take --mitigate reweighing",
        )
    rows = frame.at(validation)
    probability = refit(model, frame.at(*earlier)).predict(rows.data)
    return Outcome(rows.data.get_column("user_id").to_numpy(), rows.labels(), probability, probability)


def measure_cost(decision: Decision, costs: Costs, draws: Resamples) -> dict[str, Measured]:
    """COSTS of all users of the date, resampled."""
    outcome, contacted = decision.outcome, decision.contacted
    weights = draws.weights(outcome.users)
    # Users drawn twice count twice; the size of the shop stays.
    weights *= len(outcome.y) / weights.sum(axis=0)
    measured = measure_group(outcome, draws)
    sums = {
        "selection_rate": contacted / len(outcome.y),
        "expected_profit": costs.profit(outcome.probability) * contacted,
        "realised_profit": costs.profit(outcome.y) * contacted,
    }
    summed = {name: Measured(float(each.sum()), each @ weights) for name, each in sums.items()}
    return {"auc": measured["auc"], "log_loss": measured["log_loss"], **summed}
