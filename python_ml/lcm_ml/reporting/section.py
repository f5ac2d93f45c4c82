"""What the report is made of: a section is a text with figures and tables, made by a function from a connection."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import duckdb
import polars as pl

from lcm_ml.churn.wording import phrase
from lcm_ml.frames.frame import read
from lcm_ml.reporting.charts import Drawing
from lcm_ml.warehouse.connection import first_row, table_exists


@dataclass(frozen=True)
class Table:
    """Cells as text.

    The first `labels` columns name a row; `marked` rows stand out.
    """

    caption: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    labels: int = 1
    marked: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Figure:
    """A chart, in words for readers who cannot see it, and the numbers it is drawn from.

    `title` is empty where the figure is its section's only one.
    """

    drawing: Drawing
    says: str
    table: Table
    title: str = ""


@dataclass(frozen=True)
class Section:
    """One part of the report.

    Where there is nothing to show yet, `filled_by` is the command that fills it, and `once` what that takes.
    """

    id: str
    title: str
    text: str
    figures: tuple[Figure, ...] = ()
    table: Table | None = None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    filled_by: str = ""
    once: str = ""


MakeSection = Callable[[duckdb.DuckDBPyConnection], Section]


@dataclass(frozen=True)
class Group:
    """Sections under one heading."""

    id: str
    title: str
    makers: tuple[MakeSection, ...] = field(repr=False)


def rows_of(con: duckdb.DuckDBPyConnection, relation: str, sql: str, **parameters: Any) -> pl.DataFrame:
    """A query's rows; an empty frame in a warehouse that was built before `relation` (schema.name) was known."""
    schema, name = relation.split(".")
    return read(con, sql, parameters or None) if table_exists(con, schema, name) else pl.DataFrame()


def newest_date(table: str) -> str:
    """SQL for the last as_of_date in `table` (schema.name) up to the scoring date, as the views `*_latest` take it."""
    return (
        f"(select max(as_of_date) from {table} "
        "where as_of_date <= (select as_of_date from marts.as_of_dates where is_scoring_date))"
    )


def champion(con: duckdb.DuckDBPyConnection) -> tuple[str, str] | None:
    """Run and name of the model that serves; before there is one, of the newest fit's first model.

    Figures of a version are those of the fit that made it, whatever was fitted since.
    """
    if not table_exists(con, "ml", "model_versions"):
        return None
    found = first_row(
        con,
        """
        select run_id, model_name
        from ml.model_versions
        where status in ('champion', 'evaluated', 'challenger')
        order by status = 'champion' desc, created_at desc, model_name
        limit 1
        """,
    )
    return (found[0], found[1]) if found else None


def count(value: float | None) -> str:
    """A whole number; - where there is none."""
    return "-" if value is None else f"{value:,.0f}"


def share(value: float | None, digits: int = 1) -> str:
    """A share as a percentage; - where there is none."""
    return "-" if value is None else f"{value:.{digits}%}"


def number(value: float | None, digits: int = 3) -> str:
    """A figure; - where there is none."""
    return "-" if value is None else f"{value:,.{digits}f}"


def two_digits(value: float | None) -> str:
    """A figure as money is written; - where there is none."""
    return number(value, 2)


Form = Callable[[float | None], str]


def with_interval(row: dict[str, Any], form: Form = number, value: str = "value") -> str:
    """A figure with its 95 % interval, where it has one, in a sentence."""
    text = form(row[value])
    return text if row["ci_low"] is None else f"{text} ({form(row['ci_low'])} to {form(row['ci_high'])})"


def cell(row: dict[str, Any] | None, form: Form = number, value: str = "value") -> str:
    """A figure in a table, its 95 % interval on a line of its own; - where there is no row."""
    if row is None:
        return "-"
    text = form(row[value])
    return text if row["ci_low"] is None else f"{text}\n{form(row['ci_low'])} to {form(row['ci_high'])}"


def sentence(text: str) -> str:
    """The text with a capital letter first."""
    return text[:1].upper() + text[1:]


def listed(words: list[str]) -> str:
    """Words as a sentence has them: a, b and c."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def plural(n: int, one: str, many: str = "") -> str:
    """1 user, 2 users."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def feature_title(feature: str) -> str:
    """A feature in words, without a value."""
    told = phrase(feature)
    before = {"days": "days ", "share": "share: ", "money": "money "}.get(told.kind, "")
    return f"{before}{told.words}{told.window}"
