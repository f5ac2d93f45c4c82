"""Whether the model treats groups of people alike."""

import json

import duckdb
import polars as pl

from lcm_ml.reporting import charts
from lcm_ml.reporting.section import (
    Figure,
    MakeSection,
    Section,
    Table,
    cell,
    champion,
    count,
    listed,
    number,
    rows_of,
    sentence,
    share,
    with_interval,
)

FAIRNESS = "lcm-ml fairness"
RATES = {
    "false_negative_rate": "churners missed",
    "false_positive_rate": "stayers contacted",
    "selection_rate": "contacted",
}
ALL, GAP, NONE = "(all)", "(gap)", "none"


def groups(con: duckdb.DuckDBPyConnection) -> Section:
    """Error and selection rates by sensitive attribute."""
    title = "By sensitive attribute"
    text = (
        "The model never sees these attributes. Churners missed: the share of churners below the threshold (false "
        "negative rate); stayers contacted: the share of the others above it (false positive rate); contacted: the "
        "share of all. Lines are 95 % intervals. Base rates may differ between groups: a gap is where to look, not a "
        "verdict."
    )
    first = (champion(con) or ("", ""))[1]
    rows = rows_of(
        con,
        "ml.fairness_metrics",
        """
        select figures.*, runs.parameters
        from ml.fairness_metrics as figures
        left join ml.model_runs as runs on figures.run_id = runs.run_id
        where figures.run_id = (select max(run_id) from ml.fairness_metrics)
        order by model_name = $model desc, model_name, attribute, level != '(all)', level
        """,
        model=first,
    )
    if rows.is_empty():
        return Section("fairness-groups", title, text, filled_by=FAIRNESS)
    model = rows.item(0, "model_name")
    rows = rows.filter(model_name=model)
    plain = rows.filter(pl.col("mitigation") == NONE)
    figures = tuple(
        figure
        for attribute in plain["attribute"].unique(maintain_order=True)
        if (figure := _attribute(str(attribute), plain.filter(attribute=attribute))) is not None
    )
    hidden = plain.filter(pl.col("is_suppressed")).select("attribute", "level").unique(maintain_order=True)
    threshold = json.loads(rows.item(0, "parameters") or "{}").get("threshold")
    above = f", contacted above {share(threshold)}" if threshold is not None else ""
    notes = [f"{model} on {rows.item(0, 'as_of_date')}, out of time{above}."]
    if hidden.height:
        told = listed([f"{attribute}: {level}" for attribute, level in hidden.iter_rows()])
        notes.append(f"Too small to show (var min_group_size): {told}.")
    return Section(
        "fairness-groups",
        title,
        text,
        figures,
        table=_mitigations(rows),
        notes=tuple(notes),
        warnings=tuple(_warning(row) for row in plain.filter(pl.col("is_warning")).to_dicts()),
    )


def _attribute(attribute: str, rows: pl.DataFrame) -> Figure | None:
    called = attribute.replace("_", " ")
    shown = rows.filter(
        pl.col("metric").is_in(list(RATES)), pl.col("level") != GAP, pl.col("value").is_not_null()
    ).with_columns(
        label=pl.format("{} ({})", pl.col("level").replace(ALL, "all users"), pl.col("n_users")),
        name=pl.col("metric").replace(RATES),
    )
    if shown.is_empty():
        return None
    gaps = {row["metric"]: row for row in rows.filter(level=GAP).to_dicts() if row["value"] is not None}
    told = [f"{words} {with_interval(gaps[metric], share)}" for metric, words in RATES.items() if metric in gaps]
    says = f"Largest less smallest group by {called}: {listed(told)}." if told else f"Rates by {called}."
    cells = {(row["level"], row["metric"]): row for row in rows.to_dicts()}
    columns = ("base_rate", *RATES)
    table = Table(
        f"Rates by {called}",
        (called, "users", "churned", *RATES.values(), "AUC"),
        tuple(
            (
                level,
                count(next(row["n_users"] for (known, _), row in cells.items() if known == level)),
                *(cell(cells.get((level, metric)), share) for metric in columns),
                cell(cells.get((level, "auc"))),
            )
            for level in rows.filter(pl.col("level") != GAP)["level"].unique(maintain_order=True)
        ),
    )
    drawing = charts.dots(
        shown.select("label", "name", "value", "ci_low", "ci_high"),
        "share of the group",
        "%",
        list(RATES.values()),
        zero=True,
        line=40,
    )
    return Figure(drawing, says, table, title=sentence(called))


def _warning(row: dict[str, object]) -> str:
    metric = str(row["metric"])
    words = RATES.get(metric, metric.replace("_", " "))
    form = share if metric.endswith("rate") else number
    return f"{row['attribute']}: the groups differ in {words} by {with_interval(row, form)}."


def _mitigations(rows: pl.DataFrame) -> Table | None:
    """Gaps and AUC with and without mitigation, where one was tried."""
    gaps = rows.filter(level=GAP).filter(pl.col("metric").is_in(list(RATES)))
    tried = gaps["mitigation"].unique(maintain_order=True).to_list()
    if tried in ([], [NONE]):
        return None
    ordered = sorted(tried, key=lambda name: (name != NONE, name))
    cells = {(row["attribute"], row["metric"], row["mitigation"]): row for row in gaps.to_dicts()}
    pairs = list(dict.fromkeys((attribute, metric) for attribute, metric, _ in cells))
    return Table(
        "Gaps between groups by mitigation",
        ("attribute", "gap in", *ordered),
        tuple(
            (
                attribute,
                RATES[metric],
                *(cell(cells.get((attribute, metric, name)), share) for name in ordered),
            )
            for attribute, metric in pairs
        ),
        labels=2,
    )


SECTIONS: tuple[MakeSection, ...] = (groups,)
