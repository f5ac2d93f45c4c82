"""Groups of features that are made in Python and have to prove themselves: `lcm-ml enrich` keeps those that help."""

import hashlib
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from datetime import date

import duckdb
import polars as pl

from lcm_ml.errors import LcmError, UsageError

MakeFeatures = Callable[[duckdb.DuckDBPyConnection, Sequence[date]], pl.DataFrame]
"""Given a read-only connection and as_of_dates: user_id, as_of_date, feature, value (a number; no row where there is
none), each value from what happened strictly before its date."""

COLUMNS = ["user_id", "as_of_date", "feature", "value"]

CANDIDATES = {
    "interests": "lcm_ml.insights.interests:interest_features",
    "segments": "lcm_ml.frames.behaviour:segment_features",
    "words": "lcm_ml.frames.texts:word_features",
}
"""Name of a group to module:function, imported when it is asked for. The var candidate_features adds a shop's own."""

MART_GROUPS = {
    "interest_drift (mart)": ("interest_drift",),
    "favourites (mart)": ("favourite_category_share", "favourite_brand_share"),
    "discounts (mart)": ("discount_share_84d", "discount_share_total", "discounted_line_share_total"),
    "habits (mart)": (
        "weekend_share_total",
        "evening_share_total",
        "order_hour_mean",
        "favourite_weekday",
        "favourite_weekday_share",
        "favourite_channel",
    ),
}
"""Columns of marts.user_features that are there already: they are measured by leaving them out."""


def candidates(own: Mapping[str, str], names: Sequence[str] = ()) -> dict[str, MakeFeatures]:
    """The groups of these names; all of them where there are none.

    Args:
        own: the var candidate_features, name to module:function.
        names: of CANDIDATES or `own`.

    Raises:
        UsageError: for a name that is neither.
        LcmError: for an entry that cannot be imported.
    """
    known = CANDIDATES | dict(own)
    if unknown := [name for name in names if name not in known]:
        raise UsageError(f"there is no candidate group {unknown[0]!r}", f"take one of {', '.join(known)}")
    return {name: _imported(name, known[name]) for name in names or known}


def _imported(name: str, path: str) -> MakeFeatures:
    module, _, function = str(path).partition(":")
    try:
        found: MakeFeatures = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise LcmError(
            f"the candidate group {name} cannot be imported from {path!r}: {error}",
            "name it as module:function in the var candidate_features, install its package and run `dbt build`",
        ) from error
    return found


def make_features(name: str, make: MakeFeatures, con: duckdb.DuckDBPyConnection, dates: Sequence[date]) -> pl.DataFrame:
    """A group's values at these dates: COLUMNS, sorted; what is no finite number is left out.

    Raises:
        LcmError: when the function gives something else than MakeFeatures says.
    """
    found = make(con, dates)
    mend = f"mend the function of the candidate group {name}"
    if missing := [column for column in COLUMNS if column not in found.columns]:
        raise LcmError(f"the candidate group {name} gives no column {', '.join(missing)}", mend)
    rows = found.select(
        pl.col("user_id").cast(pl.String),
        pl.col("as_of_date").cast(pl.Date),
        pl.col("feature").cast(pl.String),
        pl.col("value").cast(pl.Float64),
    ).filter(pl.col("value").is_finite())
    if rows.select(COLUMNS[:3]).is_duplicated().any():
        raise LcmError(f"the candidate group {name} gives several values of a feature for a user and date", mend)
    if other := sorted(set(rows["as_of_date"].unique()) - set(dates)):
        raise LcmError(f"the candidate group {name} gives values for {other[0]}, which was not asked for", mend)
    return rows.sort(COLUMNS[:3])


def code_of(make: MakeFeatures) -> str:
    """A hash of the module that makes a group: values of other code are out of date."""
    module = inspect.getmodule(make)
    return hashlib.sha256(inspect.getsource(module or make).encode()).hexdigest()[:16]
