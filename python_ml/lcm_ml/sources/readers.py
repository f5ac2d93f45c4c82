"""Files as relations: one SQL expression per format, with the file's column names, types and row numbers."""

import codecs
import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

from lcm_ml.errors import LcmError
from lcm_ml.warehouse.sql import literal

FORMATS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
}
MAX_LINE_BYTES = 64 * 2**20
MAX_HEADER_BYTES = 2**20
ROW_NUMBER = "lcm_source_row"


@dataclass(frozen=True)
class Field:
    """A column of a file: its name as the file has it, its DuckDB type, and the SQL of its value.

    The SQL never holds the name as an identifier: names may be empty, repeated, or any text at all.
    """

    name: str
    data_type: str
    sql: str


@dataclass(frozen=True)
class Source:
    """A readable file.

    Attributes:
        path: the file.
        relation: SQL that gives its rows, with the row's number from 1 in the column ROW_NUMBER.
        fields: its columns, in order; for JSON all are text.
        malformed: SQL that is true for a row which is none, as for a number among JSON objects.
    """

    path: Path
    relation: str
    fields: tuple[Field, ...]
    malformed: str = ""

    def field(self, name: str) -> Field | None:
        """The column of this very name."""
        return next((field for field in self.fields if field.name == name), None)

    def like(self, name: str) -> list[str]:
        """The columns of this name, whatever their case."""
        return [field.name for field in self.fields if field.name.lower() == name.lower()]

    @property
    def original(self) -> str:
        """SQL for the whole row as JSON text."""
        if self.malformed:
            return "cast(json as varchar)"
        pairs = ", ".join(f"{literal(field.name)}, cast({field.sql} as varchar)" for field in self.fields)
        return f"cast(json_object({pairs}) as varchar)"


def format_of(path: Path) -> str:
    """parquet, csv or json, by the file's name.

    Raises:
        LcmError: for any other.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    if not suffixes or suffixes[-1] not in FORMATS:
        raise LcmError(
            f"{path}: cannot tell its format from its name",
            "name it .parquet, .csv, .csv.gz, .jsonl or .jsonl.gz",
        )
    return FORMATS[suffixes[-1]]


def open_source(con: duckdb.DuckDBPyConnection, path: Path) -> Source:
    """Look at a file: its format, columns and types.

    Raises:
        LcmError: when it is missing, no file, empty, or not of its format.
    """
    if not path.exists():
        raise LcmError(f"{path} does not exist", "check the path")
    if path.is_dir():
        raise LcmError(f"{path} is a folder, not a file", f"name the files, e.g. '{path}/*.parquet'")
    if not path.is_file():
        raise LcmError(f"{path} is a pipe or a device, not a file", "write its content to a file, and load that")
    kind = format_of(path)
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise LcmError(f"{path} cannot be read: {error.strerror}", "check its permissions") from None
    if not start:
        raise LcmError(f"{path} is empty: it has no bytes", "leave it out, or write it again")
    with reading(path):
        opened = {"parquet": _parquet, "csv": _csv, "json": _json}[kind](con, path)
    if not opened.fields:
        raise LcmError(f"{path} has no columns", "check that it is the right file")
    return opened


def check_compressed(path: Path) -> None:
    """Read a .gz file to its end, where the checksum is: DuckDB does not look at it.

    Raises:
        LcmError: when it is broken.
    """
    if not _is_gzip(path):
        return
    try:
        with gzip.open(path) as file:
            while file.read(2**20):
                pass
    except (OSError, EOFError, zlib.error) as error:
        raise LcmError(
            f"{path} is a broken .gz: {error}; nothing was changed", "write it again, or leave it out"
        ) from None


def _is_gzip(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


def _parquet(con: duckdb.DuckDBPyConnection, path: Path) -> Source:
    reader = f"read_parquet({_reader_path(path)}"
    types = [row[1].lower() for row in con.execute(f"describe from {reader})").fetchall()]
    names = _top_level(
        con.execute(f"select name, num_children from parquet_schema({literal(_no_glob(path))})").fetchall()
    )
    fields = tuple(
        Field(name, data_type, f"c{place}") for place, (name, data_type) in enumerate(zip(names, types, strict=True))
    )
    aliases = ", ".join([field.sql for field in fields] + ["file_row"])
    relation = (
        f"(select * exclude (file_row), file_row + 1 as {ROW_NUMBER} "
        f"from {reader}, file_row_number = true) as file ({aliases}))"
    )
    return Source(path, relation, fields)


def _top_level(schema: list[tuple[str, int | None]]) -> list[str]:
    """Names of a Parquet file's own columns; its schema lists each node before its children, the root first."""
    names: list[str] = []
    inner = 0
    for name, children in schema[1:]:
        if inner == 0:
            names.append(name)
        else:
            inner -= 1
        inner += children or 0
    return names


def _csv(_con: duckdb.DuckDBPyConnection, path: Path) -> Source:
    # Given rather than guessed: a guess would skip a line of notes, a header that is too short or lines with a #
    # without a word, and a broken row further down would make another separator look right.
    separator, names = _header(path)
    fields = tuple(Field(name, "varchar", f"c{place}") for place, name in enumerate(names))
    columns = ", ".join(f"{field.sql}: 'varchar'" for field in fields)
    reader = (
        f"read_csv({_reader_path(path)}, auto_detect = false, columns = {{{columns}}}, header = true, "
        f"strict_mode = true, delim = {literal(separator)}, quote = '\"', escape = '\"', comment = '', "
        f"compression = '{'gzip' if _is_gzip(path) else 'none'}', "
        f"max_line_size = {MAX_LINE_BYTES}, buffer_size = {2 * MAX_LINE_BYTES})"
    )
    return Source(path, f"(select *, row_number() over () as {ROW_NUMBER} from {reader})", fields)


def _header(path: Path) -> tuple[str, list[str]]:
    """The separator, which is what the header has most of outside of quotes, and the names in the header."""
    mend = "save it as CSV in UTF-8, with the columns' names in its first line"
    try:
        with gzip.open(path) if _is_gzip(path) else path.open("rb") as file:
            start = file.read(MAX_HEADER_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise LcmError(f"{path} cannot be read: {error}", "write it again, or leave it out") from None
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise LcmError(f"{path} cannot be read as csv: it is UTF-16; nothing was changed", mend)
    try:
        # A character may be cut where the part that was read ends.
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(start)
    except UnicodeDecodeError as error:
        raise LcmError(
            f"{path} cannot be read as csv: it is not UTF-8 ({error.reason}); nothing was changed", mend
        ) from None
    plain = re.sub(r'"[^"]*"', "", re.split(r"[\r\n]", text, maxsplit=1)[0])
    separator = max(",;\t|", key=plain.count)
    try:
        names = next(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True), [])
    except csv.Error as error:
        raise LcmError(
            f"{path} cannot be read as csv: its header is broken: {error}; nothing was changed", mend
        ) from None
    if not any(name.strip() for name in names):
        raise LcmError(f"{path} cannot be read as csv: its first line is empty; nothing was changed", mend)
    if broken := [name for name in names if re.search(r"[\r\n]", name)]:
        # DuckDB would take the rest of such a name for the header's end, and lose the first row.
        raise LcmError(
            f"{path} cannot be read as csv: the name {broken[0]!r} breaks off in its middle; nothing was changed",
            "write each name in one line",
        )
    return separator, names


def _json(con: duckdb.DuckDBPyConnection, path: Path) -> Source:
    reader = (
        f"read_json_objects({_reader_path(path)}, format = 'auto', maximum_object_size = {MAX_LINE_BYTES}, "
        f"compression = '{'gzip' if _is_gzip(path) else 'none'}')"
    )
    # All rows are looked at: a key that only a late row has is a column too.
    keys = con.execute(f"select distinct unnest(json_keys(json)) from {reader}").fetchall()
    fields = tuple(Field(key, "varchar", f"json_extract_string(json, {_pointer(key)})") for (key,) in sorted(keys))
    # An object with a key twice has a value that no column can take.
    keys_of_row = "json_keys(json)"
    malformed = f"json_type(json) != 'OBJECT' or len({keys_of_row}) > len(list_distinct({keys_of_row}))"
    relation = f"(select json, row_number() over () as {ROW_NUMBER} from {reader})"
    return Source(path, relation, fields, malformed)


def _pointer(key: str) -> str:
    """A key as a JSON pointer, which knows no wildcards."""
    return literal("/" + key.replace("~", "~0").replace("/", "~1"))


def _reader_path(path: Path) -> str:
    """What all readers take first: the file, and that folders called a=b are no columns."""
    return f"{literal(_no_glob(path))}, hive_partitioning = false"


def _no_glob(path: Path) -> str:
    """The path for DuckDB, which would take *, ? and [ in it for a pattern."""
    return re.sub(r"([*?\[])", r"[\1]", str(path.absolute()))


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Say which file it was when DuckDB cannot read one.

    Raises:
        LcmError: naming the file and what is wrong with it.
    """
    try:
        yield
    except duckdb.OutOfMemoryException:
        raise
    except (duckdb.Error, UnicodeDecodeError) as error:
        if any(told in str(error) for told in ("No space left", "Could not write", "Interrupted")):
            raise
        raise LcmError(
            f"{path} cannot be read as {format_of(path)}: {_reason(str(error))}; nothing was changed",
            "mend or leave out this file, then load again",
        ) from None


def _reason(text: str) -> str:
    """What DuckDB says is wrong, without its advice on options and its own SQL."""
    lines = [line.strip()[:150] for line in text.splitlines() if line.strip()]
    end = next((place for place, line in enumerate(lines) if line.startswith(("Possible", "LINE ", "^"))), len(lines))
    first, *more = lines[:end][:3] or ["no reason given"]
    return f"{first} ({'; '.join(more)})" if more else first
