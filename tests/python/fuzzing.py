"""Load mutated files one after another into one warehouse, and hold each load to the promise about bad input.

A file is loaded whole, with every row in the raw table or in raw.rejected_rows, or it is refused with one message that
names it and says what to do next, and the warehouse is as it was.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
from click.testing import CliRunner
from lifecycle import warehouse_at
from mutations import TABLES, Mutated, count_rows, mutate
from typer.main import get_command

from lcm_ml.cli import console
from lcm_ml.cli.main import app

COMMAND = get_command(app)  # made once: that takes longer than a load
LOGS = ("loads", "load_files", "rejected_rows")
State = dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Outcome:
    """What became of a mutated file; `faults` is empty where the promise was kept."""

    file: Mutated
    verdict: str  # loaded, skipped or refused
    rows: int | None
    rows_loaded: int
    rows_rejected: int
    message: str
    faults: tuple[str, ...]


def state_of(path: Path) -> State:
    """Rows and a hash of the content of every raw table."""
    if not path.exists():
        return {}
    with duckdb.connect(str(path), read_only=True) as con:
        have = {
            name
            for (name,) in con.execute("select table_name from duckdb_tables() where schema_name = 'raw'").fetchall()
        }
        return {
            name: con.execute(f"select count(*), coalesce(bit_xor(hash(t)), 0) from raw.{name} as t").fetchall()[0]
            for name in (*TABLES, *LOGS)
            if name in have
        }


def _digest(warehouse: Path) -> str:
    files = [path for path in (warehouse, warehouse.with_name(f"{warehouse.name}.wal")) if path.exists()]
    return " ".join(hashlib.sha256(path.read_bytes()).hexdigest() for path in files)


def fuzz(numbers: Iterator[int] | range, seed: int, folder: Path, warehouse: Path) -> Iterator[Outcome]:
    """Make, load and judge the files of these numbers."""
    with warehouse_at(warehouse):
        before = state_of(warehouse)
        for number in numbers:
            file = mutate(number, seed, folder / str(number))
            outcome, before = judge(file, warehouse, before)
            yield outcome


def judge(file: Mutated, warehouse: Path, before: State) -> tuple[Outcome, State]:
    """Load a file as a user would, and look at what happened."""
    as_json = file.number % 2 == 0
    arguments = [
        "load",
        "files",
        f"--{file.table.replace('_', '-')}={file.path}",
        "--append",
        *(["--json"] if as_json else []),
    ]
    bytes_before = _digest(warehouse)
    result = CliRunner().invoke(COMMAND, arguments)
    # Most refusals come before anything is opened: a file of the same bytes need not be read again.
    after = before if result.exit_code and bytes_before == _digest(warehouse) else state_of(warehouse)
    told = list(_faults_of_output(file, result.exit_code, result.output, result.exception, as_json))
    grown = {name: after[name][0] - before.get(name, (0, 0))[0] for name in after}
    loaded, rejected = grown.get(file.table, 0), grown.get("rejected_rows", 0)
    rows = count_rows(file.path) if file.path.is_file() else None
    if result.exit_code == 0 and grown.get("load_files"):
        verdict = "loaded"
        if rows is not None and rows != loaded + rejected:
            told.append(f"{rows} rows in the file, {loaded} loaded and {rejected} rejected")
        if changed := [name for name in grown if grown[name] and name not in (file.table, *LOGS)]:
            told.append(f"other tables changed: {changed}")
    else:
        verdict = "skipped" if result.exit_code == 0 else "refused"
        if {name: found for name, found in after.items() if found[0]} != {
            n: found for n, found in before.items() if found[0]
        }:
            told.append(f"{verdict}, but the warehouse changed: {grown}")
    message = result.output.strip() if verdict == "refused" else ""
    return Outcome(file, verdict, rows, loaded, rejected, message, tuple(told)), after


def _faults_of_output(
    file: Mutated, code: int, output: str, exception: BaseException | None, as_json: bool
) -> Iterator[str]:
    if exception is not None and not isinstance(exception, SystemExit):
        yield f"traceback: {type(exception).__name__}: {str(exception)[:300]}"
        return
    if code not in (0, 1):
        yield f"exit code {code}: {output[:300]}"
    if len(output) > 5_000:
        yield f"{len(output):,} characters of output"
    if any(sign in output for sign in ("\x1b", "\x07")):
        yield "control characters of the data reach the terminal"
    if code == 1:
        if "next" not in output:
            yield "no next step"
        name = json.dumps(file.path.name)[1:-1] if as_json else visible(file.path.name)
        if name not in output:
            yield f"the file is not named: {output[:300]}"


def visible(text: str) -> str:
    """A text as the command line shows it."""
    return console.visible(text)


def accounts_add_up(warehouse: Path) -> tuple[int, int]:
    """Rows in, and rows kept + duplicates + quarantined, from marts.data_quality."""
    with duckdb.connect(str(warehouse), read_only=True) as con:
        found = con.execute(
            "select coalesce(sum(row_count) filter (where kind = 'rows_in'), 0), "
            "coalesce(sum(row_count) filter (where kind in ('kept', 'duplicate', 'quarantined')), 0) "
            "from marts.data_quality"
        ).fetchall()[0]
    return int(found[0]), int(found[1])
