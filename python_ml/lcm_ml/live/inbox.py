"""The folder that files arrive in, and where they go: done, failed, or away."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from lcm_ml.errors import LcmError
from lcm_ml.files import replace_private, sync_folder
from lcm_ml.warehouse.contracts import raw_inputs

DONE, FAILED = "done", "failed"
UNFINISHED = (".tmp", ".part")
LOCK = ".lcm-watch.lock"
MOST_FILES = 1_000
"""Of one cycle: after a long pause the first scores must not wait for all files."""


@dataclass(frozen=True)
class Arrived:
    """A file that is whole.

    Attributes:
        path: where it lies.
        table: the raw table that its name says.
        arrived_at: seconds since 1970: when it was last written.
    """

    path: Path
    table: str
    arrived_at: float


def table_of(name: str) -> str:
    """The raw table that a file's name begins with, as in users-2026-01-31.csv; any other file holds events."""
    plain = name.lower().replace("-", "_")
    named = [table for table in raw_inputs() if plain.startswith(table)]
    return max(named, key=len, default="events")


@dataclass(frozen=True)
class Inbox:
    """A folder of files that arrive by an atomic rename.

    Attributes:
        folder: the folder.
        delete: remove loaded files, rather than keep them in done/.
    """

    folder: Path
    delete: bool = False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder where it is missing, and be the only one who takes files from it.

        Raises:
            LcmError: when another process has it, or it cannot be written.
        """
        try:
            for folder in (self.folder, self.folder / DONE, self.folder / FAILED):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = FileLock(self.folder / LOCK)
            lock.acquire(timeout=0)
        except Timeout:
            raise LcmError(f"another `lcm-ml watch` takes files from {self.folder}", "end it first") from None
        except OSError as error:
            raise LcmError(f"{self.folder} cannot be written: {error.strerror}", "name another --inbox") from None
        try:
            yield
        finally:
            lock.release()

    def arrived(self) -> list[Arrived]:
        """The files that are there, the oldest first. Hidden ones and those that are still written are no files yet."""
        found = []
        for path in self.folder.iterdir():
            if path.name.startswith(".") or path.name.lower().endswith(UNFINISHED):
                continue
            try:
                if path.is_file():
                    found.append(Arrived(path, table_of(path.name), path.stat().st_mtime))
            except FileNotFoundError:
                continue
        return sorted(found, key=lambda file: (file.arrived_at, file.path.name))

    def take_away(self, files: list[Arrived]) -> None:
        """Put files that are loaded where they no longer are in the way.

        Raises:
            OSError: when one cannot be moved.
        """
        for file in files:
            if self.delete:
                file.path.unlink(missing_ok=True)
            else:
                _move(file.path, self.folder / DONE)
        if files:
            sync_folder(self.folder / DONE)
            sync_folder(self.folder)

    def put_aside(self, file: Arrived, error: LcmError) -> Path:
        """Put a file that cannot be loaded into failed/, what is wrong with it beside it.

        Returns:
            Where it is now.

        Raises:
            OSError: when it cannot be moved.
        """
        folder = self.folder / FAILED
        target = _free(folder / file.path.name)
        # The reason first: a file without one would be a riddle.
        replace_private(target.with_name(f"{target.name}.error"), f"{error}\n")
        file.path.replace(target)
        sync_folder(folder)
        return target


def _move(path: Path, folder: Path) -> None:
    try:
        path.replace(_free(folder / path.name))
    except FileNotFoundError:
        return


def _free(target: Path) -> Path:
    """The path, or one like it that no file has: names may come again with other content."""
    number, free = 1, target
    while free.exists():
        number += 1
        free = target.with_name(f"{target.stem}.{number}{target.suffix}")
    return free
