"""Bad input: one message that names the thing and the next step, the right exit code, and nothing changed."""

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import polars as pl
import pytest
from click.testing import Result
from lifecycle import ROOT
from test_load_files import ROWS, write

Cli = Callable[..., Result]
RAW = (
    "select (select string_agg(e.event_id, ',' order by e.event_id) from raw.events e), "
    "(select count(*) from raw.loads)"
)


@pytest.fixture
def loaded(cli: Cli, warehouse: Path, tmp_path: Path) -> Path:
    """A warehouse with three events, which no bad file may change."""
    assert cli("load", "files", "--events", write(ROWS, tmp_path / "good.parquet")).exit_code == 0
    return warehouse


def content(path: Path) -> tuple[object, ...]:
    with duckdb.connect(str(path), read_only=True) as con:
        return con.execute(RAW).fetchall()[0]


def assert_refused(result: Result, *words: str, code: int = 1) -> None:
    """One message with these words and a next step; no traceback."""
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "error: " in result.output
    assert "next: " in result.output
    for word in words:
        assert word in result.output, result.output


GOOD_CSV = "event_id,user_id,event_time,event_type\ne9,u1,2025-01-01,view\n"


def _truncated_parquet(path: Path) -> None:
    write(ROWS, path)
    path.write_bytes(path.read_bytes()[:-40])


def _empty_parquet(path: Path) -> None:
    pl.DataFrame(ROWS).clear().write_parquet(path)


def _damaged_parquet(path: Path) -> None:
    write(ROWS * 1000, path)
    content = bytearray(path.read_bytes())
    content[100:400] = bytes(300)
    path.write_bytes(content)


CSV, PARQUET, JSON = "cannot be read as csv", "cannot be read as parquet", "cannot be read as json"


def _text(content: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(content)


def _bytes(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


BAD_FILES: dict[str, tuple[str, Callable[[Path], object], tuple[str, ...]]] = {
    "missing file": ("none.csv", lambda path: None, ("does not exist",)),
    "no bytes": ("a.csv", _bytes(b""), ("is empty",)),
    "header only": ("a.csv", _text("event_id,user_id,event_time,event_type\n"), ("no rows",)),
    "empty parquet": ("a.parquet", _empty_parquet, ("no rows",)),
    "missing column": ("a.csv", _text("id,event_time\n1,2025-01-01\n"), ("user_id", "--map")),
    "wrong types": (
        "a.csv",
        _text(GOOD_CSV.replace("2025-01-01", "noon")),
        ("not one of 1 rows", "event_time", "noon"),
    ),
    "truncated parquet": ("a.parquet", _truncated_parquet, (PARQUET,)),
    "damaged parquet": ("a.parquet", _damaged_parquet, (PARQUET,)),
    "broken quote": ("a.csv", _text(GOOD_CSV + 'e8,"u1,2025-01-01,view\n'), (CSV,)),
    "mixed zones": (
        "a.csv",
        _text(GOOD_CSV + "e8,u1,2025-01-01T10:00:00+02:00,view\n"),
        ("mixes 1 times with an offset", "--timezone"),
    ),
    "ragged rows": ("a.csv", _text(GOOD_CSV + "e8,u1\n"), (CSV,)),
    "broken json": ("a.jsonl", _text('{"event_id": "a"}\n{"event_id": \n'), (JSON,)),
    "a folder": ("folder.csv", lambda path: path.mkdir(), ("is a folder",)),
    "no known format": ("a.xlsx", _bytes(b"PK"), ("format", ".parquet")),
    "broken gzip": ("a.csv.gz", _bytes(b"\x1f\x8b\x08" + bytes(50)), ("a.csv.gz",)),
    "invalid utf-8": ("a.csv", _bytes(GOOD_CSV.encode() + b"e8,\xff\xfe,2025-01-01,view\n"), ("cannot be read",)),
}


@pytest.mark.parametrize("case", BAD_FILES)
@pytest.mark.parametrize("append", [True, False])
def test_a_bad_file_is_named_and_changes_nothing(
    cli: Cli, loaded: Path, tmp_path: Path, case: str, append: bool
) -> None:
    name, make, words = BAD_FILES[case]
    path = tmp_path / name
    make(path)
    before = content(loaded)
    assert_refused(cli("load", "files", "--events", path, *(["--append"] if append else [])), name, *words)
    assert content(loaded) == before


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl", "csv.gz"])
def test_ten_megabytes_of_noise(cli: Cli, loaded: Path, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"noise.{suffix}"
    path.write_bytes(random.Random(1).randbytes(10 * 2**20))
    before = content(loaded)
    assert_refused(cli("load", "files", "--events", path), f"noise.{suffix}")
    assert content(loaded) == before


def test_one_bad_file_among_good_ones_stops_the_load(cli: Cli, loaded: Path, tmp_path: Path) -> None:
    write([ROWS[0] | {"event_id": "new"}], tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text(GOOD_CSV + 'e8,"u1,2025-01-01,view\n')
    before = content(loaded)
    assert_refused(cli("load", "files", "--events", tmp_path / "*.csv", "--append"), "b.csv")
    assert content(loaded) == before


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--map", "nonsense"], "TABLE.COLUMN=VALUE"),
        (["--map", "orders.user_id=x"], "orders"),
        (["--map", "events.nickname=x"], "nickname"),
        (["--set", "events.amount=ten"], "amount"),
        (["--timezone", "Mars/Olympus"], "Mars/Olympus"),
    ],
)
def test_wrong_use_exits_with_2(cli: Cli, tmp_path: Path, arguments: list[str], word: str) -> None:
    path = write(ROWS, tmp_path / "a.csv")
    assert_refused(cli("load", "files", "--events", path, *arguments), word, code=2)


def test_no_files_is_wrong_use(cli: Cli) -> None:
    assert_refused(cli("load", "files"), "no files", code=2)


def test_a_mapped_column_that_the_file_lacks(cli: Cli, loaded: Path, tmp_path: Path) -> None:
    path = write(ROWS, tmp_path / "a.csv")
    assert_refused(cli("load", "files", "--events", path, "--map", "events.user_id=customer"), "customer", "a.csv")


def test_errors_as_json(cli: Cli) -> None:
    result = cli("load", "files", "--events", "none.csv", "--json")
    assert result.exit_code == 1
    assert '"next_step"' in result.stdout
    assert "none.csv" in result.stdout


@contextmanager
def held_open(path: Path) -> Iterator[int]:
    """Another process that has the warehouse open for writing; its process id."""
    code = f"import duckdb, sys\ncon = duckdb.connect({str(path)!r})\nprint('open', flush=True)\nsys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == "open\n"
        yield holder.pid
        holder.stdin.close()


@pytest.mark.parametrize("arguments", [["load", "complete-journey"], ["status"], ["fit"], ["run"], ["score"]])
def test_a_locked_warehouse_names_its_holder(cli: Cli, loaded: Path, arguments: list[str]) -> None:
    with held_open(loaded) as holder:
        result = cli(*arguments)
    assert_refused(result, "locked by", str(holder), "LCM_LOCK_TIMEOUT")


def test_waiting_for_a_lock_that_is_freed(cli: Cli, loaded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LCM_LOCK_TIMEOUT", "20")
    code = f"import duckdb, time\ncon = duckdb.connect({str(loaded)!r})\nprint('open', flush=True)\ntime.sleep(1)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        result = cli("status")
    assert result.exit_code == 0, result.output
    assert "waiting" in result.output


def test_two_loads_at_once_name_each_other(cli: Cli, loaded: Path, tmp_path: Path) -> None:
    from lcm_ml.warehouse.connection import writer_lock

    code = (
        "import sys\nfrom lcm_ml.warehouse.connection import writer_lock\n"
        "with writer_lock('lcm-ml load files'):\n    print('held', flush=True)\n    sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        holder.stdout.readline()
        result = cli("load", "files", "--events", write(ROWS, tmp_path / "b.csv"))
        assert_refused(result, "lcm-ml load files", str(holder.pid))
        holder.kill()
    # A killed holder leaves nothing that blocks.
    with writer_lock("next"):
        pass


def test_a_warehouse_of_a_newer_version(cli: Cli, loaded: Path, tmp_path: Path) -> None:
    with duckdb.connect(str(loaded)) as con:
        con.execute("create schema meta")
        con.execute("create table meta.warehouse_version (version integer, written_at timestamp)")
        con.execute("insert into meta.warehouse_version values (99, now())")
    before = content(loaded)
    assert_refused(cli("load", "files", "--events", write(ROWS, tmp_path / "b.csv")), "99", "newer")
    assert_refused(cli("fit"), "99", "newer")
    assert content(loaded) == before
    environment = os.environ | {"LCM_WAREHOUSE": str(loaded)}
    done = subprocess.run(
        [sys.executable, "-m", "dbt.cli.main", "build", "--no-use-colors", "--target-path", str(tmp_path / "target")],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "layout version 99" in done.stdout


def test_a_file_that_is_no_warehouse(cli: Cli, warehouse: Path) -> None:
    warehouse.parent.mkdir()
    warehouse.write_bytes(b"not a database" * 1000)
    assert_refused(cli("status"), "not a DuckDB file", "LCM_WAREHOUSE")


def test_a_warehouse_called_like_a_schema(cli: Cli, warehouse: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LCM_WAREHOUSE", str(warehouse.with_name("raw.duckdb")))
    assert_refused(cli("status"), "raw.duckdb", "LCM_WAREHOUSE")


def test_nothing_built_yet(cli: Cli, loaded: Path) -> None:
    for command in ("fit", "score", "evaluate", "publish"):
        assert_refused(cli(command), "nothing was built yet", "dbt build")


def test_no_warehouse_yet(cli: Cli) -> None:
    assert_refused(cli("status"), "there is no warehouse")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MB."""
    mount = tmp_path / "small"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(mount)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("needs the right to mount a small file system")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def test_a_full_disk(small_disk: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    path = small_disk / "lcm.duckdb"
    monkeypatch.setenv("LCM_WAREHOUSE", str(path))
    assert cli("load", "files", "--events", write(ROWS, tmp_path / "good.csv")).exit_code == 0
    before = content(path)
    big = tmp_path / "big.parquet"
    names = "md5(cast(i as varchar)) event_id, md5(cast(i + 1 as varchar)) user_id"
    rows = f"select {names}, now() event_time, 'view' event_type"
    duckdb.execute(f"copy ({rows} from range(600000) as numbers (i)) to '{big}' (format parquet)")
    assert_refused(cli("load", "files", "--events", big, "--append"), "full")
    assert content(path) == before


def test_a_folder_that_cannot_be_written(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("LCM_WAREHOUSE", str(blocked / "lcm.duckdb"))
    assert_refused(cli("load", "files", "--events", write(ROWS, tmp_path / "a.csv")), "LCM_WAREHOUSE")
