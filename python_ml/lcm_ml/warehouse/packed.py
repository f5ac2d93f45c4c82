"""Rows of one table that are too many to hold as a frame until they can be written."""

from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import Any

import polars as pl

ROWS_AT_ONCE = 1_000_000


class Packed:
    """Rows kept as Parquet in memory: a tenth of what a frame of texts takes.

    Args:
        order: columns that the rows are sorted by. Rows that are added come after those that are there, with none of
            these values in common.
    """

    def __init__(self, order: tuple[str, ...] = ("user_id",)) -> None:
        self.order = order
        self.height = 0
        self._names: list[str] = []
        self._parts: list[bytes] = []
        self._waiting: list[pl.DataFrame] = []
        self._constants: dict[str, Any] = {}

    def add(self, rows: pl.DataFrame) -> None:
        """Put rows behind the others."""
        self.height += rows.height
        self._names = rows.columns
        self._waiting.append(rows)
        if sum(part.height for part in self._waiting) >= ROWS_AT_ONCE:
            self._pack()

    def is_empty(self) -> bool:
        """Whether there are no rows."""
        return self.height == 0

    def fill(self, constants: Mapping[str, Any]) -> "Packed":
        """Give columns that all rows lack one value each."""
        self._constants |= constants
        return self

    @property
    def columns(self) -> list[str]:
        """Names of the columns; those of `fill` alone until rows are added."""
        return [*self._names, *self._constants]

    def frames(self) -> Iterator[pl.DataFrame]:
        """The rows, some at a time, in their order."""
        self._pack()
        for part in self._parts:
            yield pl.read_parquet(part).with_columns(
                pl.lit(value).alias(name) for name, value in self._constants.items()
            )

    def _pack(self) -> None:
        if any(part.height for part in self._waiting):
            file = BytesIO()
            pl.concat(self._waiting).write_parquet(file, compression_level=1)
            self._parts.append(file.getvalue())
        self._waiting = []


Rows = pl.DataFrame | Packed
"""What a table is written from."""


def parts_of(rows: Rows) -> Iterator[pl.DataFrame]:
    """The frames that rows consist of."""
    if isinstance(rows, Packed):
        yield from rows.frames()
    else:
        yield rows
