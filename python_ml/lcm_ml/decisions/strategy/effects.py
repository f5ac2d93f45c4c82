"""Profit of a contact beside the users that were held back at random, as a whole and for each way to cut it."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from lcm_ml.decisions.actions.rules import CONTACT, Rule
from lcm_ml.decisions.experiments.effects import Effects, compare_arms, strata_columns
from lcm_ml.frames.touches import CONTROL
from lcm_ml.insights.significance import holm

LEVEL = 0.05
LEAST_ARM = 30
"""Users of each arm, below which nothing is said."""
WHOLE = ("all", "offer", "channel", "stage", "uplift_segment")
RULE = "rule"
WITHIN_RULE = ("risk", "stage", "uplift_segment")
"""Columns by which a rule's own users are told apart; risk is a third by churn probability."""


@dataclass(frozen=True)
class Cell:
    """Users that an effect is told of; `low` and `high` are the ends of a third by churn probability."""

    dimension: str
    level: str
    rows: pl.DataFrame
    low: float | None = None
    high: float | None = None


def within(rule: str, dimension: str) -> str:
    """Name of the dimension that cuts the users of one rule."""
    return f"{rule}:{dimension}"


def cells(sent: pl.DataFrame, rules: Sequence[Rule]) -> Iterator[Cell]:
    """Every group that effects are told of: all, each level of WHOLE, each rule, and each rule's own groups.

    Of a rule count the users, offers and channels it would still be for, as it is now: what it did before it was
    changed is past.
    """
    yield Cell("all", "all", sent)
    for dimension in WHOLE[1:]:
        for level, rows in _groups(sent, dimension):
            yield Cell(dimension, level, rows)
    for rule in (rule for rule in rules if rule.action == CONTACT):
        rows = sent.filter((pl.col("rule_id") == rule.rule_id) & rule.fits() & rule.carries())
        if rows.is_empty():
            continue
        yield Cell(RULE, rule.rule_id, rows)
        yield from _thirds(rule.rule_id, rows)
        for dimension in WITHIN_RULE[1:]:
            groups = list(_groups(rows, dimension))
            if len(groups) > 1:
                for level, part in groups:
                    yield Cell(within(rule.rule_id, dimension), level, part)


def _groups(rows: pl.DataFrame, column: str) -> Iterator[tuple[str, pl.DataFrame]]:
    for (level,), group in rows.drop_nulls(column).sort(column).group_by(column, maintain_order=True):
        yield str(level), group


def _thirds(rule: str, rows: pl.DataFrame) -> Iterator[Cell]:
    known = rows.filter(pl.col("churn_probability").is_not_null())
    if known.is_empty():
        return
    values = known["churn_probability"].to_numpy()
    # Edges that a marketer can write down.
    inner = np.unique(np.round(np.quantile(values, [1 / 3, 2 / 3]), 2))
    edges = np.unique(np.concatenate([[values.min()], inner, [values.max()]]))
    if len(edges) < 3:
        return
    for place, (low, high) in enumerate(itertools.pairwise(edges)):
        is_last = place == len(edges) - 2
        value = pl.col("churn_probability")
        part = known.filter((value >= low) & ((value <= high) if is_last else (value < high)))
        yield Cell(within(rule, "risk"), f"{low:.2f} to {high:.2f}", part, float(low), float(high))


def profit_of(sent: pl.DataFrame, margin: float) -> pl.Series:
    """Each row's profit: margin of its spend; less the discount on one order and the contact, where contacted."""
    one_order = pl.when(pl.col("orders") > 0).then(pl.col("spend") / pl.col("orders")).otherwise(0.0)
    paid = pl.col("discount_share").fill_null(0.0) * one_order.clip(0) + pl.col("contact_cost").fill_null(0.0)
    contacted = pl.col("arm") != CONTROL
    return sent.select(margin * pl.col("spend") - pl.when(contacted).then(paid).otherwise(0.0)).to_series()


def compared(rows: pl.DataFrame, value: pl.Series) -> Effects | None:
    """Contacted beside held back users, adjusted for campaign, earlier spend and risk; None below LEAST_ARM."""
    arm = (rows["arm"] != CONTROL).cast(pl.Int64).to_numpy()
    if min(arm.sum(), len(arm) - arm.sum()) < LEAST_ARM:
        return None
    risk = rows["churn_probability"]
    before = rows.select(
        pl.col("spend_before").fill_null(0.0),
        pl.col("churn_probability").fill_null(risk.mean() if risk.count() else 0.0),
        pl.col("churn_probability").is_null().cast(pl.Float64).alias("is_unscored"),
    )
    covariates = np.hstack([before.to_numpy(), strata_columns(rows["campaign_id"].to_list(), LEAST_ARM)])
    return compare_arms(value.to_numpy(), arm, 2, covariates)


def effects_of(sent: pl.DataFrame, rules: Sequence[Rule], margin: float, horizon_days: int) -> pl.DataFrame:
    """Profit per contact of every cell.

    p-values are corrected by Holm: those of rules and of groups within rules together, since proposals rest on any of
    them; the others within their dimension.

    Args:
        sent: as of frames.sent.sent_actions.
        rules: the active ones, in their order.
        margin: share of spend that is earned.
        horizon_days: of the outcomes.

    Returns:
        The columns of ml.strategy_effects but for the run's, and low and high of thirds by churn probability. Effects
        are null where an arm has fewer than LEAST_ARM users.
    """
    found = [_row(cell, margin, horizon_days) for cell in cells(sent, rules)]
    frame = pl.DataFrame(found, infer_schema_length=None)
    family = pl.when(pl.col("dimension").is_in(WHOLE)).then(pl.col("dimension")).otherwise(pl.lit(RULE))
    tested = frame.with_columns(family=family, place=pl.int_range(pl.len())).filter(pl.col("p_value").is_not_null())
    adjusted = [
        group.select("place", p_value_adjusted=pl.Series(holm(group["p_value"].to_numpy())))
        for _, group in tested.group_by("family", maintain_order=True)
    ]
    empty = pl.DataFrame(schema={"place": pl.Int64, "p_value_adjusted": pl.Float64})
    return (
        frame.with_columns(place=pl.int_range(pl.len()))
        .join(pl.concat([empty, *adjusted]), on="place", how="left", maintain_order="left")
        .drop("place")
    )


def _row(cell: Cell, margin: float, horizon_days: int) -> dict[str, object]:
    from scipy.special import stdtrit

    rows = cell.rows
    contacted = rows.filter(pl.col("arm") != CONTROL)
    held = rows.filter(pl.col("arm") == CONTROL)
    row: dict[str, object] = {
        "dimension": cell.dimension,
        "level": cell.level,
        "first_sent": rows["sent_date"].min(),
        "last_sent": rows["sent_date"].max(),
        "horizon_days": horizon_days,
        "n_treated": contacted.height,
        "n_control": held.height,
        "purchase_rate_treated": contacted["is_purchased"].mean(),
        "purchase_rate_control": held["is_purchased"].mean(),
        "expected_profit": contacted["expected_profit"].mean(),
        **dict.fromkeys(("profit", "ci_low", "ci_high", "p_value")),
        "low": cell.low,
        "high": cell.high,
    }
    effects = compared(rows, profit_of(rows, margin))
    if effects is None or not np.isfinite(effects.p_values[0]):
        return row
    profit, reach = float(effects.effects[0]), float(effects.errors[0] * stdtrit(effects.degrees[0], 1 - LEVEL / 2))
    return row | {
        "profit": profit,
        "ci_low": profit - reach,
        "ci_high": profit + reach,
        "p_value": float(effects.p_values[0]),
    }
