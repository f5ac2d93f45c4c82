"""The next best action: what is to be done with users, and what kept others from a contact."""

import duckdb
import polars as pl

from lcm_ml.decisions.actions.explaining import REASONS
from lcm_ml.reporting import charts
from lcm_ml.reporting.section import (
    Figure,
    MakeSection,
    Section,
    Table,
    count,
    plural,
    rows_of,
    sentence,
    share,
    two_digits,
)


def actions(con: duckdb.DuckDBPyConnection) -> Section:
    """Contacts by rule and channel, and what blocked the rest."""
    title = "The next best action of each user"
    text = (
        "Each user gets the first of the marketer's rules that fits it and whose contact is allowed and expected to "
        "earn something. Profit is what the contact is expected to add, less the contact and the discount."
    )
    rows = rows_of(
        con,
        "serving.next_best_actions_latest",
        """
        select
            rule_id,
            channel,
            offer,
            count(*) as users,
            sum(expected_profit) as expected_profit,
            count(*) filter (where gain_source = 'uplift') as measured
        from serving.next_best_actions_latest
        where action = 'contact'
        group by all
        order by users desc, rule_id, channel, offer
        """,
    )
    total = rows_of(
        con, "serving.next_best_actions_latest", "select count(*) as n from serving.next_best_actions_latest"
    )
    if total.is_empty() or not total.item():
        return Section("actions", title, text, filled_by="lcm-ml act", once="users were scored")
    users, contacted = total.item(), int(rows["users"].sum())
    notes: tuple[str, ...] = ()
    figures = []
    if contacted:
        figures.append(_contacts(rows, users, contacted))
        measured = int(rows["measured"].sum())
        notes = (
            f"The effect of {count(measured)} of {plural(contacted, 'contact')} was measured against control arms; "
            "that of the others is assumed.",
        )
    else:
        notes = (f"Of {plural(users, 'user')} none is to be contacted.",)
    figures += _blocked(con)
    return Section("actions", title, text, tuple(figures), notes=notes)


def _contacts(rows: pl.DataFrame, users: int, contacted: int) -> Figure:
    profit = float(rows["expected_profit"].sum())
    first = rows.row(0, named=True)
    says = (
        f"{count(contacted)} of {plural(users, 'user')} ({share(contacted / users)}) are to be contacted, expected to "
        f"earn {two_digits(profit)} in all; the most, {count(first['users'])}, by the rule {first['rule_id']} through "
        f"{first['channel']}."
    )
    bars = rows.select(label=pl.format("{}: {} by {}", "rule_id", "offer", "channel"), value="users")
    table = Table(
        "Contacts by rule, offer and channel",
        ("rule", "offer", "channel", "users", "expected profit", "each"),
        tuple(
            (
                row["rule_id"],
                row["offer"],
                row["channel"],
                count(row["users"]),
                two_digits(row["expected_profit"]),
                two_digits(row["expected_profit"] / row["users"]),
            )
            for row in rows.to_dicts()
        ),
        labels=3,
    )
    return Figure(charts.bars(bars, "users", ",d"), says, table, "Contacts")


def _blocked(con: duckdb.DuckDBPyConnection) -> list[Figure]:
    rows = rows_of(
        con,
        "serving.next_best_actions_latest",
        """
        select blocked_by, count(*) as users, count(*) filter (where action = 'contact') as contacted
        from serving.next_best_actions_latest
        where blocked_by is not null
        group by all
        order by users desc, blocked_by
        """,
    )
    if rows.is_empty():
        return []
    named = [(sentence(REASONS.get(row["blocked_by"], row["blocked_by"])), row) for row in rows.to_dicts()]
    says = f"The most, {plural(named[0][1]['users'], 'user')}: {named[0][0][:1].lower()}{named[0][0][1:]}."
    table = Table(
        "What kept a rule from a contact",
        ("reason", "users", "of them contacted by a later rule"),
        tuple((label, count(row["users"]), count(row["contacted"])) for label, row in named),
    )
    bars = pl.DataFrame([{"label": label, "value": row["users"]} for label, row in named])
    return [Figure(charts.bars(bars, "users", ",d", charts.SERIES[1]), says, table, "Not contacted, and why")]


SECTIONS: tuple[MakeSection, ...] = (actions,)
