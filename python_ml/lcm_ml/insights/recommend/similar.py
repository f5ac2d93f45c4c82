"""What is like a product, and who is like a user."""

import numpy as np
import polars as pl
from scipy import sparse

from lcm_ml.insights.recommend.content import content
from lcm_ml.insights.recommend.history import History
from lcm_ml.insights.recommend.models import RANK_OFFSET
from lcm_ml.insights.recommend.neighbours import NeighbourModel, item_item
from lcm_ml.insights.recommend.simple import Popularity

DEPTH = 50
SHARED = 3
"""Products in common that are named for a similar user."""


def similar_items(history: History, product_id: str, k: int) -> pl.DataFrame:
    """The k products in stock that are nearest by users in common and by attributes, merged by their ranks.

    Args:
        history: what is known.
        product_id: one of history.products.
        k: products.

    Returns:
        rank, product_id, title, category, users_in_common, by_users (shrunk cosine), by_content (cosine); 0 where the
        product is not among the DEPTH nearest of a kind.
    """
    source = int(history.products["product_id"].search_sorted(product_id))
    depth = max(k, DEPTH)
    by_users = _near(item_item(history, depth, source), source, "by_users")
    by_content = _near(content(history, Popularity(history).overall, depth, source), source, "by_content")
    merged = by_users.join(by_content, on="product", how="full", coalesce=True)
    merit = pl.sum_horizontal(
        (1 / (RANK_OFFSET + pl.col(name).rank("ordinal", descending=True))).fill_null(0.0)
        for name in ("by_users", "by_content")
    )
    found = merged.with_columns(merit=merit).sort("merit", "product", descending=[True, False]).head(k)
    holders = history.taste.filter(product=source).select("user")
    common = history.taste.join(holders, on="user", how="semi").group_by("product").agg(users_in_common=pl.len())
    named = history.products.select("product_id", "title", "category")
    return (
        pl.concat(
            [found, pl.DataFrame([named[column].gather(found["product"]) for column in named.columns])],
            how="horizontal",
        )
        .join(common, on="product", how="left", maintain_order="left")
        .select(
            rank=pl.int_range(1, pl.len() + 1),
            product_id="product_id",
            title="title",
            category="category",
            users_in_common=pl.col("users_in_common").fill_null(0),
            by_users=pl.col("by_users").fill_null(0.0),
            by_content=pl.col("by_content").fill_null(0.0),
        )
    )


def _near(model: NeighbourModel, source: int, name: str) -> pl.DataFrame:
    row = model.near[[source]].tocoo()
    found = pl.DataFrame({"product": row.coords[1].astype(np.int32), name: row.data.astype(np.float64)})
    return found.sort(name, "product", descending=[True, False])


def similar_users(history: History, user_id: str, k: int) -> pl.DataFrame:
    """The k users whose signals are nearest by cosine, products that many users share counting less.

    Args:
        history: what is known.
        user_id: one of history.users.
        k: users.

    Returns:
        rank, user_id, similarity (0 to 1), products_in_common, shared (titles of the products in common that count
        most); fewer than k, or none, where nobody shares a product.
    """
    source = int(history.users["user_id"].search_sorted(user_id))
    holders = history.taste.group_by("product").agg(holders=pl.len())
    rarity = (history.n_users / pl.col("holders")).log1p()
    rows = history.taste.join(holders, on="product").select(
        "user", "product", weight=(1 + pl.col("weight")).log() * rarity
    )
    vectors = history.matrix(rows)
    norm = np.sqrt(np.asarray(vectors.multiply(vectors).sum(axis=1)).ravel())
    own = vectors[[source]]
    cosine = np.asarray((vectors @ own.T).todense()).ravel() / np.maximum(norm * norm[source], 1e-12)
    cosine[source] = 0.0
    order = np.lexsort((np.arange(len(cosine)), -cosine))[:k]
    order = order[cosine[order] > 0]
    titles = history.products.select(title=pl.coalesce("title", "category", "product_id"))["title"]
    shared, counts = [], []
    for user in order:
        both: sparse.csr_array = vectors[[user]] * own
        counts.append(both.nnz)
        shared.append(", ".join(titles.gather(both.indices[np.argsort(-both.data, kind="stable")[:SHARED]]).to_list()))
    return pl.DataFrame(
        {
            "rank": np.arange(1, len(order) + 1),
            "user_id": history.users["user_id"].gather(order),
            "similarity": cosine[order].astype(np.float64),
            "products_in_common": pl.Series(counts, dtype=pl.Int64),
            "shared": pl.Series(shared, dtype=pl.String),
        }
    )
