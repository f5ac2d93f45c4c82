"""The checks of `lcm-ml doctor`: each says what it found, and how to mend what is wrong."""

import importlib.metadata
import os
import shutil
import sys
from collections.abc import Callable
from typing import Any

import duckdb

from lcm_ml import project
from lcm_ml.errors import LcmError
from lcm_ml.warehouse import contracts, state
from lcm_ml.warehouse.connection import connect, first_row, table_exists

TESTED_VERSIONS = {"dbt-core": "1.11", "dbt-duckdb": "1.11", "duckdb": "2.0", "polars": "2", "scikit-learn": "1.9"}
LOW_DISK_GIB = 2


def _check(name: str, detail: str, status: str = "ok", mend: str = "") -> dict[str, Any]:
    return {"check": name, "status": status, "detail": detail, "mend": mend}


def run() -> list[dict[str, Any]]:
    """Run all checks. Each result has check, status (ok, note, failed), detail and mend."""
    results = [_python(), *_versions(), _file_access(), _disk(), _leftovers()]
    results.extend(_inside_warehouse())
    return results


def _python() -> dict[str, Any]:
    return _check("python", ".".join(map(str, sys.version_info[:3])))


def _versions() -> list[dict[str, Any]]:
    results = []
    for package, tested in TESTED_VERSIONS.items():
        try:
            found = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            results.append(_check(package, "not installed", "failed", "make setup"))
            continue
        if (found + ".").startswith(tested + "."):
            results.append(_check(package, found))
        else:
            results.append(
                _check(package, f"{found}, tested with {tested}", "note", "make setup installs the tested one")
            )
    return results


def _file_access() -> dict[str, Any]:
    path = project.warehouse_path()
    folder = path.parent
    if path.exists():
        if not os.access(path, os.R_OK | os.W_OK):
            return _check("file access", f"{path} cannot be read and written", "failed", f"chmod u+rw '{path}'")
        if path.stat().st_mode & 0o077:
            return _check("file access", f"{path} can be read by others", "note", f"chmod go= '{path}'")
        return _check("file access", f"{path}, {path.stat().st_size / 2**20:,.0f} MiB")
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK):
        return _check("file access", f"{folder} cannot be written", "failed", "set LCM_WAREHOUSE to another path")
    return _check("file access", f"{path} does not exist yet and can be created")


def _disk() -> dict[str, Any]:
    folder = project.warehouse_path().parent
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 2**30
    if free < LOW_DISK_GIB:
        return _check("disk", f"{free:.1f} GiB free in {folder}", "failed", "free some space")
    return _check("disk", f"{free:.0f} GiB free")


def _leftovers() -> dict[str, Any]:
    unfinished = list((project.beside_warehouse("published") / "snapshots").glob(".*.unfinished"))
    if unfinished:
        return _check("leftovers", f"{len(unfinished)} unfinished snapshots", "note", "the next publish removes them")
    return _check("leftovers", "none")


def _inside_warehouse() -> list[dict[str, Any]]:
    if not project.warehouse_path().exists():
        return [_check("warehouse", "nothing built yet", "note", "lcm-ml run")]
    try:
        with connect(read_only=True) as con:
            inside: list[Callable[[duckdb.DuckDBPyConnection], dict[str, Any]]] = [_build, _contracts, _artefacts]
            return [_check("lock", "free"), *(check(con) for check in inside)]
    except LcmError as error:
        return [_check("warehouse", error.message, "failed", error.next_step)]


def _build(con: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    try:
        build = state.require_built(con)
    except LcmError as error:
        return _check("build", error.message, "failed", error.next_step)
    return _check("build", f"{build['started_at']:%Y-%m-%d %H:%M} UTC, from {build['source_mode']}")


def _contracts(con: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    wrong = []
    for schema in ("raw", "ml"):
        for table in contracts.tables(schema).values():
            if not table_exists(con, schema, table.name):
                continue
            found = con.execute(f"describe {table.full_name}").fetchall()
            have = {name: data_type.lower().replace(" ", "") for name, data_type, *_ in found}
            wrong += [
                f"{table.full_name}.{column.name}"
                for column in table.columns
                if have.get(column.name) != column.data_type.replace(" ", "")
            ]
    if wrong:
        mend = "this table was made by another version: back the file up, and load and build into a new one"
        return _check("contracts", f"columns that differ: {', '.join(wrong)}", "failed", mend)
    return _check("contracts", "raw and ml tables are as described")


def _artefacts(con: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    if not table_exists(con, "ml", "model_versions"):
        return _check("model", "none yet", "note", "lcm-ml fit")
    row = first_row(con, "select artefact from ml.model_versions where status = 'champion'")
    if row is None:
        return _check("model", "no champion yet", "note", "lcm-ml fit")
    folder = project.beside_warehouse("artefacts") / row[0]
    if not folder.is_dir():
        return _check("model", f"the champion's files are gone: {folder}", "failed", "lcm-ml fit")
    return _check("model", f"champion {row[0]}")
