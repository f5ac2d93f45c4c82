"""Load files into the raw tables: names mapped, types cast, what cannot be cast kept; memory does not grow."""

import glob
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb

from lcm_ml.errors import FULL, LcmError, UsageError
from lcm_ml.sources.pseudonyms import HIDDEN, Pseudonyms, refuse_mixture, user_columns
from lcm_ml.sources.raw_load import FileOutcome, RawLoad, raw_load, result_of
from lcm_ml.sources.readers import ROW_NUMBER, Field, Source, check_compressed, open_source, reading
from lcm_ml.warehouse.connection import Notify, first_row, translate
from lcm_ml.warehouse.contracts import Column, Table, raw_inputs
from lcm_ml.warehouse.sql import literal

Advance = Callable[[str, float], None]

# 2026-01-31 10:00:00+02:00, ...Z: a time of day followed by an offset.
OFFSET = r"\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?\s*(Z|z|UTC|[+-]\d{2}(:?\d{2})?)\s*$"
TIME_RANGE = "timestamp '0001-01-01' and timestamp '9999-12-31 23:59:59.999999'"
"""What Python, Polars and Parquet readers hold too: infinity and the year 290000 are no times of a shop."""

MALFORMED = "unreadable_row"
NUMBERS = ("tinyint", "smallint", "integer", "bigint", "hugeint", "utinyint", "usmallint", "uinteger", "ubigint",
           "uhugeint", "float", "double", "decimal")  # fmt: skip
PLAIN_TYPES = (*NUMBERS, "boolean", "date", "timestamp")
EPOCH_SECONDS, EPOCH_MILLISECONDS = r"^\s*\d{10}\s*$", r"^\s*\d{13}\s*$"


@dataclass(frozen=True)
class FileOptions:
    """How files become raw rows.

    Attributes:
        maps: per table, contract column to the file's column.
        constants: per table, contract column to the value that all rows get.
        append: add to what raw holds rather than take its place.
        timezone: of times without an offset; None refuses a file that mixes both kinds.
        drop_identical: rows of a file that are equal in content share one event_id, so that staging keeps one.
        pseudonyms: what takes the place of user ids; None keeps them.
    """

    maps: dict[str, dict[str, str]] = field(default_factory=dict)
    constants: dict[str, dict[str, str]] = field(default_factory=dict)
    append: bool = False
    timezone: str | None = None
    drop_identical: bool = False
    pseudonyms: Pseudonyms | None = None

    def __post_init__(self) -> None:
        for named in (self.maps, self.constants):
            for table, columns in named.items():
                _check_names(table, columns)
        for table, columns in self.maps.items():
            if both := sorted(columns.keys() & self.constants.get(table, {}).keys()):
                raise UsageError(f"{table}.{both[0]} is given by --map and by --set", "leave one of them out")
        if self.timezone is not None:
            known = first_row(duckdb.connect(), "select 1 from pg_timezone_names() where name = ?", [self.timezone])
            if known is None:
                raise UsageError(
                    f"--timezone: there is no time zone {self.timezone!r}", "e.g. --timezone Europe/Berlin"
                )
        for table, columns in self.constants.items():
            types = {column.name: column.data_type for column in raw_inputs()[table].columns}
            for name, value in columns.items():
                cast = first_row(duckdb.connect(), f"select try_cast(? as {types[name]})", [value])
                if cast is None or cast[0] is None:
                    raise UsageError(
                        f"--set {table}.{name}={value}: not a {types[name]}", "give a value of the column's type"
                    )

    @property
    def described(self) -> dict[str, Any]:
        """For raw.loads.options, without any user's id."""
        known: dict[str, Any] = {
            "map": self.maps,
            "set": self.constants,
            "timezone": self.timezone,
            "drop_identical": self.drop_identical,
        }
        if self.pseudonyms is None:
            return known
        shown = {
            table: {
                name: HIDDEN if name in user_columns(raw_inputs()[table]) else value for name, value in columns.items()
            }
            for table, columns in self.constants.items()
        }
        return known | {"set": shown, "pseudonyms": self.pseudonyms.described}


def _check_names(table: str, columns: dict[str, str]) -> None:
    known = raw_inputs()
    if table not in known:
        raise UsageError(f"there is no raw table {table!r}", f"one of: {', '.join(known)}")
    names = [column.name for column in known[table].columns if not column.lineage]
    for name in columns:
        if name not in names:
            raise UsageError(f"raw.{table} has no column {name!r}", f"one of: {', '.join(names)}")


def expand(patterns: list[str]) -> list[Path]:
    """The files that the patterns name, in order, each once.

    Raises:
        LcmError: for a pattern that matches nothing.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        if not pattern.strip() or "\0" in pattern:
            raise LcmError(f"{pattern!r} is no path", "check the path")
        if Path(pattern).exists():
            found[Path(pattern)] = None
            continue
        matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - patterns may be absolute
        if not matches:
            raise LcmError(f"{pattern} does not exist", "check the path; in a pattern, quote it: 'exports/*.parquet'")
        found.update(dict.fromkeys(map(Path, matches)))
    return list(found)


def load_files(
    patterns: dict[str, list[str]], options: FileOptions, advance: Advance, notify: Notify
) -> dict[str, Any]:
    """Load files of any of the raw tables in one transaction.

    Args:
        patterns: raw table name to paths or globs.
        options: see FileOptions.
        advance: told the file under way and the share of files done.
        notify: told when another process has to be waited for.

    Returns:
        load_id (None when nothing was new), files with rows_in, rows_loaded, rows_rejected and unused columns,
        totals, and the skipped files.

    Raises:
        LcmError: naming the file, its column and the next step; the warehouse is as it was then.
    """
    files = [(table, path) for table, given in patterns.items() for path in expand(given)]
    # A file that cannot be opened is told before anything is locked or dropped.
    sources = {path: _open(path) for _, path in files}
    skipped: list[str] = []
    with _load_of(files, options, notify, append=options.append) as (load, ordered):
        for done, (table, path) in enumerate(ordered):
            advance(path.name, done / len(ordered))
            if not _load_unless_known(load, table, sources[path], options):
                skipped.append(str(path))
        return result_of(load, skipped)


def load_each(
    files: list[tuple[str, Path]], options: FileOptions, notify: Notify
) -> tuple[dict[str, Any], dict[Path, LcmError]]:
    """Add files to raw in one transaction, without those that cannot be loaded, which leave no trace.

    Args:
        files: raw table name and path of each.
        options: see FileOptions; they are always added.
        notify: told when another process has to be waited for.

    Returns:
        As `load_files`; and what is wrong with the files that were left out. A file that is gone is in neither.

    Raises:
        LcmError: when the warehouse cannot be written, or refuses the options; it is as it was then.
    """
    refused: dict[Path, LcmError] = {}
    sources: dict[Path, Source] = {}
    for _, path in files:
        try:
            sources[path] = _open(path)
        except LcmError as error:
            if path.exists():
                refused[path] = error
    while True:
        given = [(table, path) for table, path in files if path in sources and path not in refused]
        try:
            return _load_all(given, sources, options, notify), refused
        except _RefusedError as error:
            # Half a file may be in the transaction: once more, without it.
            refused[error.path] = error.reason


class _RefusedError(Exception):
    def __init__(self, path: Path, reason: LcmError) -> None:
        super().__init__(path)
        self.path, self.reason = path, reason


def _load_all(
    files: list[tuple[str, Path]], sources: dict[Path, Source], options: FileOptions, notify: Notify
) -> dict[str, Any]:
    skipped: list[str] = []
    with _load_of(files, options, notify, append=True) as (load, ordered):
        for table, path in ordered:
            try:
                if not _load_unless_known(load, table, sources[path], options):
                    skipped.append(str(path))
            except LcmError as error:
                raise _RefusedError(path, error) from error
            except OSError as error:
                if error.errno in FULL:
                    raise
                reason = LcmError(f"{path} cannot be read: {error.strerror}", "check its permissions")
                raise _RefusedError(path, reason) from error
        return result_of(load, skipped)


@contextmanager
def _load_of(
    files: list[tuple[str, Path]], options: FileOptions, notify: Notify, *, append: bool
) -> Iterator[tuple[RawLoad, list[tuple[str, Path]]]]:
    """An open load for files, and the order to load them in: who a visitor is must be known before its events come."""
    ordered = sorted(files, key=lambda file: file[0] != "identities")
    described = {"files": [str(path) for _, path in ordered], **options.described}
    with raw_load("files", described, append=append, memory_notify=notify) as load:
        refuse_mixture(load.con, options.pseudonyms)
        if options.pseudonyms:
            options.pseudonyms.prepare(load.con)
        yield load, ordered


def _load_unless_known(load: RawLoad, table: str, source: Source, options: FileOptions) -> bool:
    """Load a file, unless raw holds one of the same bytes: whether it was loaded."""
    with source.path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    if load.already_loaded(table, digest):
        return False
    check_compressed(source.path)
    load.record(_load_file(load, raw_inputs()[table], source, digest, options))
    return True


def _open(path: Path) -> Source:
    try:
        with duckdb.connect() as con:
            source = open_source(con, path)
    except duckdb.Error as error:
        raise translate(error, path) from None
    return source


def _load_file(load: RawLoad, table: Table, source: Source, digest: str, options: FileOptions) -> FileOutcome:
    path = source.path
    mapping = _mapping(table, source, options)
    with reading(path):
        _stage(load.con, table, source, mapping, options)
        total, good = _counts(load.con, table, source, mapping, options)
        forgotten = load.suppression.drop_staged(load.con, table) if load.suppression else (0, 0)
        _insert(load, table, path, options)
    return FileOutcome(
        table_name=table.name,
        source_file=str(path),
        content_hash=digest,
        rows_in=total,
        rows_loaded=good - forgotten[0],
        rows_rejected=total - good - forgotten[1],
        rows_suppressed=sum(forgotten),
        unused_columns=sorted({field.name for field in source.fields} - {field.name for field in mapping.values()}),
    )


def _mapping(table: Table, source: Source, options: FileOptions) -> dict[str, Field]:
    """Contract column to the file's column.

    Raises:
        LcmError: when a mapped or a required column is not in the file, or is there more than once.
    """
    have = _listed([field.name for field in source.fields])
    named = options.maps.get(table.name, {})
    constants = options.constants.get(table.name, {})
    mapping: dict[str, Field] = {}
    for target, column in named.items():
        found = source.field(column)
        if found is None:
            raise LcmError(
                f"{source.path} has no column {column!r}, which --map gives to {table.name}.{target}; it has: {have}",
                "mend --map",
            )
        if source.like(column).count(column) > 1:
            raise LcmError(f"{source.path} has the column {column!r} more than once", "leave one of them in the file")
        mapping[target] = found
    for contract in table.columns:
        name = contract.name
        if contract.lineage or name in mapping or name in constants:
            continue
        alike = source.like(name)
        if len(alike) > 1:
            raise LcmError(
                f"{source.path} has the column {name!r} of {table.name} more than once: {_listed(alike)}",
                f"leave one of them in the file, or say which, e.g. --map {table.name}.{name}={alike[0]}",
            )
        if alike and (only := source.field(alike[0])):
            mapping[name] = only
        elif contract.required and not (table.name == "events" and name == "event_id"):
            raise LcmError(
                f"{source.path} has no column {name!r}, which {table.name} needs; it has: {have}",
                f"name it, e.g. --map {table.name}.{name}={source.fields[0].name[:50]}, "
                f"or give all rows one value with --set {table.name}.{name}=...",
            )
    if options.pseudonyms:
        _refuse_plain_copies(table, source, mapping)
    return mapping


def _listed(names: list[str]) -> str:
    """Names for a message, which a broken header may make very long."""
    shown = ", ".join(name[:50] for name in names[:30])
    return shown if len(names) <= 30 else f"{shown} and {len(names) - 30:,} more"


def _refuse_plain_copies(table: Table, source: Source, mapping: dict[str, Field]) -> None:
    """Refuse to load the user ids of a file once more under another name, where they would stay plain.

    Raises:
        LcmError: naming both columns.
    """
    ids = {mapping[name]: name for name in user_columns(table) if name in mapping}
    for target, column in mapping.items():
        if column in ids and target not in user_columns(table):
            raise LcmError(
                f"{source.path}: {column.name!r} goes to {table.name}.{ids[column]} and to {table.name}.{target}, "
                "where --pseudonymise would leave it as it is",
                f"map another column to {table.name}.{target}, or none",
            )


def _stage(
    con: duckdb.DuckDBPyConnection, table: Table, source: Source, mapping: dict[str, Field], options: FileOptions
) -> None:
    """Read the file once into a temporary table: cast values, the rule of the first that cannot be, row numbers."""
    constants = options.constants.get(table.name, {})
    hidden = dict.fromkeys(user_columns(table), options.pseudonyms.sql) if options.pseudonyms else {}
    casts: list[str] = []
    unreadable = [f"when {source.malformed} then '{MALFORMED}'"] if source.malformed else []
    for column in table.columns:
        if column.lineage:
            continue
        if column.name in constants:
            cast = f"cast({literal(constants[column.name])} as {column.data_type})"
        elif column.name not in mapping:
            cast = f"cast(null as {column.data_type})"
        else:
            value, cast = _cast(mapping[column.name], column, options.timezone)
            if cast != value:
                unreadable.append(f"when {value} is not null and {cast} is null then 'unreadable_{column.name}'")
        casts.append(f"{hidden[column.name](cast) if column.name in hidden else cast} as {column.name}")
    rule = f"case {' '.join(unreadable)} end" if unreadable else "cast(null as varchar)"
    mixed = ", ".join(
        f"regexp_matches({mapping[name].sql}, {literal(OFFSET)}) as offset_{name}"
        for name in _text_times(table, mapping)
    )
    con.execute(
        f"create or replace temporary table staged_rows as "
        f"select {', '.join(casts)}, {rule} as rule, {ROW_NUMBER} as source_row, "
        f"case when {rule} is not null then {_original(table, source, mapping, options)} end as original"
        f"{', ' + mixed if mixed else ''} from {source.relation} as rows_of_file"
    )


def _original(table: Table, source: Source, mapping: dict[str, Field], options: FileOptions) -> str:
    """SQL for the row as it was, as JSON text.

    With pseudonyms that is what the contract takes of it: a column that is not loaded might tell who the user is.
    """
    if not options.pseudonyms:
        return source.original
    ids = {mapping[name] for name in user_columns(table) if name in mapping}
    pairs = []
    for taken in dict.fromkeys(mapping.values()):
        value = f"cast({taken.sql} as varchar)"
        pairs.append(f"{literal(taken.name)}, {options.pseudonyms.sql(value) if taken in ids else value}")
    return f"cast(json_object({', '.join(pairs)}) as varchar)"


def _cast(field: Field, column: Column, timezone: str | None) -> tuple[str, str]:
    """The value as it is, and the value cast to the contract's type; both the same where no cast is needed."""
    found = field.data_type
    value = f"nullif({field.sql}, '')" if found == "varchar" else field.sql
    if column.data_type == "varchar":
        cast = value if found == "varchar" else f"cast({value} as varchar)"
        return cast, cast
    if found != "varchar" and (found.endswith("]") or not found.startswith(PLAIN_TYPES)):
        # Lists, structs, times of day and the like: what their text says, or nothing.
        found, value = "varchar", f"cast({value} as varchar)"
    if column.data_type in ("timestamp", "date"):
        time = _cast_time(value, found, timezone if column.data_type == "timestamp" else None)
        return value, f"cast(case when {time} between {TIME_RANGE} then {time} end as {column.data_type})"
    if column.data_type == found:
        return value, value
    if found in ("double", "float"):
        # Nothing but a number is one: decimals know no NaN.
        return value, f"try_cast(case when isfinite({value}) then {value} end as {column.data_type})"
    return value, f"try_cast({value} as {column.data_type})"


def _cast_time(value: str, found: str, timezone: str | None) -> str:
    """SQL that turns a time of any kind into naive UTC; null where it is none."""

    def from_local(local: str) -> str:
        return f"timezone('UTC', timezone({literal(timezone)}, {local}))" if timezone else local

    if found.startswith("timestamp with") or found == "timestamptz":
        return f"timezone('UTC', {value})"
    if found.startswith(NUMBERS):
        number = f"cast({value} as double)"
        seconds = f"case when abs({number}) >= 100000000000 then {number} / 1000 else {number} end"
        return f"try(timezone('UTC', to_timestamp({seconds})))"
    if found.startswith(("timestamp", "date")):
        return from_local(f"try_cast({value} as timestamp)")
    return (
        f"case when regexp_matches({value}, {literal(OFFSET)}) then timezone('UTC', try_cast({value} as timestamptz)) "
        f"when regexp_matches({value}, {literal(EPOCH_SECONDS)}) "
        f"then timezone('UTC', to_timestamp(try_cast({value} as bigint))) "
        f"when regexp_matches({value}, {literal(EPOCH_MILLISECONDS)}) "
        f"then timezone('UTC', to_timestamp(try_cast({value} as bigint) / 1000.0)) "
        f"else {from_local(f'try_cast({value} as timestamp)')} end"
    )


def _text_times(table: Table, mapping: dict[str, Field]) -> list[str]:
    return [
        column.name
        for column in table.columns
        if column.data_type == "timestamp" and column.name in mapping and mapping[column.name].data_type == "varchar"
    ]


def _counts(
    con: duckdb.DuckDBPyConnection, table: Table, source: Source, mapping: dict[str, Field], options: FileOptions
) -> tuple[int, int]:
    """Rows read and rows that can be loaded.

    Raises:
        LcmError: when the file has no rows, when none can be loaded, or when times mix offsets and none.
    """
    times = _text_times(table, mapping)
    mixed = "".join(
        f", count(*) filter (offset_{name} and {name} is not null)"
        f", count(*) filter (not offset_{name} and {name} is not null)"
        for name in times
    )
    row = first_row(con, f"select count(*), count(*) filter (rule is null){mixed} from staged_rows")
    assert row is not None
    total, good, *offsets = row
    if total == 0:
        raise LcmError(f"{source.path} has no rows", "leave it out, or write it again")
    if good == 0:
        worst = first_row(con, "select rule, count(*) from staged_rows group by 1 order by 2 desc limit 1")
        example = first_row(con, "select original from staged_rows limit 1")
        column = worst[0].removeprefix("unreadable_") if worst else "?"
        raise LcmError(
            f"{source.path}: not one of {total:,} rows can be read as {table.name}; mostly {column} is no "
            f"{_type_of(table, column)}, e.g. {(example[0] if example else '')[:200]}",
            "check the columns' names and types, see --map",
        )
    if options.timezone is None:
        for name, with_offset, without in zip(times, offsets[::2], offsets[1::2], strict=True):
            if with_offset and without:
                raise LcmError(
                    f"{source.path}: {table.name}.{name} mixes {with_offset:,} times with an offset and {without:,} "
                    "without one",
                    "say where the ones without were taken: --timezone UTC, or the shop's zone",
                )
    return int(total), int(good)


def _type_of(table: Table, name: str) -> str:
    return next((column.data_type for column in table.columns if column.name == name), "JSON object with each key once")


def _insert(load: RawLoad, table: Table, path: Path, options: FileOptions) -> None:
    names = [column.name for column in table.columns if not column.lineage]
    lineage = [load.load_id, load.loaded_at, str(path)]
    staged = "(select * from staged_rows where rule is null)"
    selected = {name: name for name in names}
    if table.name == "events":
        staged, selected["event_id"] = _event_ids(load.con, names, options)
    load.con.execute(
        f"insert into {table.full_name} ({', '.join(names)}, load_id, loaded_at, source_file, source_row) "
        f"select {', '.join(selected[name] for name in names)}, ?, ?, ?, source_row from {staged} as readable_rows",
        lineage,
    )
    load.con.execute(
        "insert into raw.rejected_rows "
        "select ?, ?, ?, ?, source_row, rule, original from staged_rows where rule is not null",
        [load.load_id, load.loaded_at, table.name, str(path)],
    )
    load.con.execute("drop table staged_rows")


def _event_ids(con: duckdb.DuckDBPyConnection, names: list[str], options: FileOptions) -> tuple[str, str]:
    """The rows to insert and the SQL of their event_id.

    A file without ids gets them from the row's content and its ordinal among equal rows of the file: a basket may hold
    the same line twice, and a second export of the same rows, in a file of its own, gives the same ids again.
    """
    has_ids = first_row(con, "select 1 from staged_rows where event_id is not null limit 1") is not None
    if has_ids and not options.drop_identical:
        return "(select * from staged_rows where rule is null)", "event_id"
    content = ", ".join(f"cast({name} as varchar)" for name in names if name != "event_id")
    rows = f"(select *, md5(cast(to_json([{content}]) as varchar)) as content_hash from staged_rows where rule is null)"
    if options.drop_identical:
        first = (
            "first_value(event_id) over (partition by content_hash order by source_row)" if has_ids else "content_hash"
        )
        return f"(select *, {first} as shared_id from {rows})", "shared_id"
    ranked = f"(select *, row_number() over (partition by content_hash order by source_row) as ordinal from {rows})"
    return ranked, "case when ordinal = 1 then content_hash else concat(content_hash, '-', ordinal) end"
