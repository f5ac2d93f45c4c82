"""What the commands of `lcm-ml support` do, free of the command line: `lcm-ml run` and a server call these too."""

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcm_ml.cli.console import notify

if TYPE_CHECKING:
    import duckdb
    import polars as pl

    from lcm_ml.support.assistant import Assistant
    from lcm_ml.support.evaluation import Measured

QUESTIONS, ARTICLES = "tests/python/labelled_tickets.csv", "tests/python/labelled_articles.csv"


def load_assistant(con: "duckdb.DuckDBPyConnection", as_of: date | None = None) -> "Assistant":
    """Build the assistant from the warehouse: hold it, and ask it as often as you like.

    Raises:
        LcmError: when the marts may not be read.
    """
    from lcm_ml.frames.frame import resolve_as_of
    from lcm_ml.frames.support import articles, tickets_before
    from lcm_ml.support.assistant import build_assistant

    labelled = tickets_before(con, resolve_as_of(con, as_of)).filter(_is_labelled())
    return build_assistant(articles(con), labelled)


def run_ask(question: str, user_id: str | None = None) -> dict[str, Any]:
    """Answer one question. An unknown user gets a general answer.

    Raises:
        LcmError: when the marts cannot be read.
    """
    from lcm_ml.frames.support import facts_of
    from lcm_ml.warehouse.connection import connect

    with connect(read_only=True, notify=notify) as con:
        assistant = load_assistant(con)
        facts = facts_of(con, user_id) if user_id else None
    return assistant.ask_as_rows(question, user_id, facts)


def run_triage(as_of: datetime | None, advance: Any) -> dict[str, Any]:
    """Recognise tickets, rank the open ones and write both. A shop without tickets has empty tables and a note.

    Raises:
        LcmError: when the marts cannot be read or the warehouse cannot be written.
    """
    from lcm_ml.registry.runs import Run, run_capability

    run = Run("support triage", {})

    def compute(con: "duckdb.DuckDBPyConnection", day: date) -> "tuple[dict[str, pl.DataFrame], dict[str, Any]]":
        import polars as pl

        from lcm_ml.frames.frame import built_settings
        from lcm_ml.frames.support import articles, standing, tickets_before
        from lcm_ml.support.assistant import build_assistant
        from lcm_ml.support.evaluation import WINDOW_DAYS
        from lcm_ml.support.triage import triage_rows

        advance("reading", 0.0)
        settings = built_settings(con)
        tickets = tickets_before(con, day)
        recent = tickets.filter((pl.col("created_date") >= day - timedelta(days=WINDOW_DAYS)) | pl.col("is_open"))
        knowledge = articles(con)
        advance("learning", 0.2)
        judged = _nothing_judged()
        if recent.height:
            assistant = build_assistant(knowledge, tickets.filter(_is_labelled()))
            judged = assistant.judge(recent.select("plain", "language", text_id="ticket_id"))
        advance("ranking", 0.8)
        labelled = pl.col("label").is_not_null()
        found = recent.rename({"intent": "label"}).join(judged, left_on="ticket_id", right_on="text_id", how="left")
        found = found.with_columns(
            intent=pl.coalesce("label", "intent"),
            intent_probability=pl.when(labelled).then(1.0).otherwise("intent_probability"),
            is_labelled=labelled,
        )
        waiting = _with_sentiment(con, found.filter("is_open"), day)
        ranked = triage_rows(waiting, standing(con, day), settings["triage_weights"], settings["intent_urgency"])
        names = ("ticket_id", "created_date", "language", "intent", "intent_probability", "is_labelled", "is_open")
        tables = {"ticket_intents": found.select(names), "ticket_triage": ranked}
        return tables, _triage_told(day, tickets, found, ranked, knowledge)

    _, told = run_capability(run, as_of, compute, notify)
    return {"run_id": run.run_id, **told}


def _is_labelled() -> "pl.Expr":
    import polars as pl

    return pl.col("intent").is_not_null()


def _nothing_judged() -> "pl.DataFrame":
    import polars as pl

    texts = dict.fromkeys(("text_id", "intent", "article_id"), pl.String)
    return pl.DataFrame(schema={**texts, "intent_probability": pl.Float64})


def _with_sentiment(con: "duckdb.DuckDBPyConnection", tickets: "pl.DataFrame", day: date) -> "pl.DataFrame":
    """Tickets with the sentiment that `lcm-ml words` found; those it has not seen are judged by its base model."""
    import polars as pl

    from lcm_ml.frames.support import judged_sentiments
    from lcm_ml.insights.words.judging import with_sentiment
    from lcm_ml.insights.words.language import LANGUAGES
    from lcm_ml.insights.words.sentiment import base_model

    stored = judged_sentiments(con, day)
    fresh = tickets.join(stored, on="ticket_id", how="anti").select(
        "plain", "language", text_id="ticket_id", kind=pl.lit("ticket")
    )
    parts = [stored]
    for language in LANGUAGES:
        own = fresh.filter(pl.col("language") == language)
        if own.height:
            judged = with_sentiment(own, base_model(language), base_model(language))
            parts.append(judged.select("sentiment", ticket_id="text_id").select(stored.columns))
    return tickets.join(pl.concat(parts), on="ticket_id", how="left")


def _triage_told(
    day: date, tickets: "pl.DataFrame", found: "pl.DataFrame", ranked: "pl.DataFrame", knowledge: "pl.DataFrame"
) -> dict[str, Any]:
    import polars as pl

    notes = []
    if tickets.is_empty():
        notes.append("there are no tickets: load support_tickets")
    elif not ranked.height:
        notes.append(f"no ticket was open at {day}")
    if knowledge.is_empty():
        notes.append("there are no articles to suggest: load kb_articles")
    if silent := ranked.filter(pl.col("intent_probability").is_null()).height:
        notes.append(
            f"{silent:,} open tickets could not be judged: no text, or in a language other than English, Chinese"
        )
    return {
        "as_of_date": day,
        "tickets": found.height,
        "intents": dict(found["intent"].value_counts().sort("intent").iter_rows()),
        "open": ranked.height,
        "triage": ranked.to_dicts(),
        "notes": notes,
    }


def run_evaluate(
    as_of: datetime | None = None,
    questions: Path | None = None,
    articles_file: Path | None = None,
    advance: Any = lambda *_: None,
) -> dict[str, Any]:
    """Measure the assistant on labelled questions and on the shop's own labelled tickets, and write the figures.

    Args:
        as_of: one of marts.as_of_dates; the end of the data where None.
        questions: a CSV with language, intent, article_id, text; that of the project where None.
        articles_file: a CSV with article_id, intent, title, body; that of the project where None.
        advance: told how far it is.

    Raises:
        LcmError: when a file lacks something, the marts cannot be read or the warehouse cannot be written.
    """
    from lcm_ml.registry.runs import Run, run_capability

    run = Run("support evaluate", {"questions": questions})

    def compute(con: "duckdb.DuckDBPyConnection", day: date) -> "tuple[dict[str, pl.DataFrame], Measured]":
        from lcm_ml.frames.support import articles, tickets_before
        from lcm_ml.support.evaluation import evaluate_held_out, evaluate_shop

        asked = _labelled_file(questions, QUESTIONS, ("language", "intent", "article_id", "text"))
        knowledge = _labelled_file(articles_file, ARTICLES, ("article_id", "intent", "title", "body"))
        tickets = tickets_before(con, day)
        advance("held-out questions", 0.1)
        measured = evaluate_held_out(asked, knowledge, tickets.filter(_is_labelled()))
        advance("the shop's tickets", 0.6)
        measured.add(evaluate_shop(tickets, articles(con), day))
        return {"support_metrics": measured.metrics, "support_confusion": measured.confusion}, measured

    day, measured = run_capability(run, as_of, compute, notify)
    return {
        "run_id": run.run_id,
        "as_of_date": day,
        "metrics": measured.metrics.to_dicts(),
        "confusion": measured.confusion.to_dicts(),
        "notes": measured.notes,
    }


def _labelled_file(path: Path | None, usual: str, columns: tuple[str, ...]) -> "pl.DataFrame":
    import polars as pl

    from lcm_ml import project
    from lcm_ml.errors import LcmError

    chosen = path or project.root() / usual
    if not chosen.is_file():
        raise LcmError(f"there is no file {chosen}", "name one with --questions and --articles")
    try:
        rows = pl.read_csv(chosen, infer_schema=False)
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        raise LcmError(f"{chosen} cannot be read as CSV: {error}", "save it as UTF-8 with a header") from None
    if missing := [name for name in columns if name not in rows.columns]:
        raise LcmError(f"{chosen} lacks the columns {', '.join(missing)}", f"give it {', '.join(columns)}")
    return rows.select(columns)
