"""Backups: the warehouse, the models and what is published, in one archive that can be verified.

The archive is a plain tar: a DuckDB file and Parquet are compressed already. Each file's SHA-256 and each table's row
count stand in manifest.json, its last member: an archive without one is not whole.
"""

import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import IO, Any

import duckdb

import lcm_ml
from lcm_ml import logs, project
from lcm_ml.errors import LcmError, UsageError
from lcm_ml.files import sync_folder
from lcm_ml.publishing.catalogue import current_id, publishing_lock
from lcm_ml.warehouse.connection import Notify, connect, layout_of, writer_lock
from lcm_ml.warehouse.sql import quoted

Advance = Callable[[str, float], None]
FORMAT = 1
MANIFEST = "manifest.json"
WAREHOUSE = "warehouse.duckdb"
WAL = f"{WAREHOUSE}.wal"
ARTEFACTS, PUBLISHED = "artefacts", "published"
CHUNK = 2**20
LARGEST_MANIFEST = 2**26
SPARE = 2**20
"""Bytes that must stay free beyond what is written."""


def backups_folder() -> Path:
    """Where backups go that name no other place: beside the warehouse."""
    return project.beside_warehouse("backups")


def back_up(
    target: Path | None, advance: Advance, notify: Notify, *, label: str = "", keep: int | None = None
) -> dict[str, Any]:
    """Write one archive of the warehouse, its models and the snapshot that readers see.

    Writers wait until it is done; readers of the warehouse and of what is published do not. It appears under its name
    when it is whole and on the disk.

    Args:
        target: the archive, or a folder for it; default: the backups folder beside the warehouse.
        advance: told how far it is.
        notify: told when another process has to be waited for.
        label: part of the name, where the target is a folder.
        keep: remove older archives of that folder but so many, this one included.

    Returns:
        path, bytes, files, tables, rows, snapshot_id, layout and removed.

    Raises:
        LcmError: when there is no warehouse, no space, or the target exists or cannot be written.
    """
    source = project.warehouse_path()
    path = _target(target, label)
    with writer_lock("lcm-ml backup", notify), publishing_lock("lcm-ml backup", notify) as published:
        snapshot_id = current_id(published)
        # The file is closed last: closing it would let go of the lock that DuckDB holds in this process.
        with _opened(source) as file, connect(read_only=True, notify=notify, any_layout=True) as con:
            about = {
                "format": FORMAT,
                "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
                "run_id": logs.run_id(),
                "lcm_version": lcm_ml.__version__,
                "duckdb_version": duckdb.__version__,
                "layout": layout_of(con),
                "warehouse": source.name,
                "snapshot_id": snapshot_id,
                "tables": row_counts(con),
            }
            parts: list[tuple[str, Path | IO[bytes]]] = [(WAREHOUSE, file)]
            # A job that was killed leaves its last writes here; they belong to the file.
            wal = source.with_name(f"{source.name}.wal")
            parts += [(WAL, wal)] if wal.exists() else []
            parts += _files(ARTEFACTS, project.beside_warehouse("artefacts"))
            if snapshot_id:
                parts += _files(f"{PUBLISHED}/{snapshot_id}", published / "snapshots" / snapshot_id)
            _make_folder(path.parent)
            manifest = _write(path, parts, about, advance)
    removed = _remove_older(path.parent, keep) if keep else []
    return {
        "path": path,
        "bytes": path.stat().st_size,
        "files": len(manifest["files"]),
        "tables": len(manifest["tables"]),
        "rows": sum(manifest["tables"].values()),
        "snapshot_id": snapshot_id,
        "layout": manifest["layout"],
        "removed": removed,
    }


def row_counts(con: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """The rows of every table of the warehouse."""
    names = con.execute(
        "select schema_name, table_name from duckdb_tables() "
        "where database_name = current_database() and not internal and not temporary order by 1, 2"
    ).fetchall()
    counts = {}
    for schema, name in names:
        found = con.execute(f"select count(*) from {quoted(schema)}.{quoted(name)}").fetchone()
        counts[f"{schema}.{name}"] = found[0] if found else 0
    return counts


def _target(target: Path | None, label: str) -> Path:
    stem = project.warehouse_path().stem
    name = "-".join(part for part in (stem, label, f"{datetime.now(UTC):%Y%m%dT%H%M%S}") if part) + ".tar"
    if target is None:
        return backups_folder() / name
    if target.is_dir() or not target.suffix:
        return target / name
    if target.exists():
        raise UsageError(f"{target} exists already", "name another file, or a folder")
    return target


def _opened(source: Path) -> IO[bytes]:
    if not source.exists():
        raise LcmError(f"there is no warehouse at {source}", "nothing to back up; LCM_WAREHOUSE names another one")
    return source.open("rb")


def _files(prefix: str, folder: Path) -> list[tuple[str, Path | IO[bytes]]]:
    """The regular files below a folder; what a killed job left half done (.name) is not taken."""
    return [
        (f"{prefix}/{path.relative_to(folder).as_posix()}", path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink() and not path.relative_to(folder).parts[0].startswith(".")
    ]


def _size(part: Path | IO[bytes]) -> int:
    return part.stat().st_size if isinstance(part, Path) else os.fstat(part.fileno()).st_size


def require_space(folder: Path, needed: int, what: str) -> None:
    """Refuse to begin what would fill the disk.

    Raises:
        LcmError: with what is needed and what is free.
    """
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE:
        raise LcmError(
            f"{what} needs {(needed + SPARE) / 2**20:,.0f} MiB in {folder}, {free / 2**20:,.0f} MiB are free",
            "free some space, or name another place",
        )


def _make_folder(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)


def _write(
    path: Path, parts: list[tuple[str, Path | IO[bytes]]], about: dict[str, Any], advance: Advance
) -> dict[str, Any]:
    total = sum(_size(part) for _, part in parts)
    require_space(path.parent, total + 1024 * (len(parts) + 20), "the backup")
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".unfinished", dir=path.parent)
    partial = Path(name)
    files: dict[str, dict[str, Any]] = {}
    done = 0
    try:
        with os.fdopen(handle, "wb") as out:
            with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
                for name, part in parts:
                    advance(name.partition("/")[0], done / max(total, 1))
                    with part.open("rb") if isinstance(part, Path) else nullcontext(part) as file:
                        reader = _Hashing(file)
                        _add(archive, name, reader, _size(part))
                    files[name] = {"sha256": reader.hash.hexdigest(), "bytes": _size(part)}
                    done += _size(part)
                manifest = about | {"files": files}
                content = json.dumps(manifest, indent=1).encode()
                _add(archive, MANIFEST, io.BytesIO(content), len(content))
            out.flush()
            os.fsync(out.fileno())
        partial.replace(path)
        sync_folder(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return manifest


def _add(archive: tarfile.TarFile, name: str, reader: "_Hashing | io.BytesIO", size: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o600
    archive.addfile(member, reader)


class _Hashing:
    """A file that is hashed while it is read."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.hash = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        chunk: bytes = self.file.read(size)
        self.hash.update(chunk)
        return chunk


def _remove_older(folder: Path, keep: int) -> list[Path]:
    """Only what is named as `back_up` names it; archives with a label (before an upgrade) stay."""
    stem = project.warehouse_path().stem
    stamped = f"{stem}-{'[0-9]' * 8}T{'[0-9]' * 6}.tar"
    old = sorted(folder.glob(stamped))[:-keep]
    for path in old:
        path.unlink()
    return old


def verify(path: Path, advance: Advance) -> dict[str, Any]:
    """Check every file of an archive against its checksum, open its warehouse and count every table.

    Returns:
        The manifest.

    Raises:
        LcmError: naming the file that is missing or changed, or the table whose rows differ.
    """
    with tempfile.TemporaryDirectory(
        prefix=".verify-", dir=path.parent if os.access(path.parent, os.W_OK) else None
    ) as folder:
        return unpack(path, Path(folder), advance)


def unpack(path: Path, folder: Path, advance: Advance) -> dict[str, Any]:
    """Write an archive's files into an empty folder, checked as in `verify`.

    Returns:
        The manifest.

    Raises:
        LcmError: as in `verify`, or when an archive holds what no backup has: links, or paths that lead out of it.
    """
    if not path.is_file():
        raise LcmError(f"there is no backup at {path}", f"backups are in {backups_folder()} unless you named a place")
    mend = "take another backup"
    try:
        with tarfile.open(path, "r:") as archive:
            members = _members(path, archive)
            manifest = _manifest(path, archive, members)
            total = sum(member.size for member in members.values())
            require_space(folder, total, "unpacking")
            done = 0
            for name, known in manifest["files"].items():
                advance(name.partition("/")[0], done / max(total, 1))
                if name not in members:
                    raise LcmError(f"{path}: {name} is missing", mend)
                if _extract(archive, members[name], folder / name) != known["sha256"]:
                    raise LcmError(f"{path}: {name} is damaged: its checksum differs", mend)
                done += members[name].size
    except tarfile.TarError as error:
        raise LcmError(f"{path} is damaged, or no backup: {error}", mend) from None
    if extra := set(members) - set(manifest["files"]) - {MANIFEST}:
        raise LcmError(f"{path}: {min(extra)} is not in its manifest", mend)
    advance("counting rows", 1.0)
    _compare_rows(path, folder, manifest)
    return manifest


def _members(path: Path, archive: tarfile.TarFile) -> dict[str, tarfile.TarInfo]:
    members = {}
    for member in archive.getmembers():
        name = PurePosixPath(member.name)
        if not member.isreg() or name.is_absolute() or ".." in name.parts or member.name != name.as_posix():
            raise LcmError(
                f"{path}: {member.name!r} is a link, or leads out of the archive: no backup has such", "do not trust it"
            )
        if member.name in members:
            raise LcmError(f"{path}: {member.name} is there twice", "do not trust it")
        members[member.name] = member
    return members


def _manifest(path: Path, archive: tarfile.TarFile, members: dict[str, tarfile.TarInfo]) -> dict[str, Any]:
    mend = "take another backup"
    if MANIFEST not in members or members[MANIFEST].size > LARGEST_MANIFEST:
        raise LcmError(f"{path} has no manifest: it is no backup, or was cut off", mend)
    file = archive.extractfile(members[MANIFEST])
    assert file is not None
    try:
        manifest: dict[str, Any] = json.loads(file.read())
        found = manifest["format"], manifest["files"][WAREHOUSE], manifest["tables"], Path(manifest["warehouse"]).name
    except (ValueError, KeyError, TypeError):
        raise LcmError(f"{path}: its manifest is damaged", mend) from None
    if found[0] != FORMAT or found[3] != manifest["warehouse"]:
        raise LcmError(
            f"{path} was made by a newer version of lcm-ml", "upgrade this checkout (git pull, then make setup)"
        )
    return manifest


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> str:
    """Write a member to a new file; its SHA-256."""
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    source = archive.extractfile(member)
    assert source is not None
    reader = _Hashing(source)
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        shutil.copyfileobj(reader, out, CHUNK)
        out.flush()
        os.fsync(out.fileno())
    return reader.hash.hexdigest()


def _compare_rows(path: Path, folder: Path, manifest: dict[str, Any]) -> None:
    try:
        with duckdb.connect(str(folder / WAREHOUSE), read_only=True) as con:
            found = row_counts(con)
    except duckdb.Error as error:
        raise LcmError(f"{path}: its warehouse cannot be opened: {error}", "take another backup") from None
    for name in manifest["tables"].keys() | found.keys():
        if manifest["tables"].get(name) != found.get(name):
            counted, noted = found.get(name, "no"), manifest["tables"].get(name, "no")
            raise LcmError(
                f"{path}: {name} has {counted} rows, its manifest says {noted}",
                "take another backup",
            )
