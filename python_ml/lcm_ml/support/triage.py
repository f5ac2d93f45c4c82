"""In which order to answer open tickets, and why."""

from collections.abc import Mapping

import polars as pl

from lcm_ml.errors import LcmError
from lcm_ml.support.corpus import UNKNOWN

PARTS = ("urgency", "sentiment", "value", "churn")
MIDDLE = 0.5
"""Of a part that is not known, and of an intent without an urgency."""
PRESSING = 0.6
"""A part from here on is named as a reason."""
TRIAGE = {
    "ticket_id": pl.String,
    "user_id": pl.String,
    "intent": pl.String,
    "intent_probability": pl.Float64,
    "sentiment": pl.Float64,
    "priority": pl.Float64,
    "priority_rank": pl.Int32,
    "reason": pl.String,
    "suggested_article_id": pl.String,
}


def triage_rows(
    tickets: pl.DataFrame, standing: pl.DataFrame, weights: Mapping[str, float], urgency: Mapping[str, float]
) -> pl.DataFrame:
    """Rank open tickets by the weighted mean of four parts, each 0 to 1.

    Urgency of the intent; negative sentiment, from 1 (sentiment -1) to 0 (1); value, from 1 (decile 1) to 0 (decile
    10); probability of churn. What is not known of a ticket or its user counts 0.5.

    Args:
        tickets: ticket_id, user_id, created_at, intent, intent_probability, sentiment, article_id.
        standing: user_id, value_decile, churn_probability.
        weights: of urgency, sentiment, value and churn, 0 or more; only their ratios matter.
        urgency: of intents, 0 to 1.

    Returns:
        Columns of TRIAGE, the first to be answered first.

    Raises:
        LcmError: when weights or urgencies make no sense.
    """
    _check(weights, urgency)
    total = sum(float(weights.get(name, 0)) for name in PARTS)
    parts = tickets.join(standing, on="user_id", how="left").with_columns(
        urgency_part=pl.col("intent").replace_strict(
            dict(urgency) or {UNKNOWN: MIDDLE}, default=MIDDLE, return_dtype=pl.Float64
        ),
        sentiment_part=((1 - pl.col("sentiment")) / 2).fill_null(MIDDLE),
        value_part=((10 - pl.col("value_decile").cast(pl.Float64)) / 9).fill_null(MIDDLE),
        churn_part=pl.col("churn_probability").fill_null(MIDDLE),
    )
    weighted = [pl.col(f"{name}_part") * (float(weights.get(name, 0)) / total) for name in PARTS]
    ranked = parts.with_columns(priority=pl.sum_horizontal(weighted).round(6)).sort(
        ["priority", "created_at", "ticket_id"], descending=[True, False, False]
    )
    shares = {name: float(weights.get(name, 0)) / total for name in PARTS}
    reasons = [_reason(row, shares) for row in ranked.iter_rows(named=True)]
    return ranked.with_columns(
        priority_rank=pl.int_range(1, pl.len() + 1),
        reason=pl.Series(reasons, dtype=pl.String),
        suggested_article_id="article_id",
    ).select(pl.col(name).cast(kind) for name, kind in TRIAGE.items())


def _reason(row: dict[str, object], shares: Mapping[str, float]) -> str:
    """The parts that press, by how much they add, in words."""
    words = {
        "urgency": "its intent is not recognised" if row["intent"] == UNKNOWN else f"{row['intent']} is urgent",
        "sentiment": "it sounds negative",
        "value": f"the user is worth much (value decile {row['value_decile']})",
        "churn": "the user may leave",
    }
    if row["churn_probability"] is not None:
        words["churn"] += f" ({row['churn_probability']:.0%})"
    strength = {name: float(str(row[f"{name}_part"])) for name in PARTS}
    pressing = [name for name in PARTS if strength[name] >= PRESSING and shares[name] > 0]
    told = [words[name] for name in sorted(pressing, key=lambda name: -strength[name] * shares[name])]
    return "; ".join(told) or "nothing about it presses"


def _check(weights: Mapping[str, float], urgency: Mapping[str, float]) -> None:
    for name, values, most in (("triage_weights", weights, float("inf")), ("intent_urgency", urgency, 1.0)):
        for key, value in values.items():
            if not isinstance(value, (int, float)) or not 0 <= value <= most:
                raise LcmError(f"the var {name} has {key}: {value!r}", f"take a number from 0 to {most:g}")
    unknown = [name for name in weights if name not in PARTS]
    if unknown or not sum(weights.values()):
        raise LcmError(
            f"the var triage_weights has no weight that counts, or unknown ones: {', '.join(unknown) or 'all are 0'}",
            f"give weights to {', '.join(PARTS)}",
        )
