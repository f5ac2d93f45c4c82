"""Where the tables hold users: found by the names of columns, and by the ids themselves in texts."""

import json
import re
from collections.abc import Iterable, Sequence

import duckdb

from lcm_ml.sources.pseudonyms import USER_IDS, Pseudonyms
from lcm_ml.warehouse.connection import first_row, rows, table_exists
from lcm_ml.warehouse.contracts import KEPT
from lcm_ml.warehouse.sql import literal, quoted

ID_COLUMNS = (*USER_IDS, "linked_user_id")
WRITTEN = ("raw", "ml")
"""Schemas that lcm-ml writes: rows go there. What dbt makes of them is built anew."""

MADE_UP = ("sample",)
"""The simulated users of seeds/: never a shop's, and back with every build."""

MASK = "(forgotten)"
DISTINCTIVE = 6
IDS_AT_ONCE = 500


def is_distinctive(user_id: str) -> bool:
    """Whether an id can be looked for in free text and bytes without being found where it is none.

    `U00087` and a mail address can; `150` cannot: it is also a price, a year's day, a part of a number.
    """
    return (len(user_id) >= DISTINCTIVE and not re.fullmatch(r"[\d.\s-]*", user_id)) or len(user_id) >= 12


def patterns(ids: Iterable[str]) -> list[str]:
    """Regular expressions, for RE2 and Python alike, that find the distinctive ones of the ids as whole words."""
    distinctive = sorted(filter(is_distinctive, set(ids)), key=lambda user_id: (-len(user_id), user_id))
    words = [_word(user_id) for user_id in distinctive]
    return ["|".join(words[start : start + IDS_AT_ONCE]) for start in range(0, len(words), IDS_AT_ONCE)]


def _word(user_id: str) -> str:
    escaped = re.sub(r"([\\.^$|?*+()\[\]{}])", r"\\\1", user_id)
    before, after = (r"\b" if re.match(r"\w", end, re.ASCII) else "" for end in (user_id[0], user_id[-1]))
    return before + escaped + after


def text_columns(
    con: duckdb.DuckDBPyConnection, *, views: bool = False, schemas: Sequence[str] = ()
) -> dict[str, list[str]]:
    """The tables with columns of text: schema.table to those columns.

    Args:
        con: a connection.
        views: with views too.
        schemas: only these; default: all but the made-up one.
    """
    found = rows(
        con,
        """
        select columns.table_schema as schema, columns.table_name as name, list(columns.column_name) as columns
        from information_schema.columns as columns
        inner join information_schema.tables as tables using (table_catalog, table_schema, table_name)
        where
            columns.table_catalog = current_database()
            and columns.data_type = 'VARCHAR'
            and tables.table_type in ('BASE TABLE', ?)
        group by all
        order by all
        """,
        ["VIEW" if views else "BASE TABLE"],
    )
    return {
        full_name(row["schema"], row["name"]): row["columns"]
        for row in found
        if row["schema"] in schemas or (not schemas and row["schema"] not in MADE_UP)
    }


def id_columns(columns: Iterable[str]) -> list[str]:
    """Those of the columns that hold users."""
    return [name for name in columns if name.lower() in ID_COLUMNS]


def full_name(schema: str, name: str) -> str:
    """schema.table, as SQL takes it, quoted only where it must be."""
    return ".".join(part if re.fullmatch(r"[a-z_][a-z0-9_]*", part) else quoted(part) for part in (schema, name))


class Users:
    """Users to look for in one connection, with the visitors that are known to be them.

    Attributes:
        ids: as staging has them: trimmed, their case folded.
        patterns: that find them in text.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection, ids: Iterable[str], hashes: Pseudonyms) -> None:
        self.con = con
        self.hashes = hashes
        con.execute("create or replace temporary table wanted_users (user_id varchar)")
        con.execute(
            f"insert into wanted_users select distinct {hashes.cleaned('id')} as id "
            "from (select unnest(?) as id) where id is not null",
            [list(ids)],
        )
        if table_exists(con, "raw", "identities"):
            # A visitor belongs to the user it was first linked to, as in stg_identities.
            visitor, user = hashes.cleaned("anonymous_id"), hashes.cleaned("user_id")
            con.execute(
                f"""
                insert into wanted_users
                select visitor from (
                    select {visitor} as visitor, {user} as owner, linked_at, source_file, source_row
                    from raw.identities
                    where {visitor} is not null and {user} is not null and linked_at is not null and {visitor} != {user}
                    qualify row_number() over (
                        partition by visitor order by linked_at, owner, source_file, source_row
                    ) = 1
                )
                where
                    owner in (select user_id from wanted_users) and visitor not in (select user_id from wanted_users)
                """
            )
        self.ids: list[str] = [row[0] for row in con.execute("select user_id from wanted_users order by 1").fetchall()]
        self.patterns = patterns(self.ids)
        has_tickets = table_exists(con, "raw", "support_tickets")
        con.execute(
            "create or replace temporary table wanted_tickets as "
            + (
                "select distinct trim(ticket_id) as ticket_id "
                f"from raw.support_tickets where {self.condition(['user_id'])}"
                if has_tickets
                else "select null::varchar as ticket_id where false"
            )
        )

    def condition(self, columns: Iterable[str]) -> str:
        """SQL that is true where one of the columns has one of the users."""
        return " or ".join(
            f"coalesce({self.hashes.cleaned(quoted(name))} in (select user_id from wanted_users), false)"
            for name in columns
        )

    def holders(self, *, views: bool = False, schemas: Sequence[str] = ()) -> dict[str, str]:
        """Relations that can hold rows of the users, and the SQL that picks these rows."""
        found = {}
        for name, columns in text_columns(self.con, views=views, schemas=schemas).items():
            if users := id_columns(columns):
                found[name] = self.condition(users)
            elif "ticket_id" in columns:
                # What is known of a ticket is known of the user who wrote it.
                found[name] = "coalesce(trim(ticket_id) in (select ticket_id from wanted_tickets), false)"
        if "raw" in (schemas or ("raw",)) and (rejected := self._rejected()):
            found["raw.rejected_rows"] = rejected
        return found

    def loaded(self) -> dict[str, str]:
        """As `holders`, of the raw tables whose rows say which file they came from."""
        held = self.holders(schemas=("raw",))
        return {name: condition for name, condition in held.items() if name.removeprefix("raw.") not in KEPT}

    def _rejected(self) -> str:
        """SQL for rejected rows of the users: by the keys that their load took for the columns of users."""
        if not table_exists(self.con, "raw", "rejected_rows"):
            return ""
        cases = []
        rejected = self.con.execute(
            """
            select load_id, table_name, list_distinct(flatten(list(json_keys(original)))) as keys
            from raw.rejected_rows where json_valid(original) group by all
            """
        )
        for load_id, table, keys in rejected.fetchall():
            option = first_row(self.con, "select options from raw.loads where load_id = ?", [load_id])
            options = json.loads(option[0]) if option else {}
            named = options.get("map", {}).get(table, {})
            constants = options.get("set", {}).get(table, {})
            wanted = {str(named.get(column, column)).lower() for column in USER_IDS}
            tests = [
                f"coalesce({self.hashes.cleaned(f'json_extract_string(original, {literal(path)})')} "
                "in (select user_id from wanted_users), false)"
                for path in (f'$."{key}"' for key in keys if key.lower() in wanted and '"' not in key)
            ]
            if set(self.ids) & {str(constants.get(column)).strip() for column in USER_IDS}:
                tests.append("true")
            if tests:
                cases.append(
                    f"(load_id = {literal(load_id)} and table_name = {literal(table)} and ({' or '.join(tests)}))"
                )
        return " or ".join(cases)

    def counts(self, *, views: bool = False, schemas: Sequence[str] = ()) -> dict[str, int]:
        """How many rows each relation has of the users; those with none are left out."""
        found = {}
        for name, condition in self.holders(views=views, schemas=schemas).items():
            row = first_row(self.con, f"select count(*) from {name} where {condition}")
            if row and row[0]:
                found[name] = int(row[0])
        return found

    def mentions(self, schemas: Sequence[str] = ()) -> dict[str, int]:
        """How many cells name one of the users, by "schema.table.column": distinctive ids, columns of other things."""
        found: dict[str, int] = {}
        listed = text_columns(self.con, schemas=schemas).items() if self.patterns else ()
        for pattern in self.patterns:
            for table, texts in listed:
                columns = [name for name in texts if name not in id_columns(texts)]
                if not columns:
                    continue
                counted = ", ".join(
                    f"count(*) filter (regexp_matches({quoted(column)}, {literal(pattern)}))" for column in columns
                )
                row = first_row(self.con, f"select {counted} from {table}") or ()
                for column, number in zip(columns, row, strict=False):
                    if number:
                        found[f"{table}.{column}"] = found.get(f"{table}.{column}", 0) + int(number)
        return found

    def delete(self) -> dict[str, int]:
        """Delete the users' rows of raw and ml, and mask the users in what else is written there. In a transaction.

        Returns:
            Rows deleted, by table, and cells masked, by "table.column".
        """
        self._settle_loads()
        done: dict[str, int] = {}
        for name, condition in self.holders(schemas=WRITTEN).items():
            row = first_row(self.con, f"delete from {name} where {condition}")
            if row and row[0]:
                done[name] = int(row[0])
        masked = self.mentions((*WRITTEN, "meta"))
        for pattern in self.patterns:
            for named in masked:
                table, column = named.rsplit(".", 1)
                self.con.execute(
                    f"update {table} set {quoted(column)} = "
                    f"regexp_replace({quoted(column)}, {literal(pattern)}, {literal(MASK)}, 'g') "
                    f"where regexp_matches({quoted(column)}, {literal(pattern)})"
                )
        return done | masked

    def _settle_loads(self) -> None:
        """Move the rows that go from loaded or rejected to suppressed, in the log of the loads."""
        if not table_exists(self.con, "raw", "load_files"):
            return
        for name, condition in self.loaded().items():
            is_rejected = name == "raw.rejected_rows"
            table = "table_name" if is_rejected else literal(name.removeprefix("raw."))
            column = "rows_rejected" if is_rejected else "rows_loaded"
            self.con.execute(
                f"""
                update raw.load_files as files
                set
                    {column} = files.{column} - gone.n,
                    rows_suppressed = coalesce(files.rows_suppressed, 0) + gone.n
                from (
                    select load_id, {table} as gone_from, source_file, count(*) as n
                    from {name}
                    where {condition}
                    group by all
                ) as gone
                where
                    files.load_id = gone.load_id
                    and files.table_name = gone.gone_from
                    and files.source_file = gone.source_file
                """
            )
