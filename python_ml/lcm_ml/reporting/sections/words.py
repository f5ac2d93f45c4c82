"""How users sound in reviews and tickets, and what they write about."""

import duckdb
import polars as pl

from lcm_ml.reporting import charts, charts_words
from lcm_ml.reporting.section import (
    Figure,
    MakeSection,
    Section,
    Table,
    cell,
    count,
    listed,
    newest_date,
    rows_of,
    share,
    with_interval,
)

WORDS = "lcm-ml words"
WEEKS = 26
LANGUAGES = {"en": "English", "zh": "Chinese"}
MODELS = {"shop": "model", "base": "without the shop's ratings", "majority": "always the commonest label"}
METRICS = {"macro_f1": "macro-F1", "accuracy": "accuracy", "rank_correlation": "rank correlation"}


def sentiment(con: duckdb.DuckDBPyConnection) -> Section:
    """Mean sentiment over weeks, and how far it agrees with ratings."""
    title = "How users sound"
    text = (
        "Sentiment of reviews and tickets, from -1 (negative) to 1 (positive), by week of writing; bands are 95 % "
        "intervals. Reviews and tickets are not to be compared with each other: who writes a ticket has a question."
    )
    rows = rows_of(
        con,
        "ml.text_sentiments",
        """
        with weeks as (
            select
                cast(date_trunc('week', written_date) as date) as week,
                kind || 's' as kind,
                count(sentiment) as n,
                avg(sentiment) as value,
                1.96 * stddev_samp(sentiment) / sqrt(count(sentiment)) as half
            from ml.text_sentiments
            where sentiment is not null
                and written_date >= (select max(written_date) from ml.text_sentiments) - cast($days as integer)
            group by all
        )
        select
            week, kind, n, value,
            greatest(value - half, -1) as ci_low,
            least(value + half, 1) as ci_high
        from weeks
        order by kind, week
        """,
        days=7 * WEEKS,
    )
    if rows.is_empty():
        return Section("words-sentiment", title, text, filled_by=WORDS, once="the shop has reviews or tickets")
    kinds = rows["kind"].unique(maintain_order=True).to_list()
    last = [rows.filter(kind=kind).row(-1, named=True) for kind in kinds]
    means = listed([f"{row['kind']} had a mean of {with_interval(row, _signed)}" for row in last])
    says = f"In the last week {means}."
    by_week = {(row["week"], row["kind"]): row for row in rows.to_dicts()}
    table = Table(
        "Mean sentiment by week",
        ("week of", *(header for kind in kinds for header in (kind, f"number of {kind}"))),
        tuple(
            (
                str(week),
                *(
                    told
                    for kind in kinds
                    for row in [by_week.get((week, kind))]
                    for told in (cell(row, _signed), count(row["n"] if row else 0))
                ),
            )
            for week in rows["week"].unique().sort()
        ),
    )
    figure = Figure(charts_words.sentiment_weeks(rows, kinds), says, table)
    return Section("words-sentiment", title, text, (figure,), table=_agreement(con))


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"


def _agreement(con: duckdb.DuckDBPyConnection) -> Table | None:
    rows = rows_of(
        con,
        "ml.text_metrics",
        f"select * from ml.text_metrics where as_of_date = {newest_date('ml.text_metrics')}",
    )
    if rows.is_empty():
        return None
    cells = {(row["language"], row["model_name"], row["metric"]): row for row in rows.to_dicts()}
    pairs = [pair for pair in ((a, b) for a in LANGUAGES for b in MODELS) if (*pair, "macro_f1") in cells]
    return Table(
        "Agreement with the stars of reviews, by models that had not seen them",
        ("language", "judged by", "reviews", *METRICS.values()),
        tuple(
            (
                LANGUAGES[language],
                MODELS[model],
                count(cells[(language, model, "macro_f1")]["n"]),
                *(cell(cells.get((language, model, metric))) for metric in METRICS),
            )
            for language, model in pairs
        ),
        labels=2,
    )


def topics(con: duckdb.DuckDBPyConnection) -> Section:
    """Topics of the newest run with their words, share and mean sentiment."""
    title = "What users write about"
    text = (
        "Topics of reviews and tickets with the words that tell the most. Each text counts for its largest topic; "
        "share is of the texts of its language. Lines are 95 % intervals."
    )
    rows = rows_of(
        con,
        "serving.text_topics_latest",
        "select * from serving.text_topics_latest where n_texts > 0 order by language, mean_sentiment, topic_id",
    )
    if rows.is_empty():
        return Section("words-topics", title, text, filled_by=WORDS, once="there are enough texts")
    told = rows.filter(pl.col("mean_sentiment").is_not_null()).with_columns(
        label=pl.format("{} ({})", pl.col("words").str.split(", ").list.head(3).list.join(", "), pl.col("n_texts"))
    )
    table = Table(
        title,
        ("topic", "words", "texts", "share", "sentiment", "commonest ticket label"),
        tuple(
            (
                f"{LANGUAGES.get(row['language'], row['language'])} {row['topic_id']}",
                row["words"],
                count(row["n_texts"]),
                share(row["share"], 0),
                cell(row, _signed, "mean_sentiment"),
                "-" if row["intent"] is None else f"{row['intent']} ({share(row['intent_share'], 0)})",
            )
            for row in rows.to_dicts()
        ),
        labels=2,
    )
    worst, best = told.sort("mean_sentiment").row(0, named=True), told.sort("mean_sentiment").row(-1, named=True)
    says = (
        f"The most negative topic: {worst['words']} ({_signed(worst['mean_sentiment'])}); the most positive: "
        f"{best['words']} ({_signed(best['mean_sentiment'])})."
    )
    drawing = charts.bars(told.select("label", "ci_low", "ci_high", value="mean_sentiment"), "mean sentiment", "+.1f")
    notes = (f"Texts of the window before {rows.item(0, 'as_of_date')}.",)
    return Section("words-topics", title, text, (Figure(drawing, says, table),), notes=notes)


SECTIONS: tuple[MakeSection, ...] = (sentiment, topics)
