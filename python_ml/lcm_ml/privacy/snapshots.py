"""Rewrite published snapshots without some users: a reader of any file sees it before or after, never in between."""

from datetime import UTC, datetime
from pathlib import Path

from lcm_ml.errors import LcmError
from lcm_ml.privacy.places import Advance, Search
from lcm_ml.publishing import catalogue, manifest
from lcm_ml.warehouse.connection import first_row

FRESH = ".fresh"


def rewrite(search: Search, published: Path, advance: Advance) -> list[str]:
    """Take the users out of every snapshot, with checksums and row counts renewed and `rewritten_at` in its manifest.

    All new files are written beside the old ones first, the new manifest last: once that is there, a pass that was
    killed is finished by the next one; before, it leaves nothing but files that are removed.

    Returns:
        The snapshots that changed.
    """
    folders = catalogue.snapshot_folders(published)
    changed = []
    for done, folder in enumerate(folders):
        advance("snapshots", done / len(folders))
        if _finish(folder) | _rewrite_one(search, folder):
            changed.append(folder.name)
    return changed


def _rewrite_one(search: Search, folder: Path) -> bool:
    held = [path for path in sorted(folder.glob("*.parquet")) if search.holds(path)]
    if not held:
        return False
    try:
        written = manifest.read(folder)
    except LcmError:
        written = {"snapshot_id": folder.name, "relations": {}}
    for path in held:
        fresh = path.with_name(f".{path.name}{FRESH}")
        if not search.rewrite(path, fresh):
            raise LcmError(
                f"{path} names a forgotten user outside a column of users",
                f"remove the snapshot: rm -r '{folder}', then run it again",
            )
        row = first_row(search.con, "select count(*) from read_parquet(?)", [str(fresh)])
        relation = written["relations"].setdefault(path.stem, {})
        relation |= {"rows": row[0] if row else 0, "sha256": manifest.digest(fresh)}
    written["rewritten_at"] = datetime.now(UTC).isoformat(timespec="seconds")
    unfinished = f".{manifest.NAME}.unfinished"
    manifest.write(folder, written, unfinished)
    (folder / unfinished).replace(folder / f".{manifest.NAME}{FRESH}")
    return _finish(folder)


def _finish(folder: Path) -> bool:
    """Put what was written whole in its place; remove what was not."""
    plan = folder / f".{manifest.NAME}{FRESH}"
    is_whole = plan.exists()
    for fresh in folder.glob(f".*.parquet{FRESH}"):
        if is_whole:
            fresh.replace(folder / fresh.name.removeprefix(".").removesuffix(FRESH))
        else:
            fresh.unlink()
    if is_whole:
        plan.replace(folder / manifest.NAME)
    return is_whole
