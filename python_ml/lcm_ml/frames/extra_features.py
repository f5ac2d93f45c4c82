"""ml.user_extra_features: values of the candidate groups that are kept, and which of them are missing."""

from collections.abc import Mapping, Sequence
from datetime import date

import duckdb
import polars as pl

from lcm_ml.frames.frame import KEYS, Frame, built_settings, read, scoring_date
from lcm_ml.warehouse import writer
from lcm_ml.warehouse.connection import table_exists
from lcm_ml.warehouse.contracts import tables

TABLE = "user_extra_features"


def kept_groups(con: duckdb.DuckDBPyConnection) -> list[str]:
    """Groups that the newest `lcm-ml enrich` which measured them has kept, in order of their names."""
    if not table_exists(con, "ml", "feature_ablation"):
        return []
    rows = con.execute(
        """
        select feature_group
        from ml.feature_ablation
        where comparison = 'alone' and is_kept is not null
        group by feature_group
        having arg_max(is_kept, run_id)
        order by 1
        """
    ).fetchall()
    return [row[0] for row in rows]


def dates_read(con: duckdb.DuckDBPyConnection) -> list[date]:
    """The dates whose features models read: the last `as_of_count` labelled ones, and the scoring date."""
    settings = built_settings(con)
    labelled = con.execute(
        "select as_of_date from marts.as_of_dates where is_labelled order by 1 desc limit ?",
        [int(settings["as_of_count"])],
    ).fetchall()
    return sorted({row[0] for row in labelled} | {scoring_date(con)})


def inputs_of(con: duckdb.DuckDBPyConnection, code: str) -> dict[date, str]:
    """Date to what its values depend on: the code that makes them, and the raw rows before it."""
    rows = con.execute("select as_of_date, input_hash from marts.as_of_dates").fetchall()
    return {day: f"{code}:{inputs}" for day, inputs in rows}


def present(con: duckdb.DuckDBPyConnection) -> dict[tuple[str, date], str | None]:
    """Group and date to the inputs of the values that are there; a user's own rows have no group, and are not told."""
    if not _has_groups(con):
        return {}
    rows = con.execute(
        f"select feature_group, as_of_date, max(inputs) from ml.{TABLE} where feature_group is not null group by 1, 2"
    ).fetchall()
    return {(group, day): inputs for group, day, inputs in rows}


def without_candidates(con: duckdb.DuckDBPyConnection, frame: Frame) -> Frame:
    """The frame without features of candidate groups, whether they are kept or not."""
    if not _has_groups(con):
        return frame
    rows = con.execute(f"select distinct feature from ml.{TABLE} where feature_group is not null").fetchall()
    made = {row[0] for row in rows} & set(frame.features)
    if not made:
        return frame
    features = tuple(name for name in frame.features if name not in made)
    return Frame(frame.data.drop(sorted(made)), features, frame.horizon_days, frame.purchases)


def _has_groups(con: duckdb.DuckDBPyConnection) -> bool:
    if not table_exists(con, "ml", TABLE):
        return False
    return "feature_group" in [row[0] for row in con.execute(f"describe ml.{TABLE}").fetchall()]


def of_population(con: duckdb.DuckDBPyConnection, values: pl.DataFrame, dates: Sequence[date]) -> pl.DataFrame:
    """The values of users who are in a training or scoring frame at their date."""
    users = read(
        con,
        "select user_id, as_of_date from marts.user_features where is_active_buyer and as_of_date in $dates",
        {"dates": list(dates)},
    )
    return values.join(users, on=KEYS, how="semi")


def stored(values: pl.DataFrame, group: str, inputs: Mapping[date, str], run_id: str) -> pl.DataFrame:
    """Values of a group as rows of ml.user_extra_features."""
    told = pl.DataFrame(
        {"as_of_date": list(inputs), "inputs": list(inputs.values())}, schema_overrides={"as_of_date": pl.Date}
    )
    return values.join(told, on="as_of_date", how="left", maintain_order="left").with_columns(
        feature_group=pl.lit(group), run_id=pl.lit(run_id)
    )


def replace_values(
    con: duckdb.DuckDBPyConnection, rows: Mapping[str, pl.DataFrame], gone: Sequence[tuple[str, date]]
) -> None:
    """Write the values of groups, a date at a time, and remove those that are `gone`. Call it inside a transaction.

    Args:
        con: with an open transaction.
        rows: group to rows of ml.user_extra_features.
        gone: groups and dates whose values go.
    """
    contract = tables("ml")[TABLE]
    for group, frame in rows.items():
        for (day,), part in frame.partition_by("as_of_date", as_dict=True).items():
            writer.write(con, contract, part, {"feature_group": group, "as_of_date": day})
    for group, day in gone:
        nothing = pl.DataFrame(schema=dict.fromkeys(contract.column_names, pl.String))
        writer.write(con, contract, nothing, {"feature_group": group, "as_of_date": day})
