"""Files as relations: one SQL expression per format, with the file's column names, types and row numbers."""

import gzip
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

from lcm_ml.errors import LcmError

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
ROW_NUMBER = "lcm_source_row"


def quoted(name: str) -> str:
    """A name as an SQL identifier, whatever characters it has."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


@dataclass(frozen=True)
class Source:
    """A readable file.

    Attributes:
        path: the file.
        relation: SQL that gives its rows, with the row's number from 1 in the column ROW_NUMBER.
        columns: column name to DuckDB type; for JSON all are text.
        is_json: values come from a column `json` by name.
    """

    path: Path
    relation: str
    columns: dict[str, str]
    is_json: bool = False

    def value(self, column: str) -> str:
        """SQL for a column's value."""
        if self.is_json:
            escaped = column.replace("\\", "\\\\").replace('"', '\\"')
            return "json_extract_string(json, " + literal('$."' + escaped + '"') + ")"
        return quoted(column)

    @property
    def original(self) -> str:
        """SQL for the whole row as JSON text."""
        if self.is_json:
            return "cast(json as varchar)"
        fields = ", ".join(f"{quoted(name)} := cast({quoted(name)} as varchar)" for name in self.columns)
        return f"cast(to_json(struct_pack({fields})) as varchar)"


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
    if not path.is_file():
        raise LcmError(f"{path} is a folder, not a file", f"name the files, e.g. '{path}/*.parquet'")
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
    if not opened.columns:
        raise LcmError(f"{path} has no columns", "check that it is the right file")
    return opened


def _describe(con: duckdb.DuckDBPyConnection, relation: str) -> dict[str, str]:
    return {name: data_type.lower() for name, data_type, *_ in con.execute(f"describe from {relation}").fetchall()}


def _parquet(con: duckdb.DuckDBPyConnection, path: Path) -> Source:
    name = literal(_no_glob(path))
    columns = _describe(con, f"read_parquet({name})")
    relation = (
        f"(select * exclude (file_row_number), file_row_number + 1 as {ROW_NUMBER} "
        f"from read_parquet({name}, file_row_number = true))"
    )
    return Source(path, relation, columns)


def _csv(con: duckdb.DuckDBPyConnection, path: Path) -> Source:
    # Given rather than guessed: a broken row further down must not make another separator look right.
    reader = (
        f"read_csv({literal(_no_glob(path))}, all_varchar = true, header = true, strict_mode = true, "
        f"delim = {literal(_separator(path))}, quote = '\"', escape = '\"', "
        f"max_line_size = {MAX_LINE_BYTES}, buffer_size = {2 * MAX_LINE_BYTES})"
    )
    columns = _describe(con, reader)
    return Source(path, f"(select *, row_number() over () as {ROW_NUMBER} from {reader})", columns)


def _separator(path: Path) -> str:
    """The separator that the header has most of, outside of quotes."""
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            header = file.readline(MAX_LINE_BYTES).decode("utf-8", errors="replace")
    except (OSError, EOFError, zlib.error) as error:
        raise LcmError(f"{path} cannot be read: {error}", "write it again, or leave it out") from None
    plain = re.sub(r'"[^"]*"', "", header)
    return max(",;\t|", key=plain.count)


def _json(con: duckdb.DuckDBPyConnection, path: Path) -> Source:
    reader = f"read_json_objects({literal(_no_glob(path))}, format = 'auto', maximum_object_size = {MAX_LINE_BYTES})"
    keys = con.execute(f"select distinct unnest(json_keys(json)) from (from {reader} limit 10000)").fetchall()
    relation = f"(select json, row_number() over () as {ROW_NUMBER} from {reader})"
    return Source(path, relation, dict.fromkeys(sorted(key for (key,) in keys), "varchar"), is_json=True)


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
    except (
        duckdb.InvalidInputException,
        duckdb.ConversionException,
        duckdb.IOException,
        duckdb.BinderException,
    ) as error:
        text = str(error)
        if "No space left" in text or "Could not write" in text:
            raise
        raise LcmError(
            f"{path} cannot be read as {format_of(path)}: {_reason(text)}; nothing was changed",
            "mend or leave out this file, then load again",
        ) from None
    except (
        duckdb.SerializationException,
        duckdb.InternalException,
        duckdb.NotImplementedException,
        UnicodeDecodeError,
    ) as error:
        raise LcmError(
            f"{path} cannot be read as {format_of(path)}: {_reason(str(error))}; nothing was changed",
            "mend or leave out this file, then load again",
        ) from None


def _reason(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return "no reason given"
    said = lines[0]
    at_line = next((line for line in lines if "line" in line.lower() and line != said), "")
    return (said if not at_line else f"{said} ({at_line})")[:400]
