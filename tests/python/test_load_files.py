"""`lcm-ml load files`: what ends up in the raw tables."""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from click.testing import Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lifecycle import query

Cli = Callable[..., Result]

ROWS = [
    {"event_id": "e1", "user_id": "u1", "event_time": "2025-01-01 10:00:00", "event_type": "view", "amount": None},
    {
        "event_id": "e2",
        "user_id": "u1",
        "event_time": "2025-01-01 11:00:00",
        "event_type": "purchase",
        "amount": "9.50",
    },
    {"event_id": "e3", "user_id": "u2", "event_time": "2025-01-02 11:00:00", "event_type": "purchase", "amount": "3"},
]


def write(rows: list[dict[str, Any]], path: Path) -> Path:
    """Rows as a file of the format that its name says."""
    frame = pl.DataFrame(rows, infer_schema_length=None)
    if path.suffix == ".parquet":
        frame.write_parquet(path)
    elif path.name.endswith(".csv"):
        frame.write_csv(path)
    elif path.name.endswith(".csv.gz"):
        path.write_bytes(gzip.compress(frame.write_csv().encode()))
    elif path.name.endswith(".gz"):
        path.write_bytes(gzip.compress(frame.write_ndjson().encode()))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        frame.write_ndjson(path)
    return path


def events(path: Path, columns: str = "event_id, user_id, event_time, event_type, amount") -> list[tuple[Any, ...]]:
    return query(path, f"select {columns} from raw.events order by all").rows()


@pytest.mark.parametrize("name", ["e.parquet", "e.csv", "e.csv.gz", "e.jsonl", "e.ndjson.gz", "e.json"])
def test_every_format_gives_the_same_rows(cli: Cli, warehouse: Path, tmp_path: Path, name: str) -> None:
    result = cli("load", "files", "--events", write(ROWS, tmp_path / name))
    assert result.exit_code == 0, result.output
    assert [row[:2] for row in events(warehouse)] == [("e1", "u1"), ("e2", "u1"), ("e3", "u2")]
    assert events(warehouse, "event_time")[1] == (datetime(2025, 1, 1, 11),)
    assert [str(amount) for (amount,) in events(warehouse, "amount")] == ["3.0000", "9.5000", "None"]
    assert sorted(row[0] for row in events(warehouse, "source_row")) == [1, 2, 3]


def test_names_are_mapped_and_constants_set(cli: Cli, warehouse: Path, tmp_path: Path) -> None:
    rows = [{"line no": 1, 'customer "id"': "u1", "ts": "2025-01-01", "extra": 5}]
    path = write(rows, tmp_path / "orders.csv")
    result = cli(
        "load", "files", "--events", path, "--map", 'events.user_id=customer "id"', "--map", "events.event_time=ts",
        "--set", "events.event_type=purchase", "--set", "events.currency=O'R", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert events(warehouse, "user_id, event_type, currency") == [("u1", "purchase", "O'R")]
    assert json.loads(result.stdout)["files"][0]["unused_columns"] == ["extra", "line no"]


def test_derived_ids_keep_what_was_sold_twice(cli: Cli, warehouse: Path, tmp_path: Path) -> None:
    line = {"user_id": "u1", "event_time": "2025-01-01 10:00", "event_type": "purchase", "amount": "2"}
    path = write([line, line, line | {"amount": "3"}], tmp_path / "a.csv")
    assert cli("load", "files", "--events", path).exit_code == 0
    first = events(warehouse, "event_id")
    assert len(set(first)) == 3
    # Another format, another order of columns, an extra one: the same ids.
    again = [{"note": "x", "amount": 2.0}, {"note": "y", "amount": 2.0}, {"note": "z", "amount": 3.0}]
    again = [row | {name: line[name] for name in ("event_type", "event_time", "user_id")} for row in again]
    assert cli("load", "files", "--events", write(again, tmp_path / "b.parquet")).exit_code == 0
    assert events(warehouse, "event_id") == first
    assert cli("load", "files", "--events", path, "--drop-identical").exit_code == 0
    assert len(set(events(warehouse, "event_id"))) == 2


def test_the_same_file_twice_adds_nothing(cli: Cli, warehouse: Path, tmp_path: Path) -> None:
    path = write(ROWS, tmp_path / "a.csv")
    copy = tmp_path / "copy.csv"
    copy.write_bytes(path.read_bytes())
    assert cli("load", "files", "--events", path).exit_code == 0
    for again in (path, copy):
        result = cli("load", "files", "--events", again, "--append")
        assert result.exit_code == 0
        assert "nothing new" in result.output
    assert len(events(warehouse)) == 3
    assert query(warehouse, "select count(*) from raw.loads").item() == 1


def test_a_load_replaces_and_append_adds(cli: Cli, warehouse: Path, tmp_path: Path) -> None:
    users = write([{"user_id": "u1", "country": "DE"}], tmp_path / "users.csv")
    assert cli("load", "files", "--events", write(ROWS[:1], tmp_path / "a.csv"), "--users", users).exit_code == 0
    assert cli("load", "files", "--events", write(ROWS[1:2], tmp_path / "b.csv"), "--append").exit_code == 0
    assert len(events(warehouse)) == 2
    assert query(warehouse, "select mode from raw.loads order by load_id")["mode"].to_list() == ["replace", "append"]
    assert cli("load", "files", "--events", write(ROWS[2:], tmp_path / "c.csv")).exit_code == 0
    assert len(events(warehouse)) == 1
    assert query(warehouse, "select count(*) from raw.users").item() == 0


def test_globs_and_odd_file_names(cli: Cli, warehouse: Path, tmp_path: Path) -> None:
    for number, row in enumerate(ROWS):
        write([row], tmp_path / f"it's [{number}] ; drop--.csv")
    result = cli("load", "files", "--events", tmp_path / "*.csv")
    assert result.exit_code == 0, result.output
    assert len(events(warehouse)) == 3


def test_values_that_cannot_be_cast_are_kept_as_text(cli: Cli, warehouse: Path, tmp_path: Path) -> None:
    rows = [*ROWS, ROWS[0] | {"event_id": "e4", "event_time": "gestern"}, ROWS[0] | {"event_id": "e5", "amount": "ten"}]
    result = cli("load", "files", "--events", write(rows, tmp_path / "a.csv"), "--json")
    document = json.loads(result.stdout)
    assert (document["rows_in"], document["rows_loaded"], document["rows_rejected"]) == (5, 3, 2)
    rejected = query(warehouse, "select rule, source_row, original from raw.rejected_rows order by source_row").rows()
    assert [row[:2] for row in rejected] == [("unreadable_event_time", 4), ("unreadable_amount", 5)]
    assert json.loads(rejected[0][2])["event_time"] == "gestern"


@pytest.mark.parametrize(
    ("text", "zone", "expected"),
    [
        ("2025-07-01 12:00:00", None, datetime(2025, 7, 1, 12)),
        ("2025-07-01 12:00:00", "Europe/Berlin", datetime(2025, 7, 1, 10)),
        ("2025-07-01T12:00:00+02:00", "America/New_York", datetime(2025, 7, 1, 10)),
        ("2025-07-01T12:00:00Z", "Europe/Berlin", datetime(2025, 7, 1, 12)),
        ("1751364000", "Europe/Berlin", datetime(2025, 7, 1, 10)),
        ("1751364000000", None, datetime(2025, 7, 1, 10)),
    ],
)
def test_times_become_utc(
    cli: Cli, warehouse: Path, tmp_path: Path, text: str, zone: str | None, expected: datetime
) -> None:
    path = write([ROWS[0] | {"event_time": text}], tmp_path / "a.csv")
    result = cli("load", "files", "--events", path, *(["--timezone", zone] if zone else []))
    assert result.exit_code == 0, result.output
    assert events(warehouse, "event_time") == [(expected,)]


def test_typed_times_become_utc(cli: Cli, warehouse: Path, tmp_path: Path) -> None:
    frame = pl.DataFrame(ROWS[:1]).with_columns(event_time=pl.lit(datetime(2025, 7, 1, 12)))
    frame.write_parquet(tmp_path / "local.parquet")
    frame.with_columns(pl.col("event_time").dt.replace_time_zone("Asia/Shanghai")).write_parquet(tmp_path / "z.parquet")
    assert cli("load", "files", "--events", tmp_path / "local.parquet", "--timezone", "Europe/Berlin").exit_code == 0
    assert events(warehouse, "event_time") == [(datetime(2025, 7, 1, 10),)]
    assert cli("load", "files", "--events", tmp_path / "z.parquet", "--timezone", "Europe/Berlin").exit_code == 0
    assert events(warehouse, "event_time") == [(datetime(2025, 7, 1, 4),)]


def test_every_raw_table_loads(cli: Cli, warehouse: Path, tmp_path: Path) -> None:
    tables = {
        "users": {"user_id": "u1", "signed_up_at": "2025-01-01", "marketing_consent": "true"},
        "products": {"product_id": "p", "price": "1.5"},
        "campaigns": {"campaign_id": "c"},
        "campaign_touches": {"campaign_id": "c", "user_id": "u1", "touched_at": "2025-01-01"},
        "support_tickets": {"ticket_id": "t", "user_id": "u1", "created_at": "2025-01-01", "text": "退货 ?"},
        "kb_articles": {"article_id": "a", "body": "x\ny"},
        "identities": {"anonymous_id": "x", "user_id": "u1", "linked_at": "2025-01-01"},
        "currency_rates": {"currency": "EUR", "valid_from": "2025-01-01", "rate": "1.1"},
    }
    arguments: list[object] = ["--events", write(ROWS, tmp_path / "e.csv")]
    for table, row in tables.items():
        arguments += [f"--{table.replace('_', '-')}", write([row], tmp_path / f"{table}.csv")]
    result = cli("load", "files", *arguments)
    assert result.exit_code == 0, result.output
    for table in tables:
        assert query(warehouse, f"select count(*) from raw.{table}").item() == 1
    assert query(warehouse, "select text from raw.support_tickets").item() == "退货 ?"


def test_hostile_text_is_stored_as_it_is(cli: Cli, warehouse: Path, tmp_path: Path) -> None:
    texts = ["'; drop table raw.events; --", "\u202eevil", 'a"b', "x" * 10_000_000, "<script>alert(1)</script>", "a\nb"]
    rows = [ROWS[0] | {"event_id": str(number), "text": text} for number, text in enumerate(texts)]
    for name in ("a.csv", "a.parquet", "a.jsonl"):
        result = cli("load", "files", "--events", write(rows, tmp_path / name))
        assert result.exit_code == 0, result.output[:500]
        assert query(warehouse, "select text from raw.events order by event_id")["text"].to_list() == texts


cell = st.one_of(st.none(), st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=12))
time_cell = st.one_of(st.just("2025-01-01 10:00"), st.just("2025-02-03"), cell)
row_strategy = st.fixed_dictionaries(
    {"user_id": cell, "event_time": time_cell, "event_type": cell, "amount": st.one_of(cell, st.just("4.5"))}
)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(first=st.lists(row_strategy, min_size=1, max_size=6), second=st.lists(row_strategy, min_size=1, max_size=6))
def test_no_row_is_lost_and_parts_equal_the_whole(
    cli: Cli, warehouse: Path, tmp_path: Path, first: list[dict[str, Any]], second: list[dict[str, Any]]
) -> None:
    """Rows in are rows loaded and rejected; two appends give the ids that one load of both gives."""
    good = {"user_id": "u", "event_time": "2025-01-01 10:00", "event_type": "view", "amount": "1"}
    a = write([*first, good], tmp_path / "a.csv")
    b = write([*second, good, good], tmp_path / "b.csv")
    both = cli("load", "files", "--events", a, "--events", b)
    assert both.exit_code == 0, both.output
    whole = events(warehouse)
    rejected = query(warehouse, "select count(*) from raw.rejected_rows").item()
    files = query(warehouse, "select sum(rows_in) from raw.load_files").item()
    assert files == len(whole) + rejected
    assert files == len(first) + len(second) + 3

    assert cli("load", "files", "--events", a).exit_code == 0
    assert cli("load", "files", "--events", b, "--append").exit_code == 0
    assert events(warehouse) == whole
    assert "nothing new" in cli("load", "files", "--events", b, "--append").output


def test_memory_does_not_grow_with_the_file(warehouse: Path, tmp_path: Path) -> None:
    """3 million rows, 250 MB as text, under a limit of 400 MB for DuckDB."""
    path = tmp_path / "big.parquet"
    duckdb.execute(
        f"""
        copy (
            select
                md5(cast(i as varchar)) as event_id, 'u' || (i % 100000) as user_id,
                timestamp '2025-01-01' + i * interval 10 second as event_time, 'view' as event_type,
                md5(cast(i * 7 as varchar)) as session_id
            from range(3000000) as numbers (i)
        ) to '{path}' (format parquet)
        """
    )
    # Not ru_maxrss: that of a child starts at its parent's, and pytest is large by now.
    code = (
        "from lcm_ml.cli.main import app\ntry:\n    app()\nexcept SystemExit as end:\n"
        "    assert not end.code, end.code\nprint(*[s.split()[1] for s in open('/proc/self/status') if 'VmHWM' in s])"
    )
    environment = os.environ | {"LCM_MEMORY_LIMIT": "400MB", "LCM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", code, "load", "files", "--events", str(path)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert query(warehouse, "select count(*) from raw.events").item() == 3_000_000
    assert int(done.stdout.split()[-1]) / 1024 < 800
