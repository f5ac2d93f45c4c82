"""`lcm-ml support`: answer questions, rank open tickets, measure both."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from lcm_ml.cli import support_serve
from lcm_ml.cli.console import JsonOption, command, emit, out, progress, with_interval

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="The support assistant: answers from the knowledge base, and the order of open tickets.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
AsOf = Annotated[
    datetime | None,
    typer.Option(help="One of marts.as_of_dates. Default: the end of the data.", formats=["%Y-%m-%d"]),
]
app.command()(support_serve.serve)
METRICS = ("intent_macro_f1", "recall_at_3", "mrr", "refusal_precision", "refusal_recall", "right_article_first")


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="In English or Chinese; the answer has its language.")],
    user: Annotated[str | None, typer.Option(help="Who asks, as in serving.user_profiles.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Answer a question from the articles and the user's own facts, with citations, or say that none fits.

    Example: `lcm-ml support ask "where is my parcel?" --user 1042`
    """
    from lcm_ml.cli.support_runs import run_ask

    with command(as_json):
        with progress("support", as_json) as advance:
            advance("reading", 0.1)
            result = run_ask(question, user)
        emit(result, as_json, _show_answer)


@app.command()
def triage(as_of: AsOf = None, as_json: JsonOption = False) -> None:
    """Rank the open tickets by urgency, sentiment, the user's value and churn risk, with the reason.

    Example: `lcm-ml support triage --as-of 2025-12-22`
    """
    from lcm_ml.cli.support_runs import run_triage

    with command(as_json):
        with progress("triage", as_json) as advance:
            result = run_triage(as_of, advance)
        emit(result, as_json, _show_triage)


@app.command()
def evaluate(
    as_of: AsOf = None,
    questions: Annotated[Path | None, typer.Option(help="CSV: language, intent, article_id, text.")] = None,
    articles: Annotated[Path | None, typer.Option(help="CSV: article_id, intent, title, body.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the assistant on labelled questions and on the shop's labelled tickets, beside plain ways.

    Example: `lcm-ml support evaluate`
    """
    from lcm_ml.cli.support_runs import run_evaluate

    with command(as_json):
        with progress("support", as_json) as advance:
            result = run_evaluate(as_of, questions, articles, advance)
        emit(result, as_json, _show_figures)


def _show_answer(result: dict[str, Any]) -> None:
    out.print(result["text"])
    if result["agent_note"]:
        out.print(f"\nfor the agent: {result['agent_note']}")
    sure = "" if result["intent_probability"] is None else f" ({result['intent_probability']:.0%})"
    out.print(f"\nintent: {result['intent']}{sure}, language: {result['language']}")
    for place, citation in enumerate(result["citations"], 1):
        out.print(f"[{place}] {citation['article_id']}: {citation['title']} ({citation['score']:.2f})")
    _show_notes(result)


def _show_triage(result: dict[str, Any]) -> None:
    from rich.table import Table

    listed = ", ".join(f"{intent} {n:,}" for intent, n in result["intents"].items())
    out.print(f"{result['tickets']:,} tickets before {result['as_of_date']}, {result['open']:,} open")
    if listed:
        out.print(f"intents: {listed}")
    if result["triage"]:
        table = Table(box=None, pad_edge=False)
        for name in ("rank", "ticket", "user", "intent", "sentiment", "priority", "reason", "article"):
            table.add_column(name, justify="right" if name in ("rank", "sentiment", "priority") else "left")
        for row in result["triage"][:20]:
            mood = "-" if row["sentiment"] is None else f"{round(row['sentiment'], 2) + 0.0:+.2f}"
            cells = (row["priority_rank"], row["ticket_id"], row["user_id"], row["intent"], mood)
            last = (f"{row['priority']:.2f}", row["reason"], row["suggested_article_id"] or "-")
            table.add_row(*(_literal(str(cell)) for cell in (*cells, *last)))
        out.print(table)
    _show_notes(result)


def _show_figures(result: dict[str, Any]) -> None:
    from rich.table import Table

    cells: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in result["metrics"]:
        cells.setdefault((row["evaluated_on"], row["language"], row["model_name"]), {})[row["metric"]] = row
    table = Table(box=None, pad_edge=False)
    for name in ("on", "language", "model", "n", *METRICS):
        table.add_column(name.replace("_", " "), justify="left" if name in ("on", "language", "model") else "right")
    for (where, language, model), figures in cells.items():
        n = next(iter(figures.values()))["n"]
        table.add_row(
            where, language, model, f"{n:,}", *(with_interval(figures.get(metric), ".2f") for metric in METRICS)
        )
    out.print(table)
    for where, language in sorted({(row["evaluated_on"], row["language"]) for row in result["confusion"]}):
        own = [row for row in result["confusion"] if (row["evaluated_on"], row["language"]) == (where, language)]
        _show_confusion(f"recognised, {where} ({language})", own)
    _show_notes(result)


def _show_confusion(title: str, rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    names = sorted({row["recognised_intent"] for row in rows})
    table = Table(box=None, pad_edge=False)
    for name in (title, *names):
        table.add_column(name, justify="left" if name == title else "right")
    counts = {(row["intent"], row["recognised_intent"]): row["n"] for row in rows}
    for intent in sorted({row["intent"] for row in rows}):
        table.add_row(_literal(intent), *(str(counts.get((intent, name), 0)) for name in names))
    out.print()
    out.print(table)


def _show_notes(result: dict[str, Any]) -> None:
    for note in result["notes"]:
        out.print(f"note: {note}")


def _literal(text: str) -> Any:
    from rich.text import Text

    return Text(text)
