"""The promise about bad input, in short: benchmarks/chaos/fuzz.py holds 2,000 files to it, and a build of them."""

import csv
import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from fuzzing import fuzz
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lifecycle import query
from mutations import HOSTILE

from lcm_ml.sources import complete_journey

Cli = Callable[..., Result]
HEADER = "event_id,user_id,event_time,event_type"
ROW = "e1,u1,2025-01-01,view"


def test_mutated_files_are_loaded_whole_or_refused(tmp_path: Path) -> None:
    outcomes = list(fuzz(range(50), 1, tmp_path / "files", tmp_path / "w" / "lcm.duckdb"))
    assert [(outcome.file.number, outcome.faults) for outcome in outcomes if outcome.faults] == []
    # Every tenth is as it should be: a loader that refuses all would pass otherwise.
    assert [
        outcome.file.number for outcome in outcomes if outcome.file.number % 10 == 0 and outcome.rows_loaded == 0
    ] == []
    assert any(outcome.verdict == "refused" for outcome in outcomes)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("header too short", f"{HEADER}\n{ROW},more\n", "Expected Number of Columns"),
        ("notes before the header", f"made by x\n\n{HEADER}\n{ROW}\n", "user_id"),
        ("empty first line", f"\n{HEADER}\n{ROW}\n", "first line is empty"),
        ("column twice", f"{HEADER},user_id\n{ROW},u2\n", "more than once"),
        ("column in two cases", f"{HEADER},User_ID\n{ROW},u2\n", "more than once"),
        ("mixed line ends", f"{HEADER}\r\n{ROW}\n{ROW}\r\n", "cannot be read as csv"),
    ],
)
def test_csv_that_a_guess_would_cut_is_refused(cli: Cli, tmp_path: Path, name: str, content: str, said: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content.encode())
    result = cli("load", "files", "--events", path)
    assert result.exit_code == 1, name
    assert said in result.output
    assert "a.csv" in result.output


def test_a_pipe_and_utf_16_are_named_as_what_they_are(cli: Cli, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    assert "is a pipe" in cli("load", "files", "--events", tmp_path / "pipe.csv").output
    (tmp_path / "a.csv").write_bytes(f"{HEADER}\n{ROW}\n".encode("utf-16"))
    assert "UTF-16" in cli("load", "files", "--events", tmp_path / "a.csv").output


def test_lines_with_a_hash_and_folders_with_an_equals_sign_are_data(cli: Cli, warehouse: Path, tmp_path: Path) -> None:
    """DuckDB's guess takes the first for comments, and columns from the second over those of the file."""
    folder = tmp_path / "user_id=evil" / "text=evil"
    folder.mkdir(parents=True)
    (folder / "a.csv").write_text(f"#note,{HEADER}\n#1,{ROW}\n#2,{ROW.replace('e1', 'e2')}\n")
    assert cli("load", "files", "--events", folder / "a.csv").exit_code == 0
    assert query(warehouse, "select user_id, text from raw.events").rows() == [("u1", None), ("u1", None)]


def test_json_keys_are_no_patterns_and_late_ones_are_found(cli: Cli, warehouse: Path, tmp_path: Path) -> None:
    row = {"event_id": "e", "user_id": "u", "event_time": "2025-01-01", "event_type": "view"}
    rows = [row | {"event_id": f"e{number}"} for number in range(10_050)]
    rows[-1] |= {"amount": "7", "*": "x", "": "y"}
    lines = [*map(json.dumps, rows), "[1]", "5", json.dumps(row)[:-1] + ', "user_id": "other"}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    result = cli("load", "files", "--events", tmp_path / "a.jsonl", "--map", "events.text=*")
    assert result.exit_code == 0, result.output
    assert query(warehouse, "select text, amount::int from raw.events where text is not null").rows() == [("x", 7)]
    assert query(warehouse, "select rule, count(*) from raw.rejected_rows group by 1").rows() == [("unreadable_row", 3)]


@pytest.mark.parametrize("time", ["infinity", "-infinity", "290000-01-01", "0044-03-15 (BC)"])
def test_times_that_nothing_else_can_hold_are_rejected(cli: Cli, warehouse: Path, tmp_path: Path, time: str) -> None:
    (tmp_path / "a.csv").write_text(f"{HEADER}\n{ROW}\ne2,u1,{time},view\n")
    assert cli("load", "files", "--events", tmp_path / "a.csv").exit_code == 0
    assert query(warehouse, "select rule from raw.rejected_rows").item() == "unreadable_event_time"


def test_parquet_types_that_are_no_text_or_time(cli: Cli, warehouse: Path, tmp_path: Path) -> None:
    columns = {
        "event_id": pa.array(["a", "b"]),
        "user_id": pa.array([["x"], ["y"]]),
        "event_time": pa.array([1735689600.0, float("inf")]),
        "event_type": pa.array(["view", "view"]).dictionary_encode(),
        "amount": pa.array([[1], [2]], pa.list_(pa.int32())),
        "": pa.array([1, 2]),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    result = cli("load", "files", "--events", tmp_path / "a.parquet")
    assert result.exit_code == 1
    assert "amount is no decimal" in result.output
    del columns["amount"]
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert cli("load", "files", "--events", tmp_path / "a.parquet").exit_code == 0
    assert query(warehouse, "select user_id, event_time::date::text from raw.events").rows() == [("[x]", "2025-01-01")]


def test_a_broken_package_of_the_complete_journey(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(complete_journey, "data_folder", lambda: tmp_path)
    assert "products.parquet is missing" in cli("load", "complete-journey").output
    (tmp_path / "products.parquet").write_bytes(b"PAR1" + bytes(50) + b"PAR1")
    result = cli("load", "complete-journey")
    assert result.exit_code == 1
    assert "products.parquet cannot be read as parquet" in result.output


text = st.one_of(st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=20), st.sampled_from(HOSTILE))


@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(cells=st.lists(text, min_size=1, max_size=5), name=text.filter(lambda name: name.strip() and name != "event_id"))
@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_any_text_under_any_name_is_stored_as_it_is(
    cli: Cli, warehouse: Path, tmp_path: Path, form: str, cells: list[str], name: str
) -> None:
    """The column comes in through --map, so that its name goes through the command line too."""
    names = ["event_id", "user_id", "event_time", "event_type", name]
    if name.lower() in names[:4]:
        return
    rows = [[str(number), cell, "2025-01-01", "view", cell] for number, cell in enumerate(cells)]
    path = tmp_path / f"a.{form}"
    if form == "csv":
        out = io.StringIO(newline="")
        csv.writer(out, quoting=csv.QUOTE_ALL).writerows([names, *rows])
        path.write_bytes(out.getvalue().encode())
    elif form == "jsonl":
        path.write_text("\n".join(json.dumps(dict(zip(names, row, strict=True))) for row in rows), encoding="utf-8")
    else:
        pq.write_table(
            pa.Table.from_arrays([pa.array(column) for column in zip(*rows, strict=True)], names=names), path
        )
    result = cli("load", "files", "--events", path, "--map", f"events.text={name}")
    if form == "csv" and re.search(r"[\r\n]", name):
        assert result.exit_code == 1
        assert "breaks off" in result.output
        return
    assert result.exit_code == 0, result.output
    found = query(warehouse, "select user_id, text from raw.events order by event_id").rows()
    assert found == [(cell or None, cell or None) for cell in cells]
