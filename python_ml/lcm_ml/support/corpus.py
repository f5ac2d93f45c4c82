"""Labelled questions that were written for this package, and what a model of a shop's tickets learns from."""

import csv
from functools import cache
from importlib import resources

import polars as pl

from lcm_ml.insights.words.language import plain_texts

UNKNOWN = "unknown"
"""The intent of what is no question for a shop's support, and of what a model is not sure of."""
MOST_LABELLED = 2000
"""The newest so many labelled texts of a language are learnt from."""
FEWEST = 5
"""An intent with fewer texts is not learnt."""


@cache
def base_questions(language: str) -> pl.DataFrame:
    """The package's own questions of a language.

    Returns:
        intent, topic (a finer label, for tuning the search; empty for unknown), text, and plain and language of it.
    """
    source = resources.files("lcm_ml.support") / "data" / f"{language}_questions.csv"
    rows = list(csv.DictReader(source.read_text(encoding="utf-8").splitlines()))
    return plain_texts(pl.DataFrame(rows)).with_columns(language=pl.lit(language))


def lesson(language: str, labelled: pl.DataFrame, articles: pl.DataFrame) -> pl.DataFrame:
    """Texts and intents of a language to learn from: the base questions and the shop's own labelled tickets.

    Base intents that the shop does not know are left out, unless it knows none at all.

    Args:
        language: en or zh.
        labelled: plain, language, intent of labelled tickets, oldest first. The caller cuts them at a date.
        articles: intent of each article of the knowledge base.

    Returns:
        plain, intent; each text once.
    """
    base = base_questions(language).select("plain", "intent")
    known = set(labelled["intent"].drop_nulls()) | set(articles["intent"].drop_nulls())
    if known & set(base["intent"]):
        base = base.filter(pl.col("intent").is_in([*known, UNKNOWN]))
    elif known:
        base = base.filter(intent=UNKNOWN)
    own = labelled.filter(pl.col("language") == language, pl.col("plain") != "", pl.col("intent").is_not_null())
    rows = pl.concat([base, own.tail(MOST_LABELLED).select("plain", "intent")])
    # The newest label of a text counts: shops rename their intents.
    rows = rows.unique("plain", keep="last", maintain_order=True)
    return rows.filter(pl.len().over("intent") >= FEWEST)
