"""The snapshots that are kept: which one readers see, and how another comes to be it."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lcm_ml import project
from lcm_ml.errors import LcmError
from lcm_ml.files import sync_folder
from lcm_ml.publishing import manifest, views
from lcm_ml.warehouse.connection import writer_lock

Notify = Callable[[str], None]


def published_folder() -> Path:
    """Where the snapshots lie: beside the warehouse."""
    return project.beside_warehouse("published")


@contextmanager
def publishing_lock(command: str, notify: Notify) -> Iterator[Path]:
    """Hold the published folder, so that two swaps never interleave; a job in the warehouse does not matter.

    Who needs the warehouse's writer lock too takes that one first.

    Yields:
        The published folder.

    Raises:
        LcmError: when another process holds it for too long.
    """
    folder = published_folder()
    with writer_lock(command, notify, folder):
        yield folder


def snapshot_folders(published: Path) -> list[Path]:
    """The folders of all complete snapshots, oldest first."""
    snapshots = published / "snapshots"
    if not snapshots.is_dir():
        return []
    return sorted(path for path in snapshots.iterdir() if path.is_dir() and not path.name.startswith("."))


def current_id(published: Path) -> str | None:
    """The snapshot that readers see, or None before the first publish."""
    link = published / "current"
    return link.readlink().name if link.is_symlink() else None


def current_folder(published: Path) -> Path | None:
    """The folder of the snapshot that readers see, or None before the first publish."""
    current = current_id(published)
    return published / "snapshots" / current if current else None


def current_manifest() -> dict[str, Any] | None:
    """The manifest of the snapshot that readers see, or None before the first publish.

    Raises:
        LcmError: when it cannot be read.
    """
    folder = published_folder()
    return manifest.read(folder / "current") if current_id(folder) else None


def activate(published: Path, snapshot_id: str, relations: dict[str, Any]) -> None:
    """Let readers see this snapshot: one rename swaps all of its tables.

    The views fit what `current` is at any moment: they change before the swap where they ask for no more than the
    old snapshot has, and after it where the new one has more.

    Raises:
        LcmError: when the views cannot be written.
        OSError: when a file cannot be written.
    """
    snapshot = published / "snapshots" / snapshot_id
    if not (snapshot / views.STAMPS).exists():
        # Of an earlier lcm; open connections may ask for them.
        views.write_stamps(snapshot, snapshot_id, {})
    views.write_schemas(published, snapshot, relations)
    sync_folder(snapshot)
    sync_folder(snapshot.parent)
    has_more = False
    if not _has_views_of(published, relations):
        try:
            views.write_views(published, relations)
        except LcmError:
            has_more = True
    fresh = published / ".current.fresh"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(Path("snapshots") / snapshot_id)
    fresh.replace(published / "current")
    sync_folder(published)
    if has_more:
        views.write_views(published, relations)


def _has_views_of(published: Path, relations: dict[str, Any]) -> bool:
    """Whether the views are those of these relations already, as the current snapshot's manifest tells."""

    def shape(known: dict[str, Any]) -> dict[str, Any]:
        return {
            name: (
                relation["columns"],
                relation.get("description"),
                relation.get("descriptions"),
                "written_in" in relation,
                relation.get("schema_file"),
            )
            for name, relation in known.items()
        }

    current = current_folder(published)
    if current is None or not views.are_of(published):
        return False
    try:
        return shape(manifest.read(current)["relations"]) == shape(relations)
    except LcmError:
        return False


def list_snapshots() -> list[dict[str, Any]]:
    """The kept snapshots, newest first.

    Returns:
        Of each snapshot_id, is_current, created_at, scores_as_of_date, relations, rows, bytes, and problem (None, or
        why it cannot serve; checksums are not read: `verify` does).
    """
    folder = published_folder()
    current = current_id(folder)
    return [_describe(path, path.name == current) for path in reversed(snapshot_folders(folder))]


def _describe(path: Path, is_current: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"snapshot_id": path.name, "is_current": is_current, "problem": None}
    known: dict[str, Any] = {}
    try:
        known = manifest.read(path)
    except LcmError as error:
        found["problem"] = error.message
    relations = known.get("relations", {})
    files = [path / f"{name}.parquet" for name in relations]
    missing = [file for file in files if not file.is_file()]
    if missing:
        found["problem"] = f"{missing[0]} is missing"
    return found | {
        "created_at": known.get("created_at"),
        "scores_as_of_date": known.get("scores_as_of_date"),
        "relations": len(relations),
        "rows": sum(relation["rows"] for relation in relations.values()),
        "bytes": sum(file.stat().st_size for file in files if file not in missing),
    }


def verify(snapshot_id: str | None = None) -> list[dict[str, Any]]:
    """Read every file of one snapshot, or of all, against its checksum.

    Returns:
        Of each snapshot_id, is_current and problem (None, or the file that is missing or changed), newest first.

    Raises:
        LcmError: when there is no such snapshot.
    """
    folder = published_folder()
    current = current_id(folder)
    paths = [_find(folder, snapshot_id)] if snapshot_id else snapshot_folders(folder)[::-1]
    if not paths:
        raise LcmError("nothing was published yet", "lcm-ml publish")
    results = []
    for path in paths:
        problem = None
        try:
            manifest.check(path)
        except LcmError as error:
            problem = error.message
        results.append({"snapshot_id": path.name, "is_current": path.name == current, "problem": problem})
    return results


def _find(published: Path, snapshot_id: str) -> Path:
    for path in snapshot_folders(published):
        if path.name == snapshot_id:
            return path
    raise LcmError(f"there is no snapshot {snapshot_id} in {published}", "see `lcm-ml snapshots list`")


def roll_back(published: Path, snapshot_id: str | None = None) -> tuple[str | None, Path]:
    """Let an earlier snapshot serve, by the same swap as a publish, once all its checksums were found right.

    Args:
        published: as `publishing_lock` yields it.
        snapshot_id: any that is kept; default: the one before the present one.

    Returns:
        The snapshot that served, and the folder of the one that serves now.

    Raises:
        LcmError: when there is none, or a file of it is missing or changed; what serves goes on to serve.
    """
    current = current_id(published)
    if snapshot_id:
        path = _find(published, snapshot_id)
    else:
        earlier = [folder for folder in snapshot_folders(published) if current and folder.name < current]
        if not earlier:
            raise LcmError(f"no snapshot is kept from before {current or 'the first publish'}", "lcm-ml publish")
        path = earlier[-1]
    if path.name == current:
        raise LcmError(f"{snapshot_id} is what readers see already", "see `lcm-ml snapshots list`")
    activate(published, path.name, manifest.check(path)["relations"])
    return current, path


def prune(published: Path, keep: int) -> list[str]:
    """Remove all but the newest `keep` snapshots, and what a killed publish left behind. The current one stays.

    Those of `lcm-ml watch`, one every few seconds, are counted by themselves: they must not push out the others.

    Returns:
        The snapshots that were removed.
    """
    current = current_id(published)
    removed = []
    kinds: dict[bool, list[Path]] = {True: [], False: []}
    for path in snapshot_folders(published):
        kinds[_is_part(path)].append(path)
    for path in sorted([*kinds[False][:-keep], *kinds[True][:-keep]]):
        if path.name != current:
            # Out of sight at once: half a snapshot must not be listed, should this be killed.
            gone = path.replace(path.with_name(f".{path.name}.unfinished"))
            shutil.rmtree(gone, ignore_errors=True)
            removed.append(path.name)
    for leftover in (published / "snapshots").glob(".*.unfinished"):
        shutil.rmtree(leftover, ignore_errors=True)
    return removed


def _is_part(snapshot: Path) -> bool:
    try:
        return manifest.read(snapshot).get("kind") == manifest.PART
    except LcmError:
        return False
