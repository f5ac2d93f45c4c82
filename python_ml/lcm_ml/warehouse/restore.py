"""Put a backup back: everything is checked beside the warehouse first, then one rename makes it the warehouse."""

import filecmp
import json
import os
import shutil
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lcm_ml import project
from lcm_ml.errors import LcmError, LockedError
from lcm_ml.files import sync_folder
from lcm_ml.publishing import catalogue
from lcm_ml.publishing import manifest as publishing_manifest
from lcm_ml.warehouse.backup import ARTEFACTS, PUBLISHED, WAL, WAREHOUSE, Advance, unpack
from lcm_ml.warehouse.connection import WAREHOUSE_VERSION, Notify, connect, writer_lock

NOTE = "restore.json"


def restore(path: Path, advance: Advance, notify: Notify) -> dict[str, Any]:
    """Make a backup the warehouse again, with its models and its published snapshot.

    Model folders are added, which harms nobody, before the warehouse's file is swapped in one rename; then readers are
    given the snapshot by the swap of a publish. So a restore that is killed leaves the old warehouse or the new one;
    the next command that writes says which, and finishes it.

    Args:
        path: the archive.
        advance: told how far it is.
        notify: told when another process has to be waited for.

    Returns:
        made_at, layout, rows and snapshot_id of the backup; kept: where the state before is, None where there was
        none; notes: what to do now.

    Raises:
        LcmError: when the archive is damaged, not to be trusted, or of a newer version, when there is no space, or when
            another process has the warehouse open; the warehouse is as it was then.
    """
    warehouse = project.warehouse_path()
    with (
        writer_lock("lcm-ml restore", notify),
        catalogue.publishing_lock("lcm-ml restore", notify) as published,
    ):
        staged = _staged()
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(mode=0o700)
        try:
            manifest = unpack(path, staged, advance)
            if (manifest["layout"] or 0) > WAREHOUSE_VERSION:
                raise LcmError(
                    f"{path} has layout version {manifest['layout']}, newer than the {WAREHOUSE_VERSION} that this "
                    "lcm-ml knows",
                    "upgrade this checkout (git pull, then make setup)",
                )
            note = {"backup": str(path.absolute()), "snapshot_id": manifest["snapshot_id"]}
            (staged / NOTE).write_text(json.dumps(note), encoding="utf-8")
            _add_folders(staged / ARTEFACTS, project.beside_warehouse(ARTEFACTS))
            if manifest["snapshot_id"]:
                _add_folders(staged / PUBLISHED, published / "snapshots")
            kept = _swap(staged, warehouse, notify)
            _activate(published, manifest["snapshot_id"])
        finally:
            # A killed process leaves it, for `finish`.
            shutil.rmtree(staged, ignore_errors=True)
    return {
        "backup": path,
        "made_at": manifest["made_at"],
        "layout": manifest["layout"],
        "tables": len(manifest["tables"]),
        "rows": sum(manifest["tables"].values()),
        "snapshot_id": manifest["snapshot_id"],
        "kept": kept,
        "notes": _notes(manifest, warehouse),
    }


def _staged() -> Path:
    return project.beside_warehouse("restore")


def _add_folders(source: Path, target: Path) -> None:
    """Move folders of the backup to where they belong; one that is there and differs gives way."""
    if not source.is_dir():
        return
    target.mkdir(parents=True, exist_ok=True, mode=0o700)
    for folder in sorted(source.iterdir()):
        place = target / folder.name
        if place.exists():
            # Names are never used twice: it is the same one, unless somebody changed it.
            if _same(folder, place):
                continue
            aside = target / f".{folder.name}.unfinished"
            shutil.rmtree(aside, ignore_errors=True)
            place.replace(aside)
            folder.replace(place)
            shutil.rmtree(aside, ignore_errors=True)
        else:
            folder.replace(place)
    sync_folder(target)


def _same(folder: Path, other: Path) -> bool:
    files = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    return all((other / name).is_file() and filecmp.cmp(folder / name, other / name, shallow=False) for name in files)


def _swap(staged: Path, warehouse: Path, notify: Notify) -> Path | None:
    """Put the staged file in the warehouse's place, by one rename; what was there keeps another name."""
    fresh = staged / WAREHOUSE
    if (staged / WAL).exists():
        _fold_in_wal(fresh)
    if not warehouse.exists():
        fresh.replace(warehouse)
        sync_folder(warehouse.parent)
        return None
    kept = warehouse.with_name(f"{warehouse.stem}.before-restore-{datetime.now(UTC):%Y%m%dT%H%M%S}.duckdb")
    try:
        # Held while it is swapped: nobody has it open, and its last writes are in the file.
        with connect(notify=notify, any_layout=True) as con:
            con.execute("checkpoint")
            _replace(fresh, warehouse, kept)
    except LockedError:
        raise
    except LcmError:
        # It cannot be opened: that may be why it is replaced.
        if fresh.exists():
            wal = warehouse.with_name(f"{warehouse.name}.wal")
            if wal.exists():
                wal.replace(kept.with_name(f"{kept.name}.wal"))
            _replace(fresh, warehouse, kept)
    return kept


def _fold_in_wal(path: Path) -> None:
    import duckdb

    with duckdb.connect(str(path)) as con:
        con.execute("checkpoint")


def _replace(fresh: Path, warehouse: Path, kept: Path) -> None:
    try:
        os.link(warehouse, kept)
    except OSError:
        # A file system without links: for a moment there is no warehouse, and the old one under its new name.
        warehouse.replace(kept)
    fresh.replace(warehouse)
    sync_folder(warehouse.parent)


def _activate(published: Path, snapshot_id: str | None) -> None:
    if snapshot_id:
        relations = publishing_manifest.check(published / "snapshots" / snapshot_id)["relations"]
        catalogue.activate(published, snapshot_id, relations)


def _notes(manifest: dict[str, Any], warehouse: Path) -> list[str]:
    notes = ["users that were forgotten after the backup are in it again: `lcm-ml forget` them once more"]
    if manifest["warehouse"] != warehouse.name:
        notes.append(f"the backup is of {manifest['warehouse']}, whose views name it: run `dbt build` first of all")
    if (manifest["layout"] or WAREHOUSE_VERSION) < WAREHOUSE_VERSION:
        notes.append("it is of an earlier version: `lcm-ml upgrade` (or `lcm-ml run`) brings it along")
    if not manifest["snapshot_id"]:
        notes.append("nothing was published when it was made: readers see what they saw; `lcm-ml publish` renews it")
    return notes


def finish(notify: Notify) -> None:
    """Say how a restore that was killed ended, and finish it. Call it with the writer lock held."""
    staged = _staged()
    note: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        note = json.loads((staged / NOTE).read_text(encoding="utf-8"))
    named = note.get("backup", "a backup")
    if (staged / WAREHOUSE).exists() or not note:
        notify(f"the restore of {named} was cut short: the warehouse is the one from before it; restore it again")
    else:
        with catalogue.publishing_lock("lcm-ml restore", notify) as published:
            _activate(published, note["snapshot_id"])
        notify(f"the restore of {named} was cut short after the swap: the warehouse is the backup's now")
    shutil.rmtree(staged, ignore_errors=True)
