"""`lcm-ml words`: how users sound in reviews and tickets, and what they write about."""

from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lcm_ml.cli.console import AsOfOption, JsonOption, command, emit, notify, out, progress

if TYPE_CHECKING:
    import duckdb
    import polars as pl

WINDOW_DAYS = 84


def words(
    as_of: AsOfOption = None,
    window: Annotated[int, typer.Option(help="Topics are counted over so many days before.", min=7)] = WINDOW_DAYS,
    topics: Annotated[
        int | None, typer.Option(help="Topics of each language. Default: what describes the texts best.", min=2, max=50)
    ] = None,
    again: Annotated[bool, typer.Option(help="Judge all texts, not only new ones and those of the window.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Judge reviews and tickets: sentiment from -1 to 1 and its label, the topic, and how far ratings agree.

    English and Chinese, told apart by script. Other languages are counted and not judged.

    Example: `lcm-ml words --as-of 2025-12-29 --topics 6`
    """
    with command(as_json):
        with progress("words", as_json) as advance:
            result = run_words(as_of, advance, window, topics, again)
        emit(result, as_json, _show)


def run_words(
    as_of: datetime | None,
    advance: Any,
    window: int = WINDOW_DAYS,
    topics: int | None = None,
    again: bool = False,
) -> dict[str, Any]:
    """Judge, sum up, write. A shop without texts has empty tables and a note.

    Raises:
        LcmError: when the marts cannot be read or the warehouse cannot be written.
    """
    from lcm_ml.registry.runs import Run, run_capability

    run = Run("words", {"window": window, "topics": topics, "again": again})

    def compute(con: "duckdb.DuckDBPyConnection", day: date) -> "tuple[dict[str, pl.DataFrame], dict[str, Any]]":
        import polars as pl

        from lcm_ml.frames.events import texts_before
        from lcm_ml.insights.words.judging import judge
        from lcm_ml.insights.words.language import plain_texts
        from lcm_ml.insights.words.tables import product_rows, topic_rows

        advance("reading", 0.0)
        texts = plain_texts(texts_before(con, day))
        stored, known = _stored(con, day)
        since = day - timedelta(days=window)
        done = stored["text_id"].clear() if again else stored["text_id"]
        found = judge(texts, day, window, known, done, topics, advance)
        advance("writing", 0.95)
        judged = found.sentiments
        kept = stored.join(judged, on="text_id", how="anti")
        everything = pl.concat([judged, kept.select(judged.columns)])
        by_topic = topic_rows(judged, texts.select("text_id", "intent"), found.topics, since)
        by_product = product_rows(everything, texts.select("text_id", "product_id", "rating"), day)
        tables = {
            "text_sentiments": judged,
            "text_topics": by_topic,
            "text_metrics": found.metrics,
            "product_sentiments": by_product,
        }
        return tables, _told(day, window, texts, judged, by_topic, found.metrics, by_product)

    _, told = run_capability(run, as_of, compute, notify)
    return {"run_id": run.run_id, **told}


def _stored(con: "duckdb.DuckDBPyConnection", day: Any) -> tuple["pl.DataFrame", "pl.DataFrame"]:
    """What earlier runs judged and found, of dates up to this one: a model of a later date has seen too much."""
    import polars as pl

    from lcm_ml.frames.frame import read
    from lcm_ml.insights.words.judging import JUDGED
    from lcm_ml.warehouse.connection import table_exists

    if not table_exists(con, "ml", "text_sentiments"):
        known = {"language": pl.String, "as_of_date": pl.Date, "topic_id": pl.Int64, "words": pl.String}
        return pl.DataFrame(schema=JUDGED), pl.DataFrame(schema=known)
    return read(
        con, f"select {', '.join(JUDGED)} from ml.text_sentiments where as_of_date <= $day", {"day": day}
    ), read(
        con,
        "select language, as_of_date, topic_id, words from ml.text_topics where as_of_date <= $day order by all",
        {"day": day},
    )


def _told(
    day: Any,
    window: int,
    texts: "pl.DataFrame",
    judged: "pl.DataFrame",
    topics: "pl.DataFrame",
    metrics: "pl.DataFrame",
    products: "pl.DataFrame",
) -> dict[str, Any]:
    import polars as pl

    since = day - timedelta(days=window)
    recent = judged.filter(pl.col("written_date") >= since)
    return {
        "as_of_date": day,
        "window_days": window,
        "texts": texts.height,
        "judged": judged.height,
        "languages": dict(texts["language"].value_counts().sort("language").iter_rows()),
        "sentiment": recent.group_by("kind", "language")
        .agg(
            n_texts=pl.len(),
            mean_sentiment=pl.col("sentiment").mean(),
            negative_share=(pl.col("label") == "negative").mean(),
        )
        .sort("kind", "language")
        .to_dicts(),
        "topics": topics.to_dicts(),
        "metrics": metrics.to_dicts(),
        "products": products.height,
        "notes": _notes(texts, topics, metrics),
    }


def _notes(texts: "pl.DataFrame", topics: "pl.DataFrame", metrics: "pl.DataFrame") -> list[str]:
    if texts.is_empty():
        return ["there are no texts: load reviews (events.text) or support_tickets"]
    notes = []
    other = texts.filter(texts["language"] == "other").height
    if other:
        notes.append(f"{other:,} texts are in a language that is not judged; they are kept without a sentiment")
    if cut := int(texts["is_cut"].sum()):
        notes.append(f"{cut:,} very long texts were read to their first 2,000 characters")
    if empty := texts.filter(texts["plain"] == "").height:
        notes.append(f"{empty:,} texts are empty")
    if topics.is_empty():
        notes.append("too few texts for topics")
    if metrics.is_empty():
        notes.append("no rated reviews in the window: nothing to measure the sentiment by")
    return notes


def _show(result: dict[str, Any]) -> None:
    from rich.table import Table

    languages = ", ".join(f"{language} {count:,}" for language, count in result["languages"].items())
    out.print(f"judged {result['judged']:,} of {result['texts']:,} texts before {result['as_of_date']} ({languages})")
    for row in result["sentiment"]:
        if row["mean_sentiment"] is not None:
            out.print(
                f"last {result['window_days']} days, {row['kind']}s ({row['language']}): {row['n_texts']:,}, "
                f"mean sentiment {row['mean_sentiment']:+.2f}, {row['negative_share']:.0%} negative"
            )
    if result["topics"]:
        table = Table(box=None, pad_edge=False)
        for name in ("topic", "words", "texts", "share", "sentiment", "intent"):
            table.add_column(name, justify="right" if name in ("texts", "share", "sentiment") else "left")
        for row in result["topics"]:
            mean = row["mean_sentiment"]
            table.add_row(
                f"{row['language']} {row['topic_id']}",
                row["words"],
                f"{row['n_texts']:,}",
                "-" if row["share"] is None else f"{row['share']:.0%}",
                "-" if mean is None else f"{mean:+.2f} ({row['ci_low']:+.2f} to {row['ci_high']:+.2f})",
                "-" if row["intent"] is None else f"{row['intent']} ({row['intent_share']:.0%})",
            )
        out.print(table)
    for row in result["metrics"]:
        if row["value"] is not None and row["metric"] != "accuracy":
            out.print(
                f"against ratings ({row['language']}, {row['n']:,}): {row['model_name']} {row['metric']} "
                f"{row['value']:.3f} ({row['ci_low']:.3f} to {row['ci_high']:.3f})"
            )
    for note in result["notes"]:
        out.print(f"note: {note}")
