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
MOST_ARTICLES = 100
"""So many articles of a language are learnt from, besides what users wrote."""
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
    """Texts and intents of a language to learn from: base questions, the shop's own labelled tickets and its articles.

    Base intents that the shop does not know are left out, unless it knows none at all.

    Args:
        language: en or zh.
        labelled: plain, language, intent of labelled tickets, oldest first. The caller cuts them at a date.
        articles: plain, language, intent of the knowledge base.

    Returns:
        kind (base, own, article), plain, intent; each text once.
    """
    base = base_questions(language).select("plain", "intent", kind=pl.lit("base"))
    known = set(labelled["intent"].drop_nulls()) | set(articles["intent"].drop_nulls())
    if known & set(base["intent"]):
        base = base.filter(pl.col("intent").is_in([*known, UNKNOWN]))
    elif known:
        base = base.filter(intent=UNKNOWN)
    parts = [base]
    for kind, rows, most in (("article", articles, MOST_ARTICLES), ("own", labelled, MOST_LABELLED)):
        told = rows.filter(pl.col("language") == language, pl.col("plain") != "", pl.col("intent").is_not_null())
        parts.append(told.tail(most).select("plain", "intent", kind=pl.lit(kind)))
    # The newest label of a text counts: shops rename their intents.
    texts = pl.concat(parts).unique("plain", keep="last", maintain_order=True)
    rows = texts.filter(pl.len().over("intent") >= FEWEST).select("kind", "plain", "intent")
    if rows["intent"].n_unique() < 2:
        # Too little is known of the shop's own intents to learn them.
        return base_questions(language).select("plain", "intent", kind=pl.lit("base")).select(rows.columns)
    return rows
