"""Products that resemble each other by their attributes and words: the way in for what nobody has bought yet."""

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import sparse

from lcm_ml.insights.recommend.history import History
from lcm_ml.insights.recommend.neighbours import NeighbourModel, spread, strongest

LARGEST_BLOCK = 4000
"""Products of one category that are compared with each other: the new ones and the most popular."""
ROWS_AT_ONCE = 1000
PRICE_LEVELS = 5
TIE = 1e-3
"""Products with the same words are told apart by their popularity, which adds at most this much."""


def product_vectors(products: pl.DataFrame) -> sparse.csr_array:
    """TF-IDF of department, category, brand, words of the title and level of price, (products, terms), rows of norm 1.

    The level of price is the fifth of its category that a product's price lies in.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    level = ((pl.col("price").rank() - 1) / pl.col("price").count() * PRICE_LEVELS).floor().over("category_code")
    words = pl.col("title").fill_null("").str.to_lowercase().str.replace_all(r"[^\p{L}\p{N}]+", " ")
    texts = products.select(
        pl.concat_str(
            *(
                pl.lit(f"{name}=") + pl.col(name).fill_null("").str.to_lowercase().str.replace_all(r"\s+", "_")
                for name in ("department", "category", "brand")
            ),
            pl.lit("price=") + level.cast(pl.Int32).cast(pl.String).fill_null(""),
            words,
            separator=" ",
        )
    ).to_series()
    if texts.is_empty():
        return sparse.csr_array((0, 0), dtype=np.float32)
    vectorizer = TfidfVectorizer(token_pattern=r"\S+", dtype=np.float32, sublinear_tf=True)
    return sparse.csr_array(vectorizer.fit_transform(texts.to_list()))


def content(
    history: History, popularity: npt.NDArray[np.float64], neighbours: int = 20, source: int | None = None
) -> NeighbourModel:
    """Cosine of product vectors within a category (a department where there is none).

    Args:
        history: what is known.
        popularity: (products,), tells products with the same words apart.
        neighbours: kept for each product.
        source: only neighbours of this product; of all that is in anybody's profile where None.
    """
    category = history.products["category_code"].to_numpy()
    touched = np.zeros(history.n_products, dtype=bool)
    touched[history.profile.indices if source is None else [source]] = True
    needed = np.flatnonzero(touched | history.servable)
    place = np.zeros(history.n_products, dtype=np.int64)
    place[needed] = np.arange(len(needed))
    vectors = product_vectors(history.products[needed])
    most = popularity.max(initial=0.0) or 1.0
    tie = (TIE * popularity / most).astype(np.float32)
    targets_of = _blocks(np.flatnonzero(history.servable), category)
    parts, sources, everything = [], [], np.arange(history.n_products)
    for code, block in _blocks(np.flatnonzero(touched), category).items():
        targets = targets_of.get(code, np.empty(0, dtype=np.int64))
        if len(targets) > LARGEST_BLOCK:
            is_new = history.products["is_new"].to_numpy()[targets]
            targets = targets[np.lexsort((-popularity[targets], ~is_new))[:LARGEST_BLOCK]]
        if not len(targets):
            continue
        right = vectors[place[targets]].T.tocsc()
        for start in range(0, len(block), ROWS_AT_ONCE):
            rows = block[start : start + ROWS_AT_ONCE]
            near = (vectors[place[rows]] @ right).toarray()
            near = np.where((near > 0) & (rows[:, None] != targets[None, :]), near + tie[targets], 0.0)
            keep = min(neighbours, len(targets))
            columns = np.argpartition(-near, keep - 1, axis=1)[:, :keep]
            values = np.take_along_axis(near, columns, axis=1)
            found = sparse.csr_array(
                (values.ravel(), (np.repeat(np.arange(len(rows)), keep), targets[columns].ravel())),
                shape=(len(rows), history.n_products),
                dtype=np.float32,
            )
            found.eliminate_zeros()
            parts.append(strongest(found, neighbours))
            sources.append(rows)
    chosen = np.concatenate(sources) if sources else np.empty(0, dtype=np.int64)
    return NeighbourModel("content", spread(parts, chosen, everything, history.n_products))


def _blocks(products: npt.NDArray[np.int64], category: npt.NDArray[np.int32]) -> dict[int, npt.NDArray[np.int64]]:
    ordered = products[np.argsort(category[products], kind="stable")]
    codes, starts = np.unique(category[ordered], return_index=True)
    return dict(zip(codes.tolist(), np.split(ordered, starts[1:]), strict=True)) if len(codes) else {}
