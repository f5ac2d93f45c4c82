"""The files that may hold users: what lies beside the warehouse, what dbt left, and what was loaded."""

import gzip
import re
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import duckdb

from lcm_ml import project
from lcm_ml.live.inbox import DONE
from lcm_ml.privacy import keys
from lcm_ml.privacy.tables import MASK, Users, id_columns
from lcm_ml.sources.pseudonyms import Pseudonyms
from lcm_ml.warehouse.connection import first_row, table_exists
from lcm_ml.warehouse.sql import literal, quoted

Advance = Callable[[str, float], None]
CHUNK = 2**22
LONGEST = 2**10
"""Bytes that two chunks share, so that an id on their border is found."""

DATABASES = (".duckdb", ".db")
READERS = {
    ".parquet": "read_parquet({})",
    ".csv": "read_csv({}, header = true, all_varchar = true)",
    ".jsonl": "read_json({}, format = 'newline_delimited')",
    ".json": "read_json({}, format = 'array')",
}
PACKED = (".gz", ".zip", ".tar", ".tgz", ".zst", ".bz2", ".xz")
TEXTS = (".csv", ".json", ".jsonl", ".log", ".md", ".sql", ".txt", ".yml")
WRITERS = {
    ".parquet": "format parquet",
    ".csv": "format csv, header",
    ".jsonl": "format json",
    ".json": "format json, array true",
}
OWN = ("key", "pending.json")
"""What the privacy folder holds that names nobody, or goes at the end of a pass."""


@dataclass(frozen=True)
class Search:
    """Users to look for in files."""

    users: Users

    @property
    def con(self) -> duckdb.DuckDBPyConnection:
        """The connection that has the temporary table of the users."""
        return self.users.con

    def holds(self, path: Path) -> bool:
        """Whether a file holds one of the users.

        Tables (Parquet, CSV, JSON, DuckDB) are read: any id is found in a column of users. In other files, and in
        other columns, distinctive ids are found as whole words.
        """
        if self._is_named(path):
            return True
        if path.suffix in DATABASES and self._database_holds(path):
            return True
        if path.suffix == ".tar" and tarfile.is_tarfile(path) and self._archive_holds(path):
            return True
        if (condition := self._table_condition(path)) is not None:
            row = first_row(self.con, f"select 1 from {_relation(path)} where {condition} limit 1")
            if row is not None:
                return True
            if path.suffix == ".parquet":
                return False
        return self.bytes_hold(path)

    def bytes_hold(self, path: Path) -> bool:
        """Whether the bytes of a file, unpacked where it is packed, hold a distinctive id as a whole word."""
        expressions = [re.compile(pattern.encode()) for pattern in self.users.patterns]
        return bool(expressions) and any(_stream_holds(stream, expressions) for stream in _streams(path))

    def clean(self, path: Path) -> str:
        """Take the users out of a file that holds them.

        Returns:
            rewritten (a table, without their rows), masked (text), removed, or left: a database, a packed file or a
            model, whose loss could be worse than what it holds.
        """
        if path.suffix in (*DATABASES, *PACKED) or "artefacts" in path.parent.as_posix():
            return "left"
        fresh = path.with_name(f".{path.name}.fresh")
        is_named = self._is_named(path)
        if not is_named and self.rewrite(path, fresh):
            outcome = "rewritten"
        elif not is_named and path.suffix in TEXTS:
            content = path.read_bytes()
            for pattern in self.users.patterns:
                content = re.sub(pattern.encode(), MASK.encode(), content)
            fresh.write_bytes(content)
            fresh.chmod(path.stat().st_mode & 0o777)
            outcome = "masked"
        else:
            path.unlink()
            return "removed"
        fresh.replace(path)
        return outcome

    def _is_named(self, path: Path) -> bool:
        return any(re.search(pattern, path.name, re.ASCII) for pattern in self.users.patterns)

    def _database_holds(self, path: Path) -> bool:
        try:
            with duckdb.connect(str(path), read_only=True) as con:
                found = Users(con, self.users.ids, self.users.hashes)
                return bool(found.counts() or found.mentions())
        except duckdb.Error:
            return False

    def _archive_holds(self, path: Path) -> bool:
        """Whether a table in an archive, such as a backup, holds one of the users."""
        with tempfile.TemporaryDirectory(prefix=f".{path.stem}.", dir=path.parent) as folder, tarfile.open(path) as tar:
            for member in tar:
                content = tar.extractfile(member) if Path(member.name).suffix in (*DATABASES, *READERS) else None
                if content is None:
                    continue
                unpacked = Path(folder) / Path(member.name).name
                with unpacked.open("wb") as file:
                    shutil.copyfileobj(content, file, CHUNK)
                if self.holds(unpacked):
                    return True
                unpacked.unlink()
        return False

    def _table_condition(self, path: Path) -> str | None:
        """SQL for the rows of a file that hold the users; None where it cannot be read as a table."""
        if _kind(path) not in READERS:
            return None
        try:
            described = self.con.execute(f"describe select * from {_relation(path)}").fetchall()
        except duckdb.Error:
            return None
        texts = [name for name, data_type, *_ in described if data_type == "VARCHAR"]
        tests = [self.users.condition([name]) for name in id_columns(texts)]
        tests += [
            f"coalesce(regexp_matches({quoted(name)}, {literal(pattern)}), false)"
            for pattern in self.users.patterns
            for name in texts
            if name not in id_columns(texts)
        ]
        return " or ".join(tests) or "false"

    def rewrite(self, path: Path, fresh: Path) -> bool:
        """Write a table without the users' rows, and with their ids masked in other rows, to `fresh`.

        Returns:
            Whether the file is a table with a column of users, so that it could be done.
        """
        if path.suffix not in WRITERS or self._table_condition(path) is None:
            return False
        described = self.con.execute(f"describe select * from {_relation(path)}").fetchall()
        users = id_columns(name for name, data_type, *_ in described if data_type == "VARCHAR")
        if not users:
            return False
        masked = {
            name: quoted(name) for name, data_type, *_ in described if data_type == "VARCHAR" and name not in users
        }
        for pattern in self.users.patterns:
            for name, value in masked.items():
                masked[name] = f"regexp_replace({value}, {literal(pattern)}, {literal(MASK)}, 'g')"
        changed = ", ".join(f"{value} as {quoted(name)}" for name, value in masked.items() if value != quoted(name))
        selected = f"* replace ({changed})" if changed else "*"
        self.con.execute(
            f"copy (select {selected} from {_relation(path)} where not ({self.users.condition(users)})) "
            f"to {literal(str(fresh))} ({WRITERS[path.suffix]})"
        )
        fresh.chmod(0o600)
        return True


def _kind(path: Path) -> str:
    """The suffix that says what a file is, packed or not."""
    return path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix


def _relation(path: Path) -> str:
    return READERS[_kind(path)].format(literal(str(path)))


def _streams(path: Path) -> Iterator[IO[bytes] | gzip.GzipFile]:
    """The bytes of a file, unpacked where it is packed; nothing of what cannot be read."""
    with suppress(OSError, EOFError, tarfile.TarError, zipfile.BadZipFile):
        if tarfile.is_tarfile(path):
            with tarfile.open(path) as archive:
                for member in archive:
                    if (content := archive.extractfile(member)) is not None:
                        yield content
        elif zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    with archive.open(name) as unpacked:
                        yield unpacked
        elif path.suffix == ".gz":
            with gzip.open(path) as unzipped:
                yield unzipped
        else:
            with path.open("rb") as stream:
                yield stream


def _stream_holds(stream: IO[bytes] | gzip.GzipFile, expressions: list[re.Pattern[bytes]]) -> bool:
    kept = b""
    while chunk := stream.read(CHUNK):
        text = kept + chunk
        if any(expression.search(text) for expression in expressions):
            return True
        kept = text[-LONGEST:]
    return False


def beside() -> list[Path]:
    """Every file that belongs to this warehouse, but for the warehouse itself and the privacy folder's own."""
    warehouse = project.warehouse_path()
    found: set[Path] = set()
    for path in warehouse.parent.glob(f"{warehouse.stem}.*"):
        found.update([path] if path.is_file() else (inside for inside in path.rglob("*") if inside.is_file()))
    # Dotted names: a copy that a kill left half made.
    found.update(path for path in warehouse.parent.glob(f".{warehouse.stem}.*") if path.is_file())
    own = {warehouse, *(keys.folder() / name for name in OWN)}
    return sorted(path for path in found if path not in own and not path.is_symlink())


def of_dbt() -> list[Path]:
    """What dbt left in the project: compiled SQL and logs. All of it is made again."""
    folders = (project.root() / "target", project.root() / "logs")
    return sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())


def loaded(con: duckdb.DuckDBPyConnection) -> list[Path]:
    """The files that were loaded, as far as they are still there; of an inbox, where `lcm-ml watch` has put them."""
    if not table_exists(con, "raw", "load_files"):
        return []
    names = con.execute("select distinct source_file from raw.load_files order by 1").fetchall()
    paths = [Path(name) for (name,) in names]
    folders = {path.parent / DONE for path in paths}
    moved = [path for folder in sorted(folders) if folder.is_dir() for path in sorted(folder.iterdir())]
    return [path for path in [*paths, *moved] if path.is_file()]


def export_folder(hashes: Pseudonyms, user_id: str) -> Path:
    """Where `lcm-ml export-user` writes by default: its name does not give the user away, and forget finds it."""
    return project.beside_warehouse("exports") / f"user-{hashes.of(user_id)[:16]}"


def holding(search: Search, paths: Iterable[Path], advance: Advance, what: str) -> list[Path]:
    """Those of the files that hold the users."""
    listed = list(paths)
    found = []
    for done, path in enumerate(listed):
        advance(what, done / len(listed))
        if search.holds(path):
            found.append(path)
    return found
