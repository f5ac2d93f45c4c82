"""Features of users from what they wrote: how they sounded lately, and whether that changed."""

from datetime import date, timedelta

import polars as pl

from lcm_ml.insights.words.judging import rated_before, with_sentiment
from lcm_ml.insights.words.language import LANGUAGES, plain_texts
from lcm_ml.insights.words.sentiment import MOST_RATED, base_model, shop_model
from lcm_ml.insights.words.topics import fit_topics

WINDOW_DAYS = 84
N_TOPICS = 6
"""Fixed here, since a feature is to mean the same at each date."""
LONG = {"user_id": pl.String, "as_of_date": pl.Date, "feature": pl.String, "value": pl.Float64}


def text_features(texts: pl.DataFrame, as_of: date) -> pl.DataFrame:
    """Features at a date of the users who wrote anything in the WINDOW_DAYS before it.

    Sentiment models are fitted anew, on the base corpus and the shop's rated reviews before `as_of`; topics likewise.

    Args:
        texts: from `texts_before` of the same date.
        as_of: the as_of_date.

    Returns:
        Long rows user_id, as_of_date, feature, value: text_sentiment_mean_84d, _min_84d, _last_84d,
        text_sentiment_trend_84d (mean less that of the window before; only where there is one), negative_tickets_84d,
        negative_reviews_84d, and text_topic_share_84d (share of the user's texts that are about its commonest topic).
        A user without texts in the window has no rows.
    """
    start = as_of - timedelta(days=WINDOW_DAYS)
    earlier = start - timedelta(days=WINDOW_DAYS)
    before = texts.filter(pl.col("written_date") < as_of).sort("written_date", "text_id")
    recent = before.filter(pl.col("written_date") >= earlier)
    rated = before.filter(pl.col("rating").is_not_null()).tail(len(LANGUAGES) * MOST_RATED)
    read = plain_texts(pl.concat([recent, rated]).unique("text_id", maintain_order=True))
    parts = []
    for language in LANGUAGES:
        own = read.filter(pl.col("language") == language)
        if own.is_empty():
            continue
        judged = with_sentiment(own, base_model(language), shop_model(language, rated_before(read, language, as_of)))
        judged = judged.filter(pl.col("written_date") >= earlier).sort("written_date", "text_id")
        topics = fit_topics(language, judged["plain"].to_list(), _no_topics(), N_TOPICS)
        found = topics.of(judged["plain"].to_list()) if topics else [None] * judged.height
        parts.append(judged.with_columns(topic=pl.concat_str(pl.lit(language), pl.Series(found, dtype=pl.Int64))))
    if not parts:
        return pl.DataFrame(schema=LONG)
    judged = pl.concat(parts).filter(pl.col("sentiment").is_not_null()).sort("written_at", "text_id")
    now = judged.filter(pl.col("written_date") >= start)
    past = judged.filter(pl.col("written_date") < start).group_by("user_id").agg(before=pl.col("sentiment").mean())
    negative = pl.col("label") == "negative"
    wide = (
        now.group_by("user_id", maintain_order=True)
        .agg(
            text_sentiment_mean_84d=pl.col("sentiment").mean(),
            text_sentiment_min_84d=pl.col("sentiment").min(),
            text_sentiment_last_84d=pl.col("sentiment").last(),
            negative_tickets_84d=(negative & (pl.col("kind") == "ticket")).sum(),
            negative_reviews_84d=(negative & (pl.col("kind") == "review")).sum(),
            text_topic_share_84d=pl.col("topic").drop_nulls().unique_counts().max() / pl.len(),
        )
        .join(past, on="user_id", how="left")
        .with_columns(text_sentiment_trend_84d=pl.col("text_sentiment_mean_84d") - pl.col("before"))
        .drop("before")
    )
    long = wide.with_columns(pl.exclude("user_id").cast(pl.Float64)).unpivot(
        index="user_id", variable_name="feature", value_name="value"
    )
    return (
        long.drop_nulls("value")
        .with_columns(as_of_date=pl.lit(as_of, pl.Date))
        .select(pl.col(name).cast(kind) for name, kind in LONG.items())
        .sort("user_id", "feature")
    )


def _no_topics() -> pl.DataFrame:
    return pl.DataFrame(schema={"as_of_date": pl.Date, "topic_id": pl.Int64, "words": pl.String})
