"""The strategy loop: what recorded actions brought beside the users held back, and what is proposed."""

import duckdb
import polars as pl

from lcm_ml.reporting import charts
from lcm_ml.reporting.section import (
    Figure,
    MakeSection,
    Section,
    Table,
    cell,
    count,
    number,
    plural,
    rows_of,
    share,
    two_digits,
)

COMMAND = "lcm-ml strategy"
SHOWN = ("all", "rule", "offer", "channel")
NAMES = {"all": "all actions"}


def strategy(con: duckdb.DuckDBPyConnection) -> Section:
    """Profit per contact of each rule, offer and channel, and the changes that follow."""
    title = "What the actions brought"
    text = (
        "Users that an action was meant for are contacted or, at random, held back. The profit of a contact is the "
        "margin of what the contacted spent more than the held back, less discounts and contacts. Where the interval "
        "holds 0, nothing is shown yet."
    )
    found = rows_of(
        con,
        "serving.strategy_effects_latest",
        "select * from serving.strategy_effects_latest where dimension in $shown order by dimension, level",
        shown=list(SHOWN),
    )
    if found.is_empty():
        return Section("strategy", title, text, filled_by=COMMAND, once="actions were recorded with `lcm-ml act`")
    rows = sorted(found.to_dicts(), key=lambda row: SHOWN.index(row["dimension"]))
    table = Table(
        title,
        ("actions", "contacted", "held back", "purchases", "of the held back", "profit expected", "profit", "p"),
        tuple(
            (
                _name(row),
                count(row["n_treated"]),
                count(row["n_control"]),
                share(row["purchase_rate_treated"]),
                share(row["purchase_rate_control"]),
                two_digits(row["expected_profit"]),
                cell(row, two_digits, "profit"),
                number(row["p_value_adjusted"]),
            )
            for row in rows
        ),
    )
    whole = rows[0]
    told = f"{plural(whole['n_treated'], 'contact')} from {whole['first_sent']} to {whole['last_sent']}"
    notes = _proposals(con)
    shown = pl.DataFrame(
        [
            {
                "label": _name(row),
                "name": "profit per contact",
                "value": row["profit"],
                "ci_low": row["ci_low"],
                "ci_high": row["ci_high"],
            }
            for row in rows
            if row["profit"] is not None
        ]
    )
    if shown.is_empty():
        return Section("strategy", title, text, table=table, notes=(f"{told}: too few to compare.", *notes))
    drawing = charts.dots(shown, "profit per contact", ".2f", ("profit per contact",), zero=True)
    apart = shown.filter((pl.col("ci_low") > 0) | (pl.col("ci_high") < 0)).height
    lie = "lies" if apart == 1 else "lie"
    says = f"{told}. {plural(apart, 'interval')} of {shown.height} {lie} apart from 0."
    return Section("strategy", title, text, (Figure(drawing, says, table),), notes=notes)


def _name(row: dict[str, str]) -> str:
    return NAMES.get(row["dimension"], f"{row['dimension']} {row['level']}")


def _proposals(con: duckdb.DuckDBPyConnection) -> tuple[str, ...]:
    found = rows_of(
        con,
        "serving.strategy_proposals_latest",
        "select * from serving.strategy_proposals_latest order by proposal_id",
    )
    if found.is_empty():
        return ("No change of rules or offers is proposed.",)
    return tuple(
        f"{'Applied' if row['is_applied'] else 'Proposed'}: {row['parameter']} of {row['name']} from "
        f"{'empty' if row['old_value'] is None else row['old_value']} to {row['new_value']}. {row['evidence']}."
        for row in found.to_dicts()
    )


SECTIONS: tuple[MakeSection, ...] = (strategy,)
