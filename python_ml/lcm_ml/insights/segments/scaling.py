"""The behaviour that users are segmented by: a short list of features, made comparable."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl

Array = npt.NDArray[np.float64]

NORMAL_IQR = 1.349
"""Interquartile range of the standard normal distribution: scaled features have about unit variance."""
CLIP = 3.0
"""Scaled values beyond this are cut, so that a few extreme users make no segment of their own."""
SAME, CORRELATED_ON = 0.98, 10_000
"""Correlation from which two traits count as one, and about how many users it is taken of."""
FIRST_PURCHASE = "days_since_first_purchase"
"""Missing for whoever never purchased; it stands in for the gap of whoever purchased once."""


@dataclass(frozen=True)
class Trait:
    """A feature of marts.user_features that users are segmented by.

    `title` is for charts. `theme` groups what says much the same: a name takes one trait of each. `high` and `low` are
    how a segment is called that has much or little of it. Where the value is missing (no purchase, say), `missing`
    stands in: a value, or another feature, and where that is missing too the longest there is. None: the median.
    """

    feature: str
    title: str
    theme: str
    high: str
    low: str
    log: bool = False
    missing: float | str | None = None


TRAITS = (
    Trait("orders_84d", "orders (84 days)", "frequency", "frequent", "rare", True, 0.0),
    Trait("gap_mean_days", "days between orders", "frequency", "rare", "frequent", True, FIRST_PURCHASE),
    Trait("amount_168d", "spend (168 days)", "money", "high spend", "low spend", True, 0.0),
    Trait("order_value_total", "order value", "basket", "big baskets", "small baskets", True, 0.0),
    Trait(
        "products_per_order_total",
        "products per order",
        "basket",
        "many products an order",
        "few products an order",
        True,
        0.0,
    ),
    Trait("line_value_total", "price of a line", "price", "dear products", "cheap products", True, 0.0),
    Trait("discount_share_total", "discount share", "discount", "bargain hunters", "full price"),
    Trait("categories_total", "categories", "breadth", "broad taste", "few categories", True, 0.0),
    Trait("sessions_84d", "visits (84 days)", "visits", "many visits", "few visits", True, 0.0),
    Trait("views_84d", "views (84 days)", "visits", "many views", "few views", True, 0.0),
    Trait(
        "session_to_order_84d",
        "orders per visit",
        "conversion",
        "buy when they visit",
        "browse more than they buy",
        False,
        0.0,
    ),
)
"""Frequency, money, baskets, prices, discounts, breadth and browsing: what kind of user somebody is. How long ago and
since when is the lifecycle stage's to say, and would split every kind into those still there and those who are not."""

FEATURES = tuple(trait.feature for trait in TRAITS)
TITLES = {trait.feature: trait.title for trait in TRAITS}
COLUMNS = (*FEATURES, FIRST_PURCHASE, "is_suspected_bot", "is_suspected_reseller")
"""What is read of marts.user_features, besides user_id."""


@dataclass(frozen=True)
class Scaling:
    """Medians and spreads of the traits in use, learnt from the users of one date."""

    traits: tuple[Trait, ...]
    longest: dict[str, float]
    medians: dict[str, float]
    spreads: dict[str, float]
    dropped: tuple[str, ...] = ()

    def apply(self, users: pl.DataFrame, traits: tuple[Trait, ...] | None = None) -> Array:
        """Scaled values, (users, traits): 0 is the median, 1 about a standard deviation, none beyond CLIP.

        `traits` other than the ones in use may be asked for: one that is the same for everybody is 0.
        """
        scaled = users.select(
            ((_plain(trait, self.longest) - self.medians[trait.feature]) / (self.spreads[trait.feature] or np.inf))
            .fill_null(0.0)
            .clip(-CLIP, CLIP)
            .alias(trait.feature)
            for trait in traits or self.traits
        )
        return np.ascontiguousarray(scaled.to_numpy())


def fit_scaling(users: pl.DataFrame) -> Scaling:
    """Learn medians and spreads: the interquartile range, or where half of the users are equal the standard deviation.

    Args:
        users: COLUMNS, a row per user.

    Returns:
        The scaling; traits that are the same for everybody, or say what an earlier one says, are in `dropped`.
    """
    known = users.select(pl.col(FEATURES).cast(pl.Float64).max().fill_null(0.0)).row(0, named=True)
    plain = users.select(_plain(trait, known).alias(trait.feature) for trait in TRAITS)
    figures = plain.select(
        *(pl.col(name).median().fill_null(0.0).alias(f"{name}|median") for name in FEATURES),
        *((pl.col(name).quantile(0.75) - pl.col(name).quantile(0.25)).alias(f"{name}|iqr") for name in FEATURES),
        *(pl.col(name).std().alias(f"{name}|std") for name in FEATURES),
    ).row(0, named=True)
    spreads = {name: _spread(figures[f"{name}|iqr"], figures[f"{name}|std"]) for name in FEATURES}
    scaling = Scaling(
        traits=tuple(trait for trait in TRAITS if spreads[trait.feature] > 0),
        longest=known,
        medians={name: figures[f"{name}|median"] for name in FEATURES},
        spreads=spreads,
    )
    kept = _without_repeats(scaling, users)
    return replace(scaling, traits=kept, dropped=tuple(trait.feature for trait in TRAITS if trait not in kept))


def _without_repeats(scaling: Scaling, users: pl.DataFrame) -> tuple[Trait, ...]:
    """The traits that are no copy of an earlier one: without page views each visit is an order, and counts the same."""
    if not scaling.traits:
        return ()
    x = scaling.apply(users.gather_every(max(1, users.height // CORRELATED_ON)))
    x = x - x.mean(axis=0)
    # Not by a matrix product: its threads take longer to start than this takes.
    norms = np.sqrt((x**2).sum(axis=0))
    kept: list[int] = []
    for place in range(x.shape[1]):
        alike = np.abs((x[:, kept] * x[:, [place]]).sum(axis=0)) >= SAME * norms[kept] * norms[place]
        if not alike.any():
            kept.append(place)
    return tuple(scaling.traits[place] for place in kept)


def _spread(iqr: float | None, std: float | None) -> float:
    """The first that is no rounding error; 0 for a constant."""
    return next((value for value in ((iqr or 0.0) / NORMAL_IQR, std or 0.0) if value > 1e-9), 0.0)


def _plain(trait: Trait, longest: dict[str, float]) -> pl.Expr:
    """The trait without gaps, on a scale on which its differences are comparable. Null where the median stands in."""
    value = pl.col(trait.feature).cast(pl.Float64)
    if isinstance(trait.missing, str):
        value = value.fill_null(pl.col(trait.missing).cast(pl.Float64)).fill_null(longest[trait.feature])
    elif trait.missing is not None:
        value = value.fill_null(trait.missing)
    # Money may be negative after refunds, which the logarithm does not take.
    return value.clip(0.0).log1p() if trait.log else value
