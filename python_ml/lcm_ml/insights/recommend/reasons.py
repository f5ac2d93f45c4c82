"""Why a product is in a list, in words, each from a fact about the user and the product."""

import numpy as np
import polars as pl

from lcm_ml.insights.recommend.history import History, of_users
from lcm_ml.insights.recommend.models import Models

STEADY = 0.5
"""A rhythm is told where the mean gap differs from the median one by at most this share of it."""
MIN_DAYS = 3


def explained(models: Models, rows: pl.DataFrame) -> pl.DataFrame:
    """The rows of lists with what they rest on.

    Args:
        models: the candidate models.
        rows: user, product, score, rank, is_cold and the models' ranks, sorted by user.

    Returns:
        user, product, score, rank, is_cold, source (the model that ranked it best), is_repeat, because (the user's own
        product that the reason names, null where it names none) and explanation.
    """
    history = models.history
    if rows.is_empty():
        empty = {"source": pl.String, "is_repeat": pl.Boolean, "because": pl.Int32, "explanation": pl.String}
        return rows.select("user", "product", "score", "rank", "is_cold").with_columns(
            pl.lit(None, kind).alias(name) for name, kind in empty.items()
        )
    first, end = int(rows["user"][0]), int(rows["user"][-1]) + 1
    habits = of_users(history.pairs, first, end).select("user", "product", "n_days", "gap", "first_age", "last_age")
    looks = of_users(history.seen, first, end).select("user", "product", "seen_age")
    told = (
        rows.with_columns(source=_source(models))
        .join(habits, on=["user", "product"], how="left", maintain_order="left")
        .join(looks, on=["user", "product"], how="left", maintain_order="left")
        .with_columns(is_repeat=pl.col("n_days").is_not_null())
    )
    told = _because(models, told, habits)
    buyers = history.recent_buyers
    segment = models.popularity.segment_of["segment"].gather(told["user"])
    told = told.with_columns(buyers=pl.Series(buyers[told["product"].to_numpy()]), segment=segment).join(
        models.popularity.by_segment.select("segment", "product", segment_buyers="buyers"),
        on=["segment", "product"],
        how="left",
        maintain_order="left",
    )
    return told.select(
        "user", "product", "score", "rank", "is_cold", "source", "is_repeat", "because", explanation=_words(history)
    )


def _source(models: Models) -> pl.Expr:
    names = [model.name for model in models.all()]
    best = pl.min_horizontal(f"{name}_rank" for name in names)
    # From the most to the least particular, where ranks are equal.
    order = ("own_most_bought", "own_recent", "viewed", "item_item", "als", "content", "popularity")
    return pl.coalesce(pl.when(pl.col(f"{name}_rank") == best).then(pl.lit(name)) for name in order if name in names)


def _because(models: Models, told: pl.DataFrame, habits: pl.DataFrame) -> pl.DataFrame:
    """Add because (a product), by_content (which neighbours named it) and because_bought (not only looked at)."""
    history = models.history
    by_users = models.item_item.because(history, told)
    by_content = models.content.because(history, told)
    from_content = (told["source"] == "content").to_numpy() | (by_users < 0)
    product = np.where(from_content, by_content, by_users)
    product[(told["is_repeat"] | told["source"].is_in(["viewed", "popularity"])).to_numpy()] = -1
    found = pl.Series("because", product.astype(np.int32))
    known = told.with_columns(because=found.set(found < 0, None), by_content=pl.Series(from_content))
    bought = habits.select("user", because="product", because_bought=pl.lit(True))
    titles = history.products.select(because_title=pl.coalesce("title", "category", "product_id"))["because_title"]
    known = known.join(bought, on=["user", "because"], how="left", maintain_order="left")
    return known.with_columns(because_title=titles.gather(known["because"]))


def _words(history: History) -> pl.Expr:
    def days(column: str) -> pl.Expr:
        age = pl.col(column).round().cast(pl.Int64)
        return pl.when(age == 1).then(pl.lit("1 day")).otherwise(pl.format("{} days", age))

    mean_gap = (pl.col("first_age") - pl.col("last_age")) / (pl.col("n_days") - 1)
    is_steady = (pl.col("n_days") >= MIN_DAYS) & ((mean_gap - pl.col("gap")).abs() <= STEADY * pl.col("gap"))
    did = pl.when(pl.col("because_bought").fill_null(False)).then(pl.lit("bought")).otherwise(pl.lit("looked at"))
    window = f"in the last {history.settings.in_stock_days} days"
    users = pl.when(pl.col("buyers") == 1).then(pl.lit("1 user")).otherwise(pl.format("{} users", "buyers"))
    return (
        pl.when(is_steady & (pl.col("gap") < 1.5))
        .then(pl.format("bought about every day, last {} ago", days("last_age")))
        .when(is_steady)
        .then(pl.format("bought about every {}, last {} ago", days("gap"), days("last_age")))
        .when(pl.col("n_days") > 1)
        .then(pl.format("bought on {} days, last {} ago", "n_days", days("last_age")))
        .when(pl.col("n_days") == 1)
        .then(pl.format("bought {} ago", days("last_age")))
        .when(pl.col("source") == "viewed")
        .then(pl.format("you looked at it {} ago", days("seen_age")))
        .when(pl.col("because").is_not_null() & pl.col("by_content"))
        .then(pl.format("similar to {}, which you {}", "because_title", did))
        .when(pl.col("because").is_not_null())
        .then(pl.format("because you {} {}", did, "because_title"))
        .when((pl.col("segment") != "") & (pl.col("segment_buyers") > 1))
        .then(
            pl.format(
                f"popular with buyers of your kind: {{}} from {{}} bought it {window}", "segment_buyers", "segment"
            )
        )
        .otherwise(pl.format(f"{{}} bought it {window}", users))
    )
