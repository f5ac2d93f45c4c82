"""Marts to Polars frames: one row per user and as_of_date, with the label where it is known."""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import polars as pl

import lcm_ml
from lcm_ml.errors import LcmError
from lcm_ml.frames.splits import no_labels
from lcm_ml.warehouse import state
from lcm_ml.warehouse.connection import first_row, table_exists

KEYS = ["user_id", "as_of_date"]
LABEL = "is_churned"
NOT_FEATURES = {*KEYS, LABEL, "is_active_buyer"}
FEATURES_MART = "marts.user_features"
STAGES = ("prospect", "new", "active", "loyal", "reactivated", "at_risk", "dormant", "churned")
"""Lifecycle stages, as macro lifecycle_stage has them; in the order in which users go through them."""


@dataclass(frozen=True)
class Frame:
    """Users' features at as_of_dates, sorted by as_of_date and user_id.

    Attributes:
        data: user_id, as_of_date, is_churned (training frames only) and the features.
        features: names of the feature columns, in order.
        horizon_days: days of the label window.
        purchases: every user who had purchased by each date, whether in the churn population or not: user_id,
            as_of_date, repeats (days of purchase after the first), last_age and age (days from the first to the last
            one, and to the date).
        users_share: of all users, the share that is in it: 1.0, or less where the var max_training_rows says so.
    """

    data: pl.DataFrame
    features: tuple[str, ...]
    horizon_days: int
    purchases: pl.DataFrame | None = None
    users_share: float = 1.0

    def dates(self) -> list[date]:
        """The as_of_dates in it, oldest first."""
        return self.data.get_column("as_of_date").unique().sort().to_list()

    def at(self, *dates: date) -> "Frame":
        """The rows of these as_of_dates; without a copy where these dates follow each other, as in every split."""
        if not dates:
            return replace(self, data=self.data.clear())
        days = self.data.get_column("as_of_date")
        first = int(days.search_sorted(min(dates), side="left"))
        between = self.data.slice(first, int(days.search_sorted(max(dates), side="right")) - first)
        if set(between.get_column("as_of_date").unique()) <= set(dates):
            return replace(self, data=between)
        return replace(self, data=self.data.filter(pl.col("as_of_date").is_in(list(dates))))

    def labels(self) -> npt.NDArray[np.float64]:
        """is_churned as 0.0 and 1.0, one per row."""
        return self.data.get_column(LABEL).cast(pl.Float64).to_numpy()

    def fingerprint(self) -> str:
        """SHA-256 of names, types and values: equal frames have equal ones, on any machine."""
        digest = hashlib.sha256()
        for column in self.data.get_columns():
            digest.update(f"{column.name}:{column.dtype};".encode())
            digest.update(np.packbits(column.is_null().to_numpy()).tobytes())
            if column.dtype == pl.String:
                digest.update("\x1f".join(column.fill_null("").to_list()).encode())
            elif column.dtype == pl.Boolean:
                digest.update(np.packbits(column.fill_null(False).to_numpy()).tobytes())
            else:
                digest.update(np.ascontiguousarray(column.to_physical().fill_null(0).to_numpy()).tobytes())
        return digest.hexdigest()


def make_frame(data: pl.DataFrame, horizon_days: int, non_model_features: Iterable[str] = ()) -> Frame:
    """A Frame from columns user_id, as_of_date, features and maybe is_churned, sorted and with plain types.

    Raises:
        LcmError: naming a column whose type no model can take.
    """
    skip = NOT_FEATURES | set(non_model_features)
    features = tuple(name for name in data.columns if name not in skip)
    for name in features:
        kind = data.schema[name]
        if not (kind.is_numeric() or kind in (pl.Boolean, pl.String, pl.Categorical) or isinstance(kind, pl.Enum)):
            raise LcmError(
                f"the feature {name} has the type {kind}, which no model takes",
                "turn it into a number, or list it in the var non_model_features",
            )
    decimals = [name for name in features if data.schema[name].is_decimal()]
    texts = [name for name in features if data.schema[name] == pl.Categorical or isinstance(data.schema[name], pl.Enum)]
    labels = [LABEL] if LABEL in data.columns else []
    plain = data.select(*KEYS, *labels, *features).with_columns(
        pl.col(decimals).cast(pl.Float64), pl.col(texts).cast(pl.String)
    )
    return Frame(_in_order(plain), features, horizon_days)


def _in_order(data: pl.DataFrame) -> pl.DataFrame:
    """Sorted by as_of_date and user_id; as it is where one date came in order, for DuckDB sorts wide rows faster."""
    days, users = data.get_column("as_of_date"), data.get_column("user_id")
    if days.min() == days.max() and users.is_sorted():
        return data
    return data.sort("as_of_date", "user_id")


def training_frame(con: duckdb.DuckDBPyConnection) -> Frame:
    """Features and labels of the churn population at the last `as_of_count` labelled dates.

    Where these are more rows than `max_training_rows`, a half, a quarter ... of the users, drawn by a hash of their id:
    the same users at every date and in every run.

    Raises:
        LcmError: when the marts are not built, no user has a label, or extra features do not fit.
    """
    settings = built_settings(con)
    horizon = int(settings["churn_horizon_days"])
    dates = [
        row[0]
        for row in con.execute(
            "select distinct as_of_date from marts.user_churn_labels where horizon_days = ? order by 1 desc limit ?",
            [horizon, int(settings["as_of_count"])],
        ).fetchall()
    ]
    if not dates:
        raise LcmError(*no_labels(horizon))
    rows = first_row(
        con,
        "select count(*) from marts.user_churn_labels where as_of_date >= ? and horizon_days = ?",
        [min(dates), horizon],
    )
    share = share_of_users(rows[0] if rows else 0, settings["max_training_rows"])
    # A date at a time: what a sort copies is then one date's rows.
    parts = [_labelled(con, day, share, settings) for day in sorted(dates)]
    features = dict.fromkeys(name for part in parts for name in part.features)
    # Diagonal: an extra feature may have values at some of the dates only.
    data = pl.concat([part.data for part in parts], how="diagonal", rechunk=False)
    return Frame(data, tuple(features), horizon, _purchases(con, dates, share), share)


def _labelled(con: duckdb.DuckDBPyConnection, day: date, share: float, settings: dict[str, Any]) -> Frame:
    """The part of a training frame that is of one date."""
    horizon = int(settings["churn_horizon_days"])
    base = read(
        con,
        f"""
        select f.*, l.is_churned
        from marts.user_features as f
        inner join marts.user_churn_labels as l on l.user_id = f.user_id and l.as_of_date = f.as_of_date
        where l.as_of_date = $day and l.horizon_days = $horizon and {is_drawn("l.user_id", share)}
        """,
        {"day": day, "horizon": horizon},
    )
    return _narrow(make_frame(_with_extras(con, base, [day], settings), horizon, settings["non_model_features"]))


def _narrow(frame: Frame) -> Frame:
    """Fractions in four bytes instead of eight: no model reads more of them, and a training frame holds many."""
    fractions = [name for name, kind in frame.data.schema.items() if kind == pl.Float64]
    return replace(frame, data=frame.data.with_columns(pl.col(fractions).cast(pl.Float32)))


def share_of_users(rows: int, most: int | None) -> float:
    """1.0, or the half, the quarter ... of the users that has no more than `most` of all rows; None: no limit."""
    share = 1.0
    while most and rows * share > most:
        share /= 2
    return share


def is_drawn(user: str, share: float) -> str:
    """SQL that holds for a share of users; a smaller share is a part of a larger one. MD5 is the same in any DuckDB."""
    return "true" if share >= 1 else f"md5_number_lower({user}) % {2**20} < {int(share * 2**20)}"


def _purchases(con: duckdb.DuckDBPyConnection, dates: Sequence[date], share: float) -> pl.DataFrame:
    return read(
        con,
        f"""
        select
            user_id,
            as_of_date,
            cast(purchase_days - 1 as double) as repeats,
            cast(last_purchase_date - first_purchase_date as double) as last_age,
            cast(as_of_date - first_purchase_date as double) as age
        from marts.user_lifecycle
        where as_of_date in $dates and purchase_days > 0 and {is_drawn("user_id", share)}
        order by as_of_date, user_id
        """,
        {"dates": list(dates)},
    )


def scoring_frame(con: duckdb.DuckDBPyConnection, as_of_date: date) -> Frame:
    """Features of the churn population at one date; it has no label column.

    Raises:
        LcmError: when the marts are not built, the date is none of theirs, or nobody is to be scored then.
    """
    settings = built_settings(con)
    resolve_as_of(con, as_of_date)
    base = read(
        con,
        "select * from marts.user_features where as_of_date = $day and is_active_buyer order by user_id",
        {"day": as_of_date},
    )
    if base.is_empty():
        raise LcmError(
            f"no users to score at {as_of_date}: nobody purchased in the {settings['active_window_days']} days before",
            "take another date with --as-of, or load newer events",
        )
    horizon = int(settings["churn_horizon_days"])
    return make_frame(_with_extras(con, base, [as_of_date], settings), horizon, settings["non_model_features"])


def current_frame(
    con: duckdb.DuckDBPyConnection, full_date: date, users: Sequence[str] | None = None
) -> tuple[Frame, pl.DataFrame] | None:
    """Features of the churn population in the current state; features made in Python are those of the full scoring.

    Args:
        con: an open connection.
        full_date: the date of the last full scoring.
        users: only these; None: all of marts.current_user_features.

    Returns:
        The frame, and user_id, as_of_ts and load_id of its users; None where there is nobody.

    Raises:
        LcmError: when the marts are not built, or extra features do not fit.
    """
    settings = built_settings(con)
    if not table_exists(con, "marts", "current_user_features"):
        return None
    if users is None:
        found = read(con, "select * from marts.current_user_features where is_active_buyer")
    else:
        con.register("wanted_users", pl.DataFrame({"user_id": users}, schema={"user_id": pl.String}).to_arrow())
        try:
            found = read(
                con,
                "select features.* from marts.current_user_features as features "
                "inner join wanted_users using (user_id) where features.is_active_buyer",
            )
        finally:
            con.unregister("wanted_users")
    if found.is_empty():
        return None
    known = found.select("user_id", "as_of_ts", "load_id")
    dates = found.select("user_id", now="as_of_date")
    base = found.drop("as_of_ts", "load_id").with_columns(as_of_date=pl.lit(full_date))
    extended = _with_extras(con, base, [full_date], settings)
    dated = extended.join(dates, on="user_id").with_columns(as_of_date="now").drop("now")
    return make_frame(dated, int(settings["churn_horizon_days"]), settings["non_model_features"]), known


def scoring_date(con: duckdb.DuckDBPyConnection) -> date:
    """E, the end of the data: the date that `score` takes by default.

    Raises:
        LcmError: when the marts are not built or have none.
    """
    state.require_built(con)
    row = first_row(con, "select max(as_of_date) from marts.as_of_dates where is_scoring_date")
    if row is None or row[0] is None:
        raise LcmError("marts.as_of_dates has no scoring date: there are no events", "load events and run `dbt build`")
    day: date = row[0]
    return day


def resolve_as_of(con: duckdb.DuckDBPyConnection, as_of: date | None) -> date:
    """`as_of` itself where the warehouse has it; without one, the scoring date.

    Raises:
        LcmError: when the marts may not be read, or it is none of marts.as_of_dates.
    """
    built_settings(con)
    if as_of is None:
        return scoring_date(con)
    spine = [row[0] for row in con.execute("select as_of_date from marts.as_of_dates order by 1").fetchall()]
    if as_of not in spine:
        listed = ", ".join(str(day) for day in spine) or "none"
        raise LcmError(f"{as_of} is no as_of_date of this warehouse: there are {listed}", "take one of these")
    return as_of


def read(con: duckdb.DuckDBPyConnection, query: str, parameters: dict[str, Any] | None = None) -> pl.DataFrame:
    """A query's rows as a frame."""
    rows: pl.DataFrame = con.sql(query, params=parameters).pl()
    return rows


def built_settings(con: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """The settings of the last build, once it is known to be whole.

    Raises:
        LcmError: when the marts may not be read.
    """
    state.require_built(con)
    return state.settings(con)


def inputs_fingerprint(con: duckdb.DuckDBPyConnection, as_of: date) -> str:
    """SHA-256 of what a capability at `as_of` depends on: the rows known by then, the loads, settings and version.

    Tables of one's own have no loads: there a change that is not in the events (a product's title) does not show.
    """
    known = first_row(con, "select input_hash, label_hash from marts.as_of_dates where as_of_date = ?", [as_of])
    loads = first_row(con, "select max(load_id), count(*) from raw.loads")
    parts = [as_of.isoformat(), known, loads, sorted(state.settings(con).items()), lcm_ml.__version__]
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()


def _with_extras(
    con: duckdb.DuckDBPyConnection, base: pl.DataFrame, dates: Sequence[date], settings: dict[str, Any]
) -> pl.DataFrame:
    for relation in settings["extra_feature_models"]:
        base = _join(base, _read_relation(con, str(relation), dates), str(relation))
    if table_exists(con, "ml", "user_extra_features"):
        long = read(
            con,
            "select user_id, as_of_date, feature, value from ml.user_extra_features where as_of_date in $dates",
            {"dates": list(dates)},
        )
        if not long.is_empty():
            wide = long.sort("feature").pivot(on="feature", index=KEYS, values="value")
            base = _join(base, wide, "ml.user_extra_features")
    return base


def _read_relation(con: duckdb.DuckDBPyConnection, relation: str, dates: Sequence[date]) -> pl.DataFrame:
    setting = "mend the var extra_feature_models and run `dbt build`"
    if not re.fullmatch(r"\w+\.\w+", relation):
        raise LcmError(f"extra_feature_models names {relation!r}, which is not schema.table", setting)
    schema, name = relation.split(".")
    if not table_exists(con, schema, name):
        raise LcmError(f"extra_feature_models names {relation}, which is not in the warehouse", setting)
    columns = [row[0] for row in con.execute(f"describe {relation}").fetchall()]
    if missing := [key for key in KEYS if key not in columns]:
        raise LcmError(f"{relation} has no column {', '.join(missing)}", "key it by user_id and as_of_date")
    return read(con, f"select * from {relation} where as_of_date in $dates", {"dates": list(dates)})


def _join(base: pl.DataFrame, extra: pl.DataFrame, relation: str) -> pl.DataFrame:
    if taken := sorted(set(extra.columns) & (set(base.columns) - set(KEYS))):
        raise LcmError(f"{relation} has columns that {FEATURES_MART} has too: {', '.join(taken)}", "rename them there")
    if extra.select(KEYS).is_duplicated().any():
        raise LcmError(f"{relation} repeats the key user_id, as_of_date", "bring it to one row per user and date")
    keyed = extra.with_columns(pl.col("user_id").cast(pl.String), pl.col("as_of_date").cast(pl.Date))
    return base.join(keyed, on=KEYS, how="left")
