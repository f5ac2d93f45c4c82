"""Whether features of past dates are still what they were.

For each date and feature a few sums are kept at every fit. When the inputs and the code of a date are the same and
the sums are not, something reached the feature that came after the date.
"""

import hashlib
from datetime import datetime
from typing import Any

import duckdb
import numpy as np
import polars as pl

from lcm_ml.errors import LcmError
from lcm_ml.frames.frame import FEATURES_MART, Frame, read
from lcm_ml.warehouse.connection import table_exists

TOLERANCE = 1e-6
"""Relative; sums of floats may differ in their last digits from one build to the next."""

STATIC = ("country", "acquisition_channel")
"""Attributes that the contract declares undated: a move of house is no leak."""


def fingerprints(con: duckdb.DuckDBPyConnection, frame: Frame, run_id: str, recorded_at: datetime) -> pl.DataFrame:
    """Rows of ml.feature_fingerprints for every date and feature of a frame.

    `weighted_total` weighs each user by a number drawn from its id, so that values that swap owners are noticed.
    """
    inputs = {
        row[0]: str(row[1])
        for row in con.execute(
            "select as_of_date, input_hash from meta.processed_dates where model_name = 'user_features'"
        ).fetchall()
    }
    code = con.execute("select code_hash from meta.model_builds where model_name = 'user_features'").fetchall()
    code_hash = code[0][0] if code else ""
    rows = []
    for day in frame.dates():
        data = frame.at(day).data
        weights = np.array([_weight(user) for user in data.get_column("user_id")])
        for name in frame.features:
            values = _as_numbers(data.get_column(name))
            known = np.isfinite(values)
            rows.append(
                {
                    "as_of_date": day,
                    "feature": name,
                    "n_users": len(values),
                    "n_values": int(known.sum()),
                    "total": float(values[known].sum()),
                    "weighted_total": float((values * weights)[known].sum()),
                    "inputs": f"{code_hash}:{inputs.get(day, '')}",
                    "run_id": run_id,
                    "recorded_at": recorded_at,
                }
            )
    return pl.DataFrame(rows)


def changed_features(con: duckdb.DuckDBPyConnection, now: pl.DataFrame) -> dict[str, list[Any]]:
    """Features whose values changed at dates whose inputs did not: name to dates."""
    if not table_exists(con, "ml", "feature_fingerprints"):
        return {}
    before = read(con, "select * from ml.feature_fingerprints")
    both = now.join(before, on=["as_of_date", "feature", "inputs", "n_users"], suffix="_before").filter(
        ~pl.col("feature").is_in(STATIC)
    )
    differs = pl.col("n_values") != pl.col("n_values_before")
    for name in ("total", "weighted_total"):
        size = pl.max_horizontal(pl.col(name).abs(), pl.col(f"{name}_before").abs(), pl.lit(1.0))
        differs |= (pl.col(name) - pl.col(f"{name}_before")).abs() > TOLERANCE * size
    found: dict[str, list[Any]] = {}
    for feature, day in both.filter(differs).sort("feature", "as_of_date").select("feature", "as_of_date").iter_rows():
        found.setdefault(feature, []).append(day)
    return found


def refuse_changed(changed: dict[str, list[Any]]) -> None:
    """Stop a fit on features that are not what they were.

    Raises:
        LcmError: naming every such feature and how far back it changed.
    """
    if not changed:
        return
    named = ", ".join(
        f"{name} ({days[0]}{f' and {len(days) - 1} more dates' if len(days) > 1 else ''})"
        for name, days in changed.items()
    )
    raise LcmError(
        f"features changed after their as_of_date, though the events before it and {FEATURES_MART} did not: {named}",
        "let them use only what happened before as_of_date; if their definition was changed on purpose, fit once with "
        "--accept-changed-features",
    )


def _weight(user: str) -> float:
    return int.from_bytes(hashlib.blake2b(user.encode(), digest_size=4).digest(), "big") / 2**32


def _as_numbers(values: pl.Series) -> np.ndarray[Any, np.dtype[np.float64]]:
    if values.dtype == pl.String:
        levels = {level: _weight(level) for level in values.drop_nulls().unique().to_list()}
        values = values.replace_strict(levels, return_dtype=pl.Float64)
    return values.cast(pl.Float64).fill_null(np.nan).to_numpy()
