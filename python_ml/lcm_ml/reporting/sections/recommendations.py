"""What is recommended, why, and how good it is."""

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
    plural,
    rows_of,
    share,
    two_digits,
    with_interval,
)

RECOMMEND = "lcm-ml recommend"
EXAMPLES, PLACES = 3, 5
SHOWN_K = 10


def quality(con: duckdb.DuckDBPyConnection) -> Section:
    """Every recommender out of time, beside popularity and the user's own list."""
    title = "Recommendations against what was bought"
    text = (
        "Lists of each model made at a date, against what the users bought in the horizon after it. NDCG@10: how many "
        "of ten places are hits, the first ones counting most; 1 is the best list there could have been. Lines are "
        "95 % intervals by user. The user's own most bought products are the bar to beat where shopping is habit."
    )
    rows = rows_of(
        con,
        "ml.recommendation_metrics",
        """
        select *
        from ml.recommendation_metrics
        where
            k = $k
            and run_id = (
                select run_id from ml.recommendation_metrics order by as_of_date desc, run_id desc limit 1
            )
        """,
        k=SHOWN_K,
    )
    if rows.is_empty():
        return Section(
            "recommendation-quality",
            title,
            text,
            filled_by=f"{RECOMMEND} --evaluate",
            once="two horizons of purchases lie behind the date",
        )
    plain = rows.filter(pl.col("reference_name").is_null())
    ndcg = plain.filter(metric="ndcg").sort("value", "model_name", descending=[True, False])
    cells = {(row["model_name"], row["metric"]): row for row in plain.to_dicts()}
    names = ndcg["model_name"].to_list()
    gains = rows.filter(pl.col("reference_name").is_not_null(), metric="ndcg").sort("reference_name").to_dicts()
    best = ndcg.row(0, named=True)
    says = (
        f"{plural(best['n_users'], 'user')} who bought something in the horizon after {best['as_of_date']}. Highest: "
        f"{_called(best['model_name'])}, {with_interval(best)}. "
        + " ".join(
            f"{_called(gain['model_name']).capitalize()} less {_called(gain['reference_name'])}: {with_interval(gain)}."
            for gain in gains
        )
    )
    table = Table(
        f"Figures of lists of {SHOWN_K}",
        ("model", "NDCG", "recall", "MAP", "coverage", "novelty (bits)"),
        tuple(
            (
                _called(name),
                *(cell(cells.get((name, metric))) for metric in ("ndcg", "recall", "map")),
                cell(cells.get((name, "coverage")), share),
                cell(cells.get((name, "novelty")), two_digits),
            )
            for name in names
        ),
    )
    drawing = charts.bars(
        ndcg.select(
            label=pl.Series([_called(name) for name in names]), value="value", ci_low="ci_low", ci_high="ci_high"
        ),
        "NDCG@10",
        ".2f",
    )
    notes = (
        "Coverage: the share of products in stock that are in anybody's list. Novelty: bits of surprise, higher where "
        "fewer buyers had bought a product before.",
    )
    return Section("recommendation-quality", title, text, (Figure(drawing, says, table),), notes=notes)


def examples(con: duckdb.DuckDBPyConnection) -> Section:
    """A few users with the start of their lists and the reasons, and where lists come from."""
    title = "Lists and their reasons"
    text = (
        "The source is the candidate model that placed a product highest; the hybrid decides on the order. A reason "
        "tells a fact about the user and the product."
    )
    relation = "serving.recommendations_latest"
    sources = rows_of(
        con,
        relation,
        f"""
        select
            source as label,
            count(*) / sum(count(*)) over () as value,
            count(*) as places,
            avg(cast(is_repeat as integer)) as repeats,
            sum(count(*)) over () as all_places,
            sum(sum(cast(is_repeat as integer))) over () / sum(count(*)) over () as all_repeats,
            max(as_of_date) as as_of_date
        from {relation}
        group by source
        order by places desc, source
        """,
    )
    if sources.is_empty():
        return Section("recommendations", title, text, filled_by=RECOMMEND)
    lists = rows_of(
        con,
        relation,
        f"""
        with firsts as (
            -- A user for each source, so that different reasons are seen.
            select source, min(user_id) as user_id from {relation} where rank = 1 group by source
        ),

        chosen as (
            select distinct firsts.user_id
            from firsts
            inner join (select source, count(*) as places from {relation} group by source) as sizes using (source)
            order by firsts.user_id
            limit $users
        )

        select * from {relation} where user_id in (from chosen) and rank <= $places order by user_id, rank
        """,
        users=EXAMPLES,
        places=PLACES,
    )
    top = sources.row(0, named=True)
    says = (
        f"{count(top['all_places'])} places in lists of {top['as_of_date']}: {share(top['value'], 0)} come from "
        f"{_called(top['label'])}; {share(top['all_repeats'], 0)} hold what the user has bought before."
    )
    by_source = Table(
        "Places by source",
        ("source", "places", "share", "bought before"),
        tuple(
            (_called(row["label"]), count(row["places"]), share(row["value"]), share(row["repeats"]))
            for row in sources.to_dicts()
        ),
    )
    drawing = charts.bars(
        sources.select(label=pl.Series([_called(name) for name in sources["label"]]), value="value"),
        "places in lists",
        "%",
    )
    shown = Table(
        "Users with the start of their lists",
        ("user", "place", "product", "reason", "source"),
        tuple(
            (
                row["user_id"],
                str(row["rank"]),
                row["title"] or row["category"] or row["product_id"],
                row["explanation"],
                _called(row["source"]),
            )
            for row in lists.to_dicts()
        ),
        labels=2,
    )
    return Section("recommendations", title, text, (Figure(drawing, says, by_source),), table=shown)


NAMES = {
    "own_most_bought": "own most bought",
    "own_recent": "own, recent",
    "viewed": "looked at",
    "item_item": "item to item",
    "als": "ALS",
}


def _called(name: str) -> str:
    return NAMES.get(name, name)


SECTIONS: tuple[MakeSection, ...] = (quality, examples)
