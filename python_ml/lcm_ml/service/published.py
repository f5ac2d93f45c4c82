"""Which snapshot answers: the one that `published/current` points at, loaded once and swapped whole."""

import asyncio
import logging
import time
from pathlib import Path

from lcm_ml.service.guard import place
from lcm_ml.service.store import NoSnapshotError, Snapshot, load_snapshot

SWAP_SECONDS = 1.0
"""A request that meets a new snapshot waits so long for it; after that the old one answers until it is loaded."""
RETRY_SECONDS = 5.0
"""A snapshot that could not be loaded is tried again after so long."""

log = logging.getLogger("lcm_ml.service")
_Key = tuple[str, int, int, int]


class Published:
    """The snapshots of a published folder, one at a time.

    Args:
        folder: holds `current`; it need not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self._current = folder / "current"
        self._snapshot: Snapshot | None = None
        self._key: _Key | None = None
        self._loading: asyncio.Task[None] | None = None
        self._failed: tuple[_Key, NoSnapshotError, float] | None = None

    async def snapshot(self) -> Snapshot:
        """The snapshot to answer from. Take it once for an answer, so that no answer mixes two.

        Raises:
            NoSnapshotError: when there is none, or the one that `current` points at may not be served.
        """
        until = time.monotonic() + SWAP_SECONDS
        while True:
            folder, key = self._pointed_at()
            if key == self._key and self._snapshot is not None:
                return self._snapshot
            if self._failed and self._failed[0] == key and time.monotonic() < self._failed[2] + RETRY_SECONDS:
                raise self._failed[1]
            if self._loading is None:
                self._loading = asyncio.create_task(self._load(folder, key))
            # Without an old snapshot there is nothing to answer with but the new one.
            left = until - time.monotonic() if self._snapshot else None
            if left is not None and left <= 0 and self._snapshot:
                return self._snapshot
            await asyncio.wait([self._loading], timeout=left)
            if self._failed and self._failed[0] == key:
                raise self._failed[1]

    def _pointed_at(self) -> tuple[Path, _Key]:
        """The folder behind `current`, and what changes when it points elsewhere or its manifest is written anew."""
        try:
            folder = self._current.resolve(strict=True)
            seen = (folder / "manifest.json").stat()
        except FileNotFoundError:
            gone = self._current.is_symlink()
            why = "the published snapshot is gone: it was removed" if gone else "nothing was published yet"
            raise NoSnapshotError(why, "publish with `lcm-ml publish`") from None
        return folder, (folder.name, seen.st_ino, seen.st_mtime_ns, seen.st_size)

    async def _load(self, folder: Path, key: _Key) -> None:
        try:
            self._snapshot = await asyncio.to_thread(load_snapshot, folder, self._snapshot)
            self._key = key
            self._failed = None
        except NoSnapshotError as error:
            self._failed = (key, error, time.monotonic())
        except Exception as error:  # whatever it is, requests must hear of it, not wait for ever
            told = NoSnapshotError(f"snapshot {folder.name} cannot be loaded ({type(error).__name__})", "see the log")
            log.error("%s at %s", type(error).__name__, place(error))
            self._failed = (key, told, time.monotonic())
        finally:
            self._loading = None
