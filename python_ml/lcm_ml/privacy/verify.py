"""Look for users everywhere: every table and every file of the warehouse, and the record of who was forgotten."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import duckdb

from lcm_ml import project
from lcm_ml.privacy import keys, places, record
from lcm_ml.privacy.places import Advance, Search
from lcm_ml.privacy.tables import Users, is_distinctive
from lcm_ml.sources.pseudonyms import Pseudonyms
from lcm_ml.warehouse.connection import Notify, connect, table_exists


@dataclass
class Found:
    """Where users are.

    Attributes:
        own: tables, columns and files of the warehouse, each in words.
        outside: files that were loaded, which are not lcm's to change.
        searched: how many tables and files were looked at.
        short: how many of the ids are too short for free text and bytes: they were looked for in columns of users.
    """

    own: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    searched: int = 0
    short: int = 0


def look(user_ids: Sequence[str], hashes: Pseudonyms, advance: Advance, notify: Notify) -> Found:
    """Search all tables, the warehouse's bytes, and all files for the users and the visitors linked to them.

    Raises:
        LcmError: when there is no warehouse.
    """
    found = Found()
    with connect(read_only=True, notify=notify) as con:
        users = Users(con, user_ids, hashes)
        found.short = sum(not is_distinctive(user_id) for user_id in users.ids)
        found.own += [f"{name}: {n:,} rows" for name, n in users.counts().items()]
        found.own += [f"{name}: {n:,} cells of text" for name, n in users.mentions().items()]
        search = Search(users)
        if not found.own and search.bytes_hold(project.warehouse_path()):
            found.own.append(f"{project.warehouse_path()}: bytes of rows that were deleted")
        paths = [*places.beside(), *places.of_dbt()]
        found.own += [str(path) for path in places.holding(search, paths, advance, "files")]
        found.own += [
            str(folder) for user_id in users.ids if (folder := places.export_folder(hashes, user_id)).exists()
        ]
        sources = places.loaded(con)
        found.outside = [str(path) for path in places.holding(search, sources, advance, "loaded files")]
        found.searched = len(paths) + len(sources)
    return found


def check_record(con: duckdb.DuckDBPyConnection) -> list[str]:
    """What is wrong with the record of forgotten users; empty where the chain is whole.

    Raises:
        LcmError: when there is a record, and the key of its hashes is gone.
    """
    listed: dict[str, str | None] = {}
    if table_exists(con, "meta", "forgotten_users"):
        listed = dict(con.execute("select id_hash, record_hash from meta.forgotten_users").fetchall())
    if not listed and not record.entries():
        return []
    return record.problems(keys.keyed_hash(), listed)
