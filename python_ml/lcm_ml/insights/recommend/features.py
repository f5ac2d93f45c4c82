"""What a ranker knows about a user and a product: habits, rhythm, price, trend, and what each model says."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from lcm_ml.insights.recommend.history import History, by_users, of_users
from lcm_ml.insights.recommend.models import Models

FloatMatrix = npt.NDArray[np.float32]

PRODUCT = ("popularity", "trend", "repeat_share", "product_gap", "buyers", "discounted_now", "price_level", "is_new")
USER = ("user_days", "user_recent_days", "user_last_age", "user_first_age", "user_products", "user_repeat_share")
USER_OWN = (*USER, "user_price_level", "user_discounted")
PAIR = ("n_days", "first_age", "last_age", "gap", "faded", "recent", "quantity", "discounted")
SEEN = ("seen_weight", "seen_age")
CATEGORY = ("category_days", "category_recent", "category_last_age")


@dataclass(frozen=True)
class Facts:
    """What features are looked up in, computed once for a history.

    Attributes:
        models: the candidate models.
        product: (products, len(PRODUCT)).
        user: (users, len(USER_OWN)).
        category: user, category_code and CATEGORY, sorted by user.
    """

    models: Models
    product: FloatMatrix
    user: FloatMatrix
    category: pl.DataFrame


def gather_facts(models: Models) -> Facts:
    """Describe each product, each user, and each user's categories."""
    history = models.history
    product = _products(models)
    category = by_users(history.days, history.n_users, lambda days: _categories(history, days))
    return Facts(models, product, _users(history, product), category)


def _categories(history: History, days: pl.DataFrame) -> pl.DataFrame:
    age = pl.col("age")
    by_code = days.with_columns(category_code=history.products["category_code"].gather(days["product"]))
    return (
        by_code.group_by("user", "category_code")
        .agg(
            category_days=age.n_unique().cast(pl.Float32),
            category_recent=age.filter(age <= history.settings.horizon_days).n_unique(),
            category_last_age=age.min(),
        )
        .sort("user")
    )


def _products(models: Models) -> FloatMatrix:
    history, horizon = models.history, models.history.settings.horizon_days
    age = pl.col("age")
    days = history.days.group_by("product").agg(
        now=age.filter(age <= horizon).len(),
        then=age.filter((age > horizon) & (age <= 2 * horizon)).len(),
        discounted_now=(pl.col("discount") > 0).filter(age <= horizon).mean(),
    )
    pairs = history.pairs.group_by("product").agg(
        repeat_share=(pl.col("n_days") > 1).mean(), product_gap=pl.col("gap").median(), buyers=pl.len()
    )
    level = ((pl.col("price").rank() - 0.5) / pl.col("price").count()).over("category_code")
    table = (
        history.products.select("is_new", price_level=level)
        .with_row_index("product")
        .with_columns(pl.col("product").cast(pl.Int32), popularity=pl.Series(np.log1p(models.popularity.overall)))
        .join(days, on="product", how="left", maintain_order="left")
        .join(pairs, on="product", how="left", maintain_order="left")
        .with_columns(trend=((pl.col("now") + 1) / (pl.col("then") + 1)).log())
    )
    return _matrix(table, PRODUCT)


def _users(history: History, product: FloatMatrix) -> FloatMatrix:
    def habits(days: pl.DataFrame) -> pl.DataFrame:
        horizon, age = history.settings.horizon_days, pl.col("age")
        return (
            days.with_columns(level=pl.Series(product[days["product"].to_numpy(), 6]))
            .group_by("user")
            .agg(
                user_days=age.n_unique(),
                user_recent_days=age.filter(age <= horizon).n_unique(),
                user_last_age=age.min(),
                user_first_age=age.max(),
                user_price_level=pl.col("level").fill_nan(None).mean(),
                user_discounted=(pl.col("discount") > 0).mean(),
            )
        )

    days = by_users(history.days, history.n_users, habits)
    pairs = history.pairs.group_by("user").agg(user_products=pl.len(), user_repeat_share=(pl.col("n_days") > 1).mean())
    everybody = pl.DataFrame({"user": np.arange(history.n_users, dtype=np.int32)})
    table = everybody.join(days, on="user", how="left", maintain_order="left").join(
        pairs, on="user", how="left", maintain_order="left"
    )
    return _matrix(table, USER_OWN)


def _matrix(table: pl.DataFrame, columns: tuple[str, ...]) -> FloatMatrix:
    found: FloatMatrix = table.select(pl.col(columns).cast(pl.Float32).fill_null(float("nan"))).to_numpy()
    return found


def features(facts: Facts, rows: pl.DataFrame) -> pl.DataFrame:
    """Features of candidate rows, in their order; all Float32, NaN where a thing is not there.

    Args:
        facts: of the history that the candidates come from.
        rows: user, product and the models' scores and ranks, sorted by user.
    """
    history = facts.models.history
    if rows.is_empty():
        first = end = 0
    else:
        first, end = int(rows["user"][0]), int(rows["user"][-1]) + 1
    users, products = rows["user"].to_numpy(), rows["product"].to_numpy()
    table = (
        rows.with_columns(category_code=history.products["category_code"].gather(rows["product"]))
        .join(of_users(history.pairs, first, end), on=["user", "product"], how="left", maintain_order="left")
        .join(of_users(history.seen, first, end), on=["user", "product"], how="left", maintain_order="left")
        .join(of_users(facts.category, first, end), on=["user", "category_code"], how="left", maintain_order="left")
        .with_columns(
            *(pl.Series(name, facts.product[products, place]) for place, name in enumerate(PRODUCT)),
            *(pl.Series(name, facts.user[users, place]) for place, name in enumerate(USER_OWN)),
        )
    )
    als = facts.models.als
    if als is not None and not rows.is_empty():
        own = als.user_factors(history, first, end)
        product = als.product_factors()
        table = table.with_columns(als_score=pl.Series(np.einsum("ij,ij->i", own[users - first], product[products])))
    horizon = float(history.settings.horizon_days)
    derived = {
        # The share of horizons with a purchase of the product, had it come evenly since the first.
        "rate": pl.col("n_days") * horizon / pl.max_horizontal("first_age", pl.lit(horizon)),
        "due": pl.col("last_age") / pl.col("gap"),
        "due_ahead": (pl.col("last_age") + horizon) / pl.col("gap"),
        "due_by_product": pl.col("last_age") / pl.col("product_gap"),
        "user_rate": pl.col("user_days") * horizon / pl.max_horizontal("user_first_age", pl.lit(horizon)),
        "share_of_days": pl.col("n_days") / pl.col("user_days"),
        "share_of_recent": pl.col("recent") / pl.col("user_recent_days"),
        "since_category": pl.col("last_age") - pl.col("category_last_age"),
        "category_share": pl.col("category_days") / pl.col("user_days"),
        "price_against_user": pl.col("price_level") - pl.col("user_price_level"),
        "discount_for_user": pl.col("discounted_now") * pl.col("user_discounted"),
    }
    table = table.with_columns(**derived)
    models = [f"{model.name}_{kind}" for model in facts.models.all() for kind in ("score", "rank")]
    names = [*models, *PAIR, *SEEN, *CATEGORY, *PRODUCT, *USER_OWN, *derived]
    return table.select(pl.col(names).cast(pl.Float32).fill_null(float("nan")))
