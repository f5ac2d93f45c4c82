"""What support tickets are about, which to answer first, and how far the assistant can be trusted."""

from itertools import groupby

import duckdb
import polars as pl

from lcm_ml.reporting import charts_support
from lcm_ml.reporting.section import (
    Figure,
    MakeSection,
    Section,
    Table,
    cell,
    count,
    newest_date,
    number,
    plural,
    rows_of,
    share,
    two_digits,
)

TRIAGE = "lcm-ml support triage"
SHOWN = 15
LANGUAGES = {"en": "English", "zh": "Chinese"}
SETS = {"held_out": "held-out questions", "shop": "the shop's tickets"}
METRICS = {
    "intent_macro_f1": "intent macro-F1",
    "recall_at_3": "article in the first 3",
    "mrr": "mean reciprocal rank",
    "refusal_precision": "rightly refused, of refused",
    "refusal_recall": "refused, of those to refuse",
}


def intents(con: duckdb.DuckDBPyConnection) -> Section:
    """Tickets of the last weeks by intent, and how many of them are open."""
    title = "What tickets are about"
    text = (
        "Tickets of the last 84 days and those still open, by intent: the shop's label where it gave one, else what "
        "was recognised; unknown where the model is not sure."
    )
    rows = rows_of(
        con,
        "ml.ticket_intents",
        f"""
        select intent, count(*) as n, count(*) filter (is_open) as n_open,
            count(*) filter (is_labelled) as n_labelled
        from ml.ticket_intents
        where as_of_date = {newest_date("ml.ticket_intents")}
        group by intent
        order by n desc, intent
        """,
    )
    if rows.is_empty():
        return Section("support-intents", title, text, filled_by=TRIAGE, once="the shop has support tickets")
    total = int(rows["n"].sum())
    first = rows.row(0, named=True)
    says = (
        f"{plural(total, 'ticket')}, {int(rows['n_open'].sum()):,} of them open. The commonest intent is "
        f"{first['intent']} ({share(first['n'] / total, 0)})."
    )
    table = Table(
        title,
        ("intent", "tickets", "share", "open", "labelled by the shop"),
        tuple(
            (row["intent"], count(row["n"]), share(row["n"] / total, 0), count(row["n_open"]), count(row["n_labelled"]))
            for row in rows.to_dicts()
        ),
    )
    states = pl.concat(
        [
            rows.select("intent", state=pl.lit("resolved"), n=pl.col("n") - pl.col("n_open")),
            rows.select("intent", state=pl.lit("open"), n="n_open"),
        ]
    )
    drawing = charts_support.intents(states, ("resolved", "open"))
    return Section("support-intents", title, text, (Figure(drawing, says, table),), table=_measured(con))


def _measured(con: duckdb.DuckDBPyConnection) -> Table | None:
    rows = rows_of(
        con,
        "ml.support_metrics",
        f"""
        select *
        from ml.support_metrics
        where as_of_date = {newest_date("ml.support_metrics")}
            and model_name in ('assistant', 'keywords', 'majority')
        order by evaluated_on, language, model_name
        """,
    ).to_dicts()
    if not rows:
        return None
    lines = []
    for (where, language, model), own in groupby(
        rows, lambda row: (row["evaluated_on"], row["language"], row["model_name"])
    ):
        cells = {row["metric"]: row for row in own}
        figures = tuple(cell(cells.get(metric), two_digits) for metric in METRICS)
        lines.append((SETS[where], LANGUAGES[language], model, count(cells["intent_macro_f1"]["n"]), *figures))
    headers = ("measured on", "language", "by", "questions", *METRICS.values())
    return Table("How good the assistant is, with 95 % intervals", headers, tuple(lines), labels=3)


def queue(con: duckdb.DuckDBPyConnection) -> Section:
    """Open tickets, the first to be answered first, with the reason."""
    title = "Open tickets by priority"
    text = (
        "Priority is from 0 to 1: how urgent the intent is, how negative it sounds, what the user is worth and how "
        "likely the user leaves, weighted by the settings."
    )
    rows = rows_of(
        con, "serving.ticket_triage_latest", "select * from serving.ticket_triage_latest order by priority_rank"
    )
    if rows.is_empty():
        return Section("support-queue", title, text, filled_by=TRIAGE, once="tickets are open")
    shown = rows.head(SHOWN)
    table = Table(
        f"The first {shown.height:,} of {plural(rows.height, 'open ticket')} at {rows.item(0, 'as_of_date')}",
        ("rank", "ticket", "user", "intent", "priority", "why", "article"),
        tuple(
            (
                str(row["priority_rank"]),
                row["ticket_id"],
                row["user_id"],
                row["intent"],
                number(row["priority"], 2),
                row["reason"],
                row["suggested_article_id"] or "-",
            )
            for row in shown.to_dicts()
        ),
        labels=2,
    )
    return Section("support-queue", title, text, table=table)


SECTIONS: tuple[MakeSection, ...] = (intents, queue)
