"""Write proposals to the small tables that a marketer edits."""

import csv
import io
from pathlib import Path

import polars as pl

from lcm_ml.errors import LcmError

KEYS = {"action_rules": "rule_id", "offers": "offer"}


def apply_proposals(folder: Path, proposals: pl.DataFrame) -> list[Path]:
    """Change the cells that proposals name; all of a file's at once, or none.

    Args:
        folder: of the seeds, with <target>.csv.
        proposals: target, name, parameter, old_value, new_value.

    Returns:
        The files that were changed.

    Raises:
        LcmError: when a file is not there, or a cell is not as it was when the proposal was made. No file is changed.
    """
    made = {}
    for (target,), changes in proposals.sort("proposal_id").group_by("target", maintain_order=True):
        path = folder / f"{target}.csv"
        made[path] = _changed(path, KEYS[str(target)], changes)
    for path, text in made.items():
        fresh = path.with_name(f".{path.name}.fresh")
        fresh.write_text(text, encoding="utf-8", newline="")
        fresh.replace(path)
    return list(made)


def _changed(path: Path, key: str, changes: pl.DataFrame) -> str:
    if not path.is_file():
        raise LcmError(f"{path} is not there", "apply the proposals by hand where your rules are kept")
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        columns, rows = list(reader.fieldnames or ()), list(reader)
    for change in changes.to_dicts():
        row = next((row for row in rows if row[key] == change["name"]), None)
        cell = None if row is None else row.get(change["parameter"])
        if row is None or cell is None or not _same(cell, change["old_value"]):
            raise LcmError(
                f"{path.name}: {change['parameter']} of {change['name']} is {cell!r}, not {change['old_value']!r} as "
                "in the warehouse; nothing was changed",
                "run `dbt build`, so that the warehouse has the file as it is, then `lcm-ml strategy` again",
            )
        row[change["parameter"]] = change["new_value"]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _same(cell: str, value: str | None) -> bool:
    if value is None:
        return cell == ""
    try:
        return float(cell) == float(value)
    except ValueError:
        return cell.strip().lower() == value.lower()
