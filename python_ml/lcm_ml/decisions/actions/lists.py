"""Lists of users for other tools, as CSV and Parquet; a file or a folder of them appears whole or not at all."""

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import polars as pl

from lcm_ml.errors import LcmError, from_system
from lcm_ml.frames.touches import CONTROL

RISKY = "^[=+@\t\r-]"
"""First characters that make a spreadsheet take a cell for a formula."""


def channel_lists(sent: pl.DataFrame, titles: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """What each channel needs to contact its users, and no more: neither scores nor who is held back.

    Args:
        sent: rows of ml.actions_sent.
        titles: product_id, title.

    Returns:
        Channel to user_id, campaign_id, offer, discount_share, product_id, product_title, send_date, send_daypart.
    """
    treated = sent.filter(pl.col("arm") != CONTROL).join(titles, on="product_id", how="left").sort("user_id")
    return {
        channel: treated.filter(pl.col("channel") == channel).select(
            "user_id",
            "campaign_id",
            "offer",
            "discount_share",
            "product_id",
            pl.col("title").alias("product_title"),
            "send_date",
            "send_daypart",
        )
        for channel in treated["channel"].unique().sort()
    }


def spreadsheet_safe(frame: pl.DataFrame) -> pl.DataFrame:
    """Texts that a spreadsheet would take for a formula, with ' before them."""
    texts = [pl.col(name) for name, kind in frame.schema.items() if kind == pl.String]
    return frame.with_columns(
        pl.when(text.str.contains(RISKY)).then(pl.format("'{}", text)).otherwise(text).name.keep() for text in texts
    )


def formula_warnings(frames: Iterable[pl.DataFrame]) -> list[str]:
    """What to tell of ids that differ between the two kinds of file, for `spreadsheet_safe` changed them."""
    ids = [frame["user_id"] for frame in frames if "user_id" in frame.columns]
    changed = sum(int(each.str.contains(RISKY).sum()) for each in ids)
    if not changed:
        return []
    return [
        f"{changed:,} ids begin like a formula: in CSV files they have a ' before them, Parquet has them as they are"
    ]


def write_file(frame: pl.DataFrame, path: Path) -> None:
    """Write one list as its suffix says, .csv or .parquet; it takes the place of a file that is there.

    Raises:
        LcmError: when it cannot be written; the file that was there stays.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _save(frame, unfinished, path.suffix)
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise from_system(error) from error


def write(frames: dict[str, pl.DataFrame], folder: Path, run_id: str, place: Callable[[], None]) -> list[Path]:
    """Write each frame as NAME.csv and NAME.parquet.

    They lie in a hidden folder first, which takes the place of `folder` in one step after `place` was done: whatever
    ends the process before leaves no list in sight.

    Args:
        frames: name to rows.
        folder: where they go; what a dry run left there is replaced.
        run_id: of the run that makes them.
        place: what must have happened before anybody may see the lists.

    Returns:
        The files.

    Raises:
        LcmError: when they cannot be written.
    """
    unfinished = unfinished_of(folder, run_id)
    try:
        for leftover in folder.parent.glob(unfinished_of(folder, "*").name):
            shutil.rmtree(leftover)
        unfinished.mkdir(parents=True, mode=0o700)
        for name, frame in frames.items():
            for suffix in (".csv", ".parquet"):
                _save(frame, unfinished / f"{name}{suffix}", suffix)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise from_system(error) from error
    place()
    return finish(folder, run_id)


def _save(frame: pl.DataFrame, path: Path, suffix: str) -> None:
    """Write a frame as its kind of file, for its owner alone."""
    path.touch(mode=0o600)
    if suffix == ".csv":
        spreadsheet_safe(frame).write_csv(path)
    else:
        frame.write_parquet(path)


def unfinished_of(folder: Path, run_id: str) -> Path:
    """Where the lists of `folder` lie until they may be seen."""
    return folder.with_name(f".{folder.name}.{run_id}.unfinished")


def finish(folder: Path, run_id: str) -> list[Path]:
    """Bring lists that are complete in sight.

    Raises:
        LcmError: when the folder cannot be written.
    """
    try:
        if folder.exists():
            shutil.rmtree(folder)
        unfinished_of(folder, run_id).replace(folder)
    except OSError as error:
        raise from_system(error) from error
    return sorted(folder.iterdir())


def refuse_lists_without_record(folder: Path) -> None:
    """Refuse to take the place of lists that may have been sent.

    Raises:
        LcmError: when the folder is there.
    """
    if folder.exists():
        raise LcmError(
            f"{folder} has lists, but the warehouse has no record that they were made: they may have been sent",
            "if they were, load its campaigns and campaign_touches; then move the folder away",
        )
