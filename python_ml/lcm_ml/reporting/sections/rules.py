"""What is bought together."""

import duckdb
import polars as pl

from lcm_ml.reporting import charts
from lcm_ml.reporting.section import Figure, MakeSection, Section, Table, number, plural, rows_of, share

RULES = "lcm-ml rules"
SHOWN, LISTED = 10, 30
PLURAL = {"category": "categories", "product": "products"}


def _rules(con: duckdb.DuckDBPyConnection, level: str) -> Section:
    title = f"{PLURAL[level].capitalize()} bought together"
    text = (
        f"Baskets with the {PLURAL[level]} on the left of the arrow have the one on its right more often than all "
        "baskets do, more than chance explains (false discovery rate 5 %); the strongest rule for each right side. The "
        "bar is how many of them have it, with its 95 % interval; the mark is how many of all baskets have it. It says "
        "what goes together, not why."
    )
    rows = rows_of(
        con,
        "serving.association_rules_latest",
        """
        select *, count(*) over () as n_rules
        from serving.association_rules_latest
        where level = $level
        qualify row_number() over (partition by consequent order by lift desc, antecedent) = 1
        order by lift desc, antecedent, consequent
        limit $listed
        """,
        level=level,
        listed=LISTED,
    )
    if rows.is_empty():
        once = "enough baskets have more than one item"
        return Section(f"rules-{level}", title, text, filled_by=RULES, once=once)
    table = Table(
        title,
        ("in the basket", "also", "confidence", "of all baskets", "lift", "conviction", "baskets"),
        tuple(
            (
                row["antecedent_names"],
                row["consequent_name"],
                f"{share(row['confidence'])}\n{share(row['ci_low'])} to {share(row['ci_high'])}",
                share(row["consequent_support"]),
                number(row["lift"], 1),
                number(row["conviction"], 2),
                f"{row['baskets']:,}",
            )
            for row in rows.to_dicts()
        ),
        labels=2,
    )
    shown = rows.head(SHOWN)
    top = shown.row(0, named=True)
    says = (
        f"{plural(top['n_rules'], 'rule')} before {top['as_of_date']}; the strongest: {share(top['confidence'], 0)} of "
        f"baskets with {top['antecedent_names']} have {top['consequent_name']}, against "
        f"{share(top['consequent_support'])} of all (lift {number(top['lift'], 1)}, {top['baskets']:,} baskets)."
    )
    drawing = charts.bars(
        shown.select(
            "ci_low",
            "ci_high",
            label=pl.format(
                "{}. {} → {}", pl.int_range(1, pl.len() + 1), _short("antecedent_names"), _short("consequent_name")
            ),
            value="confidence",
            limit="consequent_support",
        ),
        "of these baskets have it too",
        "%",
        limit_title="of all baskets",
    )
    return Section(f"rules-{level}", title, text, (Figure(drawing, says, table),))


def _short(column: str, longest: int = 22) -> pl.Expr:
    """Names as a phone has room for two of them, cut in the middle, since many differ at the end alone."""
    text, rest = pl.col(column), longest - 1
    cut = text.str.head(rest - rest // 2) + "…" + text.str.tail(rest // 2)
    return pl.when(text.str.len_chars() > longest).then(cut).otherwise(text)


def categories(con: duckdb.DuckDBPyConnection) -> Section:
    """Rules of categories, the highest lifts first."""
    return _rules(con, "category")


def products(con: duckdb.DuckDBPyConnection) -> Section:
    """Rules of products, the highest lifts first."""
    return _rules(con, "product")


SECTIONS: tuple[MakeSection, ...] = (categories, products)
