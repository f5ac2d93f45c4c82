"""The list of forgotten users: keyed hashes in meta.forgotten_users, which every load asks before it keeps a row."""

from dataclasses import dataclass

import duckdb

from lcm_ml.privacy.keys import keyed_hash
from lcm_ml.privacy.record import entries
from lcm_ml.sources.pseudonyms import Pseudonyms, user_columns
from lcm_ml.warehouse import writer
from lcm_ml.warehouse.connection import first_row, table_exists
from lcm_ml.warehouse.contracts import Table, tables

LISTED = "(select id_hash from meta.forgotten_users)"
LEFT_OUT = "(select id_hash from left_out)"


def forgotten(con: duckdb.DuckDBPyConnection) -> set[str]:
    """Keyed hashes of the users on the list and on record: a restored backup has an older list."""
    known = {user for entry in entries() for user in entry.get("users", ())}
    if table_exists(con, "meta", "forgotten_users"):
        known.update(row[0] for row in con.execute("select id_hash from meta.forgotten_users").fetchall())
    return known


@dataclass(frozen=True)
class Suppression:
    """What a load leaves out."""

    hashes: Pseudonyms

    @classmethod
    def of(cls, con: duckdb.DuckDBPyConnection) -> "Suppression | None":
        """The users of `forgotten`, or None where there are none.

        Raises:
            LcmError: when the key of the hashes is gone: a load would bring everybody back.
        """
        if not (known := forgotten(con)):
            return None
        hashes = keyed_hash()
        hashes.prepare(con)
        con.execute(
            "create or replace temporary table left_out as select unnest(?::varchar[]) as id_hash", [sorted(known)]
        )
        return cls(hashes)

    def condition(self, table: Table) -> str:
        """SQL that is true for a row of a forgotten user; false for tables without users."""
        columns = user_columns(table)
        return " or ".join(f"coalesce({self.hashes.sql(name)} in {LEFT_OUT}, false)" for name in columns) or "false"

    def drop_staged(self, con: duckdb.DuckDBPyConnection, table: Table) -> tuple[int, int]:
        """Delete the rows of forgotten users from the temporary table staged_rows, before they reach the file.

        A visitor that the rows link to a forgotten user is that user: it goes on the list.

        Returns:
            How many rows that could have been loaded went, and how many that would have been rejected.
        """
        if table.name == "identities":
            writer.ensure(con, {"forgotten_users": tables("meta")["forgotten_users"]})
            con.execute(
                f"""
                insert into left_out
                select distinct {self.hashes.sql("anonymous_id")}
                from (
                    select * from staged_rows where rule is null
                    qualify row_number() over (partition by anonymous_id order by linked_at, user_id) = 1
                )
                where
                    {self.hashes.sql("user_id")} in {LEFT_OUT}
                    and {self.hashes.sql("anonymous_id")} not in {LEFT_OUT}
                """
            )
            con.execute(
                "insert into meta.forgotten_users (id_hash, forgotten_at, rows_changed) "
                "select id_hash, cast(current_timestamp as timestamp), 0 from left_out "
                f"where id_hash not in {LISTED}"
            )
        gone = self.condition(table)
        row = first_row(
            con,
            f"select count(*) filter (rule is null), count(*) filter (rule is not null) from staged_rows where {gone}",
        )
        con.execute(f"delete from staged_rows where {gone}")
        return (int(row[0]), int(row[1])) if row else (0, 0)
