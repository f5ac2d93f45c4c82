"""Features to the one float32 matrix that every estimator takes, the same in training and in scoring."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from lcm_ml.errors import LcmError

FloatMatrix = npt.NDArray[np.float32]
MAX_LEVELS = 50
SLICE = 2**15
"""Rows encoded at a time: some MB, which a cache holds."""


@dataclass(frozen=True)
class FeatureColumn:
    """A feature as it was in training. `kind`: number, boolean or category; `levels` of a category, sorted."""

    name: str
    kind: str
    dtype: str
    levels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Encoding:
    """How feature columns become matrix columns: numbers as they are, booleans 0 and 1, categories one-hot.

    Nulls stay NaN in numbers and booleans. A null or a level unseen in training is all zeros in its category.
    """

    columns: tuple[FeatureColumn, ...]

    @property
    def names(self) -> list[str]:
        """Names of the matrix columns: the feature, or feature=level."""
        return [
            name
            for column in self.columns
            for name in ([f"{column.name}={level}" for level in column.levels] if column.levels else [column.name])
        ]

    def matrix(self, data: pl.DataFrame) -> FloatMatrix:
        """Encode rows as float32, shape (rows, len(names)). Infinite values count as missing.

        Raises:
            LcmError: naming the columns that are missing or changed their kind since training.
        """
        self.check(data.schema)
        expressions = [
            expression
            for column in self.columns
            for expression in (
                [
                    pl.col(column.name).eq_missing(pl.lit(level)).cast(pl.Float32).alias(f"{column.name}={level}")
                    for level in column.levels
                ]
                if column.levels
                else [pl.col(column.name).cast(pl.Float32)]
            )
        ]
        matrix = np.empty((data.height, len(self.names)), dtype=np.float32)
        # In slices: a matrix of all columns, then its copy in rows, would take twice the memory.
        for start in range(0, data.height, SLICE):
            part = matrix[start : start + SLICE]
            part[:] = data.slice(start, SLICE).select(expressions).to_numpy(order="c")
            part[np.isinf(part)] = np.nan
        return matrix

    def check(self, schema: pl.Schema) -> None:
        """Compare the columns at hand with those of training.

        Raises:
            LcmError: saying which are missing and which changed their kind.
        """
        missing = [column.name for column in self.columns if column.name not in schema]
        changed = [
            f"{column.name} ({column.kind} in training, now {schema[column.name]})"
            for column in self.columns
            if column.name in schema and kind_of(schema[column.name]) != column.kind
        ]
        if missing or changed:
            parts = [f"missing: {', '.join(missing)}"] if missing else []
            parts += [f"changed: {', '.join(changed)}"] if changed else []
            raise LcmError(
                "the features are not those that the model was trained on; " + "; ".join(parts),
                "bring the columns back and run `dbt build`, or train on the new ones with `lcm-ml fit`",
            )

    def to_dict(self) -> list[dict[str, Any]]:
        """For the manifest, as JSON takes it."""
        return [asdict(column) for column in self.columns]

    @classmethod
    def from_dict(cls, entries: Sequence[dict[str, Any]]) -> "Encoding":
        """The inverse of to_dict."""
        return cls(tuple(FeatureColumn(**{**entry, "levels": tuple(entry["levels"])}) for entry in entries))


def kind_of(dtype: pl.DataType) -> str:
    """The kind of a Polars type: number, boolean or category."""
    if dtype == pl.Boolean:
        return "boolean"
    return "number" if dtype.is_numeric() else "category"


def learn_encoding(data: pl.DataFrame, features: Sequence[str]) -> tuple[Encoding, list[str]]:
    """Learn the encoding from training rows alone.

    A category keeps its MAX_LEVELS most frequent levels. Constant columns are dropped.

    Returns:
        The encoding, and the names of the constant columns.

    Raises:
        LcmError: when no column varies.
    """
    constant = [name for name in features if data.get_column(name).n_unique() <= 1]
    columns = tuple(_learn_column(data.get_column(name)) for name in features if name not in set(constant))
    if not columns:
        raise LcmError("no feature varies between users", "check marts.user_features and the events loaded")
    return Encoding(columns), constant


def _learn_column(values: pl.Series) -> FeatureColumn:
    kind = kind_of(values.dtype)
    levels: tuple[str, ...] = ()
    if kind == "category":
        counts = values.drop_nulls().value_counts().sort(["count", values.name], descending=[True, False])
        levels = tuple(sorted(counts.get_column(values.name).head(MAX_LEVELS).to_list()))
    return FeatureColumn(values.name, kind, str(values.dtype), levels)
