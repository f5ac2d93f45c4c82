"""Tables that are written from packed rows, some at a time."""

import weakref
from datetime import date
from typing import Any

import duckdb
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from lcm_ml.errors import LcmError
from lcm_ml.warehouse import packed, writer
from lcm_ml.warehouse.contracts import tables
from lcm_ml.warehouse.packed import Packed

DAY = date(2026, 1, 1)
LISTS = tables("ml")["recommendations"]


def lists_of(users: list[int]) -> pl.DataFrame:
    """Two places for each user."""
    ids = [f"u{user:04d}" for user in users for _ in (1, 2)]
    texts = dict.fromkeys(("source", "explanation"), pl.lit("wörds"))
    return pl.DataFrame({"user_id": ids, "rank": [1, 2] * len(users)}, schema_overrides={"user_id": pl.String}).select(
        "user_id",
        pl.col("rank").cast(pl.Int32),
        product_id=pl.format("p{}", "rank"),
        score=0.5 / pl.col("rank"),
        because_product_id=pl.lit(None, pl.String),
        is_repeat=pl.col("rank") == 1,
        is_cold_start=pl.lit(False),
        **texts,
    )


def packed_of(parts: list[list[int]]) -> Packed:
    found = Packed()
    for users in parts:
        found.add(lists_of(users))
    return found.fill({"model_name": "hybrid", "run_id": "r", "as_of_date": DAY})


def written(rows: Packed | pl.DataFrame, before: pl.DataFrame | None = None) -> pl.DataFrame:
    with duckdb.connect() as con:
        writer.ensure(con, {"recommendations": LISTS})
        for each in [] if before is None else [before]:
            writer.write(con, LISTS, each, {"as_of_date": DAY})
        assert writer.write(con, LISTS, rows, {"as_of_date": DAY}) == rows.height
        return con.sql("from ml.recommendations order by user_id, rank").pl()


@given(st.lists(st.integers(0, 9), max_size=6), st.integers(1, 40))
@settings(max_examples=25, deadline=None)
def test_packed_rows_are_written_as_a_frame_is_and_replace_what_was_there(sizes: list[int], at_once: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed, "ROWS_AT_ONCE", at_once)
        ends = [sum(sizes[: place + 1]) for place in range(len(sizes))]
        rows = packed_of([list(range(end - size, end)) for end, size in zip(ends, sizes, strict=True)])
        assert rows.is_empty() == (sum(sizes) == 0)
        constants = (pl.lit(value).alias(name) for name, value in (("model_name", "hybrid"), ("run_id", "r")))
        frame = lists_of(list(range(sum(sizes)))).with_columns(*constants, as_of_date=pl.lit(DAY))
        old = frame.with_columns(user_id=pl.lit("old-") + pl.col("user_id"))
        assert_frame_equal(written(rows, old), written(frame))


@pytest.mark.parametrize("parts", [[[1, 2], [2, 3]], [[3], [1]]])
def test_a_user_in_two_parts_or_out_of_order_is_refused(
    parts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "ROWS_AT_ONCE", 1)
    with pytest.raises(LcmError, match="not in the order of"):
        written(packed_of(parts))


def test_a_place_that_is_there_twice_is_refused() -> None:
    with pytest.raises(LcmError, match="repeat the key"):
        written(packed_of([[1], [1]]))


def test_a_table_of_the_shop_is_not_taken_for_the_rows() -> None:
    with duckdb.connect() as con:
        con.execute("create table incoming_rows as select 1 as a")
        writer.ensure(con, {"recommendations": LISTS})
        writer.write(con, LISTS, packed_of([[1]]), {"as_of_date": DAY})
        assert con.sql("select distinct user_id from ml.recommendations").fetchall() == [("u0001",)]


def test_a_transaction_holds_no_more_than_the_part_that_is_being_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "ROWS_AT_ONCE", 1)
    given_to_duckdb: list[weakref.ref[Any]] = []
    to_arrow = pl.DataFrame.to_arrow

    def noted(frame: pl.DataFrame) -> Any:
        table = to_arrow(frame)
        given_to_duckdb.append(weakref.ref(table))
        return table

    monkeypatch.setattr(pl.DataFrame, "to_arrow", noted)
    with duckdb.connect() as con:
        writer.ensure(con, {"recommendations": LISTS})
        con.begin()
        writer.write(con, LISTS, packed_of([[1], [2], [3], [4]]), {"as_of_date": DAY})
        assert len(given_to_duckdb) == 4
        assert [table() for table in given_to_duckdb[:-1]] == [None] * 3
        con.commit()
