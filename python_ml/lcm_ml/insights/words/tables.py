"""Judged texts summed up: by topic, and by product."""

from datetime import date, timedelta

import numpy as np
import polars as pl

from lcm_ml.insights.intervals import mean_interval
from lcm_ml.insights.words.judging import TOPIC_DAYS
from lcm_ml.insights.words.topics import Topics

FEWEST_REVIEWS = 3
"""Fewer reviews of a product have no interval."""


def topic_rows(judged: pl.DataFrame, intents: pl.DataFrame, topics: dict[str, Topics], since: date) -> pl.DataFrame:
    """One row per language and topic: its words, and the texts of the window that are about it.

    Args:
        judged: rows of ml.text_sentiments.
        intents: text_id and intent, null where the shop gave none.
        topics: by language.
        since: first day of the window.
    """
    window = judged.filter(pl.col("written_date") >= since).join(intents, on="text_id", how="left")
    rows = []
    for language, fitted in topics.items():
        own = window.filter(pl.col("language") == language)
        for topic, words in sorted(zip(fitted.ids, fitted.words, strict=True)):
            about = own.filter(pl.col("topic_id") == topic)
            by_user = about.group_by("user_id", maintain_order=True).agg(
                pl.col("sentiment").mean(), pl.col("sentiment").count().alias("n")
            )
            known = by_user.filter(pl.col("n") > 0).sort("user_id")
            mean = mean_interval(known["sentiment"], known["n"])
            labelled = about["intent"].drop_nulls()
            counts = labelled.value_counts(sort=True).sort(["count", "intent"], descending=[True, False])
            rows.append(
                {
                    "language": language,
                    "topic_id": topic,
                    "words": ", ".join(words),
                    "n_texts": about.height,
                    "n_reviews": about.filter(pl.col("kind") == "review").height,
                    "n_tickets": about.filter(pl.col("kind") == "ticket").height,
                    "share": about.height / own.height if own.height else None,
                    "intent": counts["intent"][0] if counts.height else None,
                    "intent_share": counts["count"][0] / len(labelled) if counts.height else None,
                    **dict(zip(("mean_sentiment", "ci_low", "ci_high"), map(_known, mean), strict=True)),
                    "quality": _known(fitted.quality),
                }
            )
    schema = {
        **{"language": pl.String, "topic_id": pl.Int64, "words": pl.String},
        **dict.fromkeys(("n_texts", "n_reviews", "n_tickets"), pl.Int64),
        **{"share": pl.Float64, "intent": pl.String, "intent_share": pl.Float64},
        **dict.fromkeys(("mean_sentiment", "ci_low", "ci_high", "quality"), pl.Float64),
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def product_rows(judged: pl.DataFrame, products: pl.DataFrame, as_of: date) -> pl.DataFrame:
    """One row per product reviewed in the last TOPIC_DAYS: mean sentiment with Student's 95 % interval.

    Args:
        judged: rows of ml.text_sentiments.
        products: text_id, product_id and rating of reviews.
        as_of: the as_of_date.
    """
    from scipy.stats import t

    reviews = judged.filter(
        pl.col("written_date") >= as_of - timedelta(days=TOPIC_DAYS), pl.col("sentiment").is_not_null()
    ).join(products.filter(pl.col("product_id").is_not_null()), on="text_id")
    found = (
        reviews.group_by("product_id")
        .agg(
            n_reviews=pl.len(),
            mean_sentiment=pl.col("sentiment").sort_by("text_id").mean(),
            spread=pl.col("sentiment").sort_by("text_id").std(),
            negative_share=(pl.col("label") == "negative").mean(),
            mean_rating=pl.col("rating").sort_by("text_id").mean(),
        )
        .sort("product_id")
    )
    n = found["n_reviews"].to_numpy().astype(float)
    half = t.ppf(0.975, np.maximum(n - 1, 1)) * found["spread"].fill_null(0.0).to_numpy() / np.sqrt(n)
    known = pl.Series(n >= FEWEST_REVIEWS)
    return found.with_columns(
        ci_low=pl.when(known).then((pl.col("mean_sentiment") - half).clip(-1, 1)),
        ci_high=pl.when(known).then((pl.col("mean_sentiment") + half).clip(-1, 1)),
    ).drop("spread")


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None
