"""Judge the texts written before a date: their sentiment, what they are about, and how far that can be trusted."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import polars as pl

from lcm_ml.insights.words.agreement import METRICS, agreement
from lcm_ml.insights.words.language import LANGUAGES, NO_LETTERS, OTHER
from lcm_ml.insights.words.sentiment import LABELS, SentimentModel, base_model, rated_labels, shop_model
from lcm_ml.insights.words.topics import Topics, fit_topics

TOPIC_DAYS = 364
"""Topics are found in the texts of so many days; products are judged by the reviews of as many."""
MOST_MEASURED = 20_000
MODELS = ("shop", "base", "majority")
JUDGED = {
    "text_id": pl.String,
    "user_id": pl.String,
    "kind": pl.String,
    "language": pl.String,
    "written_date": pl.Date,
    "sentiment": pl.Float64,
    "label": pl.String,
    "probability": pl.Float64,
    "topic_id": pl.Int64,
}
METRIC_ROWS = {
    "language": pl.String,
    "model_name": pl.String,
    "metric": pl.String,
    **dict.fromkeys(("value", "ci_low", "ci_high"), pl.Float64),
    "n": pl.Int64,
}

Advance = Callable[[str, float], None]


@dataclass(frozen=True)
class Found:
    """What a run makes of the texts: rows of each table without as_of_date and run_id, and the topics by language."""

    sentiments: pl.DataFrame
    topics: dict[str, Topics]
    metrics: pl.DataFrame


def rated_before(texts: pl.DataFrame, language: str, before: date) -> pl.DataFrame:
    """The language's rated reviews strictly before a date, oldest first."""
    return texts.filter(
        pl.col("language") == language,
        pl.col("rating").is_not_null(),
        pl.col("kind") == "review",
        pl.col("written_date") < before,
        pl.col("plain") != "",
    ).sort("written_date", "text_id")


def judge(
    texts: pl.DataFrame,
    as_of: date,
    window_days: int,
    known_topics: pl.DataFrame,
    done: pl.Series,
    n_topics: int | None,
    advance: Advance,
) -> Found:
    """Judge the texts of the last `window_days`, and those before that are not `done`.

    Args:
        texts: from `plain_texts`, all strictly before `as_of`.
        as_of: the as_of_date; models and topics come from `texts` alone.
        window_days: its texts are judged anew in each run, so that they all have the newest topics.
        known_topics: language, as_of_date, topic_id and words of earlier runs.
        done: text_ids that were judged before.
        n_topics: of each language; where None, found by `fit_topics`.
        advance: told how far it is.
    """
    start = as_of - timedelta(days=window_days)
    todo = texts.filter((pl.col("written_date") >= start) | ~pl.col("text_id").is_in(done.implode()))
    topics, parts = {}, []
    metrics = [pl.DataFrame(schema=METRIC_ROWS)]
    for place, language in enumerate(LANGUAGES):
        advance(f"topics ({language})", 0.1 + 0.8 * place / len(LANGUAGES))
        own = todo.filter(pl.col("language") == language)
        recent = texts.filter(
            pl.col("language") == language, pl.col("written_date") >= as_of - timedelta(days=TOPIC_DAYS)
        ).sort("written_date", "text_id")
        known = known_topics.filter(pl.col("language") == language).drop("language")
        fitted = fit_topics(language, recent["plain"].to_list(), known, n_topics)
        if fitted:
            topics[language] = fitted
        advance(f"sentiment ({language})", 0.3 + 0.8 * place / len(LANGUAGES))
        judged = with_sentiment(own, base_model(language), shop_model(language, rated_before(texts, language, as_of)))
        parts.append(judged.with_columns(_topic_ids(own, fitted)))
        metrics.append(_measured(texts, language, start, as_of))
    mute = todo.filter(pl.col("language").is_in([NO_LETTERS, OTHER]))
    # Emoji say the same in any language.
    silent = with_sentiment(mute.filter(pl.col("language") == NO_LETTERS), base_model("en"), base_model("en"))
    parts.append(silent.with_columns(topic_id=pl.lit(None, pl.Int64)))
    nothing = (pl.lit(None, JUDGED[name]).alias(name) for name in ("sentiment", "label", "probability", "topic_id"))
    parts.append(mute.filter(pl.col("language") == OTHER).with_columns(*nothing))
    sentiments = pl.concat([part.select(pl.col(name).cast(kind) for name, kind in JUDGED.items()) for part in parts])
    return Found(sentiments.sort("text_id"), topics, pl.concat(metrics))


def with_sentiment(texts: pl.DataFrame, for_tickets: SentimentModel, for_reviews: SentimentModel) -> pl.DataFrame:
    """Texts with sentiment (probability of positive less that of negative), label and its probability.

    Tickets have a model of their own, since ratings say how reviews are meant and nothing about tickets. All are null
    where there is nothing to judge.
    """
    parts = []
    for model, chosen in (
        (for_tickets, texts.filter(pl.col("kind") != "review")),
        (for_reviews, texts.filter(pl.col("kind") == "review")),
    ):
        # Shops have many equal texts ("good"): each is judged once.
        distinct = chosen["plain"].unique(maintain_order=True)
        found = model.probabilities(distinct.to_list())
        told = np.isfinite(found[:, 0])
        best = np.where(told, np.nan_to_num(found).argmax(axis=1), 0)
        verdicts = pl.DataFrame(
            {
                "plain": distinct,
                "sentiment": found[:, LABELS.index("positive")] - found[:, LABELS.index("negative")],
                "label": [LABELS[label] if known else None for label, known in zip(best, told, strict=True)],
                "probability": found[np.arange(len(found)), best],
            },
            schema_overrides={"label": pl.String},
        ).with_columns(pl.col("sentiment", "probability").fill_nan(None))
        parts.append(chosen.join(verdicts, on="plain", how="left", maintain_order="left"))
    return pl.concat(parts).sort("text_id")


def _topic_ids(own: pl.DataFrame, fitted: Topics | None) -> pl.Series:
    ordered = own.sort("text_id")["plain"]
    if fitted is None:
        return pl.Series("topic_id", [None] * len(ordered), pl.Int64)
    distinct = ordered.unique(maintain_order=True)
    told = pl.DataFrame({"plain": distinct, "topic_id": pl.Series(fitted.of(distinct.to_list()), dtype=pl.Int64)})
    return ordered.to_frame().join(told, on="plain", how="left", maintain_order="left")["topic_id"]


def _measured(texts: pl.DataFrame, language: str, start: date, as_of: date) -> pl.DataFrame:
    """Agreement with the ratings of [start, as_of) of models that know what lay before `start`."""
    past, measured = rated_before(texts, language, start), rated_before(texts, language, as_of)
    measured = measured.filter(pl.col("written_date") >= start).tail(MOST_MEASURED)
    if measured.is_empty():
        return pl.DataFrame(schema=METRIC_ROWS)
    truth = rated_labels(measured["rating"])
    base, shop = base_model(language), shop_model(language, past)
    commonest = rated_labels(past["rating"]).mode().sort().to_list() or ["positive"]
    told = {"base": with_sentiment(measured, base, base).sort("written_date", "text_id")}
    if shop.rated:
        told["shop"] = with_sentiment(measured, shop, shop).sort("written_date", "text_id")
    rows = []
    for name in MODELS:
        if name == "majority":
            predicted, scores = pl.Series([commonest[0]] * measured.height), None
        elif name in told:
            predicted = told[name]["label"].fill_null("neutral")
            scores = (told[name]["sentiment"].fill_null(0.0).to_numpy(), measured["rating"].to_numpy())
        else:
            continue
        found = agreement(truth, predicted, measured["user_id"], scores)
        for metric in METRICS:
            if metric in found:
                value, low, high = (figure if np.isfinite(figure) else None for figure in found[metric])
                rows.append((language, name, metric, value, low, high, measured.height))
    return pl.DataFrame(rows, schema=METRIC_ROWS, orient="row")
