"""The steps from what was known at dates to lists, and to figures of lists."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from lcm_ml.insights.recommend.features import Facts, gather_facts
from lcm_ml.insights.recommend.history import History, chunks
from lcm_ml.insights.recommend.lists import HYBRID, Hybrid
from lcm_ml.insights.recommend.metrics import KS, SCHEMA, differences, measured, served
from lcm_ml.insights.recommend.models import Models, fit_models
from lcm_ml.insights.recommend.ranker import Lesson, Ranker, blocks, coded, fit_ranker, lesson
from lcm_ml.insights.recommend.reasons import explained

CHUNK_USERS = 5_000
"""Users whose candidates are in memory at once."""
MOST_EVALUATED = 20_000
"""Users that figures are measured on; drawn where more purchased something."""
REFERENCES = ("popularity", "own_most_bought")
NO_RANKER = "too few users bought again in the window before: lists are merged by the models' ranks, nothing was learnt"


@dataclass(frozen=True)
class Dated:
    """A date with its models and what was purchased in the horizon after it, as far as that is known.

    Attributes:
        facts: fitted to what was known.
        purchased: user_id, product_id; None at the date that lists are served for.
    """

    facts: Facts
    purchased: pl.DataFrame | None = None

    @property
    def models(self) -> Models:
        """The candidate models of the date."""
        return self.facts.models

    @property
    def history(self) -> History:
        """What was known at the date."""
        return self.facts.models.history


def dated(history: History, purchased: pl.DataFrame | None, seed: int) -> Dated:
    """Fit the candidate models of a date."""
    return Dated(gather_facts(fit_models(history, seed)), purchased)


def taught(lessons: Sequence[Dated], seed: int) -> Ranker | None:
    """A ranker from dates whose windows are over; None where too few users had a hit."""
    told: list[Lesson] = [lesson(one.facts, one.purchased, seed) for one in lessons if one.purchased is not None]
    return fit_ranker(told, seed)


def recommended(
    at: Dated, ranker: Ranker | None, n: int, advance: Callable[[float], None] = lambda _: None
) -> Iterator[pl.DataFrame]:
    """Lists of all users, a chunk of users at a time.

    Args:
        at: the date.
        ranker: taught by earlier dates; None: the models' ranks decide.
        n: products in a list.
        advance: told the share that is done.

    Yields:
        user_id, rank, product_id, score, source, explanation, because_product_id, is_repeat, is_cold_start.
    """
    history, hybrid = at.history, Hybrid(at.facts, ranker)
    users, products = history.users["user_id"], history.products["product_id"]
    for first, end in chunks(history.n_users, CHUNK_USERS):
        advance(first / history.n_users)
        rows = explained(at.models, hybrid.lists(history, first, end, n))
        yield rows.select(
            users.gather(rows["user"]).alias("user_id"),
            "rank",
            products.gather(rows["product"]).alias("product_id"),
            pl.col("score").cast(pl.Float64),
            "source",
            "explanation",
            products.gather(rows["because"]).alias("because_product_id"),
            "is_repeat",
            is_cold_start="is_cold",
        )


def evaluated(at: Dated, ranker: Ranker | None, seed: int) -> pl.DataFrame:
    """Figures of every model and of the hybrid at a date whose window is over.

    All lists obey the same rules (stock, repeats); the limit per category, where there is one, is the hybrid's.

    Args:
        at: the date, with its purchases.
        ranker: taught by earlier dates alone.
        seed: of the bootstrap, and of the users that are drawn where there are many.

    Returns:
        model_name, reference_name (null, or what the row is a paired difference to), metric, k, value, ci_low,
        ci_high, n_users; empty where nobody who was known purchased anything.
    """
    history = at.history
    if at.purchased is None:
        raise ValueError("a date without its window cannot be evaluated")
    hits = coded(at.facts, at.purchased)
    if not history.settings.allow_repeats:
        hits = hits.join(history.pairs, on=["user", "product"], how="anti")
    models = (*at.models.all(), Hybrid(at.facts, ranker))
    parts: dict[str, list[pl.DataFrame]] = {model.name: [] for model in models}
    truth, n_users = [], 0
    for first, end in blocks(history.n_users, seed):
        wanted = hits.filter(pl.col("user").is_between(first, end, closed="left"))
        if wanted.is_empty():
            continue
        for model in models:
            found = model.lists(history, first, end, max(KS)).select("user", "product", "rank")
            parts[model.name].append(found.join(wanted.select("user").unique(), on="user", how="semi"))
        truth.append(wanted)
        n_users += wanted["user"].n_unique()
        if n_users >= MOST_EVALUATED:
            break
    if not truth:
        return pl.DataFrame(schema=SCHEMA)
    purchased = pl.concat(truth)
    lists = {name: served(pl.concat(found), purchased, max(KS)) for name, found in parts.items()}
    # Where nobody looks at anything, a list of what was looked at is not a model.
    lists = {name: one for name, one in lists.items() if (one.products >= 0).any()}
    buyers = np.bincount(history.pairs["product"].to_numpy(), minlength=history.n_products)
    n_buyers = history.pairs["user"].n_unique()
    figures = measured(lists, buyers, n_buyers, int(history.servable.sum()), seed)
    known = [name for name in REFERENCES if name in lists] if HYBRID in lists else []
    return pl.concat([figures, differences(lists, HYBRID, known, seed)])
