"""All that is held of one user, as files to hand over."""

import shutil
from pathlib import Path
from typing import Any

from lcm_ml import project
from lcm_ml.errors import LcmError
from lcm_ml.privacy import keys, places
from lcm_ml.privacy.places import Advance
from lcm_ml.privacy.tables import Users
from lcm_ml.warehouse.connection import Notify, connect
from lcm_ml.warehouse.contracts import read_yaml
from lcm_ml.warehouse.sql import literal

INDEX = "index.md"


def export_user(user_id: str, out: Path | None, advance: Advance, notify: Notify) -> dict[str, Any]:
    """Write one JSON file for each table and view that has rows of the user or of visitors linked to it, and an index.

    Args:
        user_id: as the tables have it.
        out: a folder that is new or empty; default: one in the exports folder beside the warehouse, written anew.
        advance: told the table under way.
        notify: told when another process has to be waited for.

    Returns:
        folder, visitors (their ids), and rows by table.

    Raises:
        LcmError: when nothing is held of the user, or the folder has files.
    """
    hashes = keys.keyed_hash(create=True)
    folder = out or places.export_folder(hashes, user_id)
    if out and out.exists() and (out.is_file() or any(out.iterdir())):
        raise LcmError(f"{out} is no empty folder", "name a new one with --out")
    with connect(read_only=True, notify=notify) as con:
        users = Users(con, [user_id], hashes)
        counts = users.counts(views=True)
        if not counts:
            raise LcmError(
                f"nothing is held of {user_id!r}",
                "check the id; where loads hide ids, `lcm-ml pseudonym` tells the one to look for",
            )
        partial = folder.with_name(f".{folder.name}.unfinished")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True, mode=0o700)
        try:
            holders = users.holders(views=True)
            for done, name in enumerate(counts):
                advance(name, done / len(counts))
                path = partial / f"{name}.json"
                held = f"select * from {name} where {holders[name]}"
                con.execute(f"copy ({held}) to {literal(str(path))} (format json, array true)")
            visitors = [found for found in users.ids if found != user_id.strip()]
            (partial / INDEX).write_text(_index(user_id.strip(), visitors, counts), encoding="utf-8")
            for path in partial.iterdir():
                path.chmod(0o600)
            shutil.rmtree(folder, ignore_errors=True)
            partial.replace(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return {"folder": folder, "visitors": visitors, "rows": counts}


def _index(user_id: str, visitors: list[str], counts: dict[str, int]) -> str:
    """The table of contents, in words."""
    described = _descriptions()
    known = {name: described.get(name.rsplit(".", 1)[-1], ("", {})) for name in counts}
    lines = [
        f"# What is held of {user_id}",
        "",
        f"Anonymous visitors that are known to be the same person: {', '.join(visitors) or 'none'}.",
        "",
        "raw is what was received; staging, intermediate and marts are made of it; ml holds what models concluded; "
        "serving is how people at the shop see it.",
        "",
        "| file | rows | what it is |",
        "| --- | --- | --- |",
        *(f"| {name}.json | {n} | {known[name][0]} |" for name, n in counts.items()),
    ]
    for name, (_, columns) in known.items():
        if columns:
            lines += ["", f"## {name}", "", *(f"- **{column}**: {text}" for column, text in columns.items())]
    return "\n".join(lines) + "\n"


def _descriptions() -> dict[str, tuple[str, dict[str, str]]]:
    """What dbt says of each table, and of its columns, by the table's name."""
    found: dict[str, tuple[str, dict[str, str]]] = {}
    for path in sorted((project.root() / "models").rglob("_*.yml")):
        document = read_yaml(path) or {}
        listed = [*document.get("models", []), *(t for source in document.get("sources", []) for t in source["tables"])]
        for table in listed:
            columns = {column["name"]: _line(column) for column in table.get("columns", [])}
            found.setdefault(table["name"], (_line(table), columns))
    return found


def _line(described: dict[str, Any]) -> str:
    return " ".join(described.get("description", "").split())
