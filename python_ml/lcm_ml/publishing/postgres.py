"""The snapshot as tables of a PostgreSQL server: loaded beside the old ones, then renamed in one transaction."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from lcm_ml.errors import LcmError, UsageError
from lcm_ml.publishing import manifest
from lcm_ml.warehouse.connection import lock_timeout
from lcm_ml.warehouse.sql import literal, quoted

if TYPE_CHECKING:
    import psycopg

Advance = Callable[[str, float], None]
TYPES = {
    "VARCHAR": "text",
    "BOOLEAN": "bool",
    "SMALLINT": "int2",
    "INTEGER": "int4",
    "BIGINT": "int8",
    "FLOAT": "float4",
    "DOUBLE": "float8",
    "DATE": "date",
    "TIMESTAMP": "timestamp",
    "TIMESTAMP WITH TIME ZONE": "timestamptz",
}
RECORD = "published_relations"
"""The table that says which tables of the schema are ours, and of which snapshot."""
RECORD_SQL = (
    "relation text primary key, row_count int8 not null, sha256 text not null, snapshot_id text not null, "
    "created_at timestamptz not null, loaded_at timestamptz not null default now()"
)
ROWS_AT_ONCE = 20_000
SWAP_LOCK = "500ms"
"""Shorter than PostgreSQL's deadlock_timeout (1 s): it is the swap that gives way, never a reader."""
SECRETS = ("password", "sslpassword")


@dataclass(frozen=True)
class Server:
    """A database to publish to, and the schema in it.

    Attributes:
        parameters: of the connection; what is secret among them is never shown.
        schema: of the tables. `SCHEMA_staging` beside it is where they are loaded.
    """

    parameters: dict[str, Any] = field(repr=False)
    schema: str

    @classmethod
    def of(cls, url: str, schema: str) -> "Server":
        """Read the URL. Nothing is connected yet.

        Raises:
            UsageError: when it is none of PostgreSQL's, or the schema is no plain name.
            LcmError: when psycopg is not installed.
        """
        # The URL may hold a password: no message repeats any of it.
        if not url.startswith(("postgres://", "postgresql://")):
            raise UsageError("--to is no URL of a PostgreSQL database", "--to postgres://USER@HOST/DATABASE")
        if not re.fullmatch(r"[a-z_][a-z0-9_]{0,50}", schema) or schema.startswith("pg_"):
            raise UsageError(f"--schema {schema!r} is no plain name", "lower-case letters, digits and _")
        try:
            import psycopg
            from psycopg.conninfo import conninfo_to_dict
        except ImportError:
            raise LcmError(
                "publishing to PostgreSQL needs psycopg, which is not installed", "pip install 'lcm-ml[postgres]'"
            ) from None
        try:
            return cls(conninfo_to_dict(url), schema)
        except psycopg.Error:
            raise UsageError(
                "PostgreSQL does not understand the URL of --to",
                "--to postgres://USER@HOST:PORT/DATABASE; special characters as %40 and the like",
            ) from None

    @property
    def shown(self) -> str:
        """The database, as people may see it."""
        known = {name: self.parameters.get(name) for name in ("user", "host", "port", "dbname")}
        user, host = f"{known['user']}@" if known["user"] else "", known["host"] or "localhost"
        return f"postgres://{user}{host}{':' + known['port'] if known['port'] else ''}/{known['dbname'] or ''}"

    def load(self, snapshot: Path, advance: Advance) -> dict[str, Any]:
        """Load a snapshot, and let it take the place of the one before in one transaction.

        Readers see the old tables or the new ones; a failure, or a kill, leaves the old ones. Who may read a table
        still may. Two loads into one schema wait for each other.

        Args:
            snapshot: the folder; its checksums are verified first.
            advance: told what is under way.

        Returns:
            to, schema, snapshot_id, relations and rows.

        Raises:
            LcmError: when a file is missing or changed, the server refuses, a table of the schema is not ours, or
                readers leave no moment for the swap.
        """
        known = manifest.check(snapshot)
        with self._connect() as con:
            con.execute("select pg_advisory_lock(hashtextextended(%s, 0))", [f"lcm {self.schema}"])
            old = self._ours(con, known["relations"])
            for done, (name, relation) in enumerate(known["relations"].items()):
                advance(name, done / (len(known["relations"]) + 1))
                self._stage(con, snapshot / f"{name}.parquet", name, relation, known["snapshot_id"])
            self._record(con, known)
            advance("swap", 1.0)
            self._swap(con, old, [*known["relations"], RECORD])
        return {
            "to": self.shown,
            "schema": self.schema,
            "snapshot_id": known["snapshot_id"],
            "relations": len(known["relations"]),
            "rows": sum(relation["rows"] for relation in known["relations"].values()),
        }

    @property
    def _staging(self) -> str:
        return f"{self.schema}_staging"

    @contextmanager
    def _connect(self) -> "Iterator[psycopg.Connection[Any]]":
        import psycopg

        parameters: dict[str, Any] = {"connect_timeout": 10, "application_name": "lcm-ml publish"} | self.parameters
        try:
            with psycopg.connect(**parameters, autocommit=True) as con:
                yield con
        except psycopg.Error as error:
            raise LcmError(f"{self.shown}: {self._told(error)}", self._mend(error)) from None

    def _told(self, error: Exception) -> str:
        """What the server said, in one line and without secrets."""
        text = " ".join(str(error).split()) or type(error).__name__
        for name in SECRETS:
            if secret := self.parameters.get(name):
                text = text.replace(str(secret), "***")
        return text

    def _mend(self, error: Exception) -> str:
        import psycopg

        again = "then `lcm-ml publish --to` again; the tables there are as they were"
        if isinstance(error, psycopg.errors.DependentObjectsStillExist):
            return f"drop what depends on the table, or make it read a copy; {again}"
        if isinstance(error, psycopg.errors.InsufficientPrivilege):
            return f"grant create on the database, or make the schemas {self.schema} and {self._staging}; {again}"
        if isinstance(error, psycopg.OperationalError):
            return f"check the address, the user and the password (PGPASSWORD, ~/.pgpass), {again}"
        return f"see the server's log, {again}"

    def _ours(self, con: "psycopg.Connection[Any]", relations: dict[str, Any]) -> list[str]:
        """Make the schemas where they are missing. Return the tables that were published before.

        Raises:
            LcmError: for a table that would have to go and was not published by lcm.
        """
        for schema in (self.schema, self._staging):
            if not con.execute("select 1 from pg_namespace where nspname = %s", [schema]).fetchone():
                con.execute(f"create schema {schema}")
        there = self._tables(con, self.schema)
        ours = {RECORD} if RECORD in there else set()
        if ours:
            recorded = con.execute(f"select relation from {self.schema}.{RECORD}").fetchall()
            ours |= {name for (name,) in recorded} & there
        for schema, foreign in (
            (self.schema, (there - ours) & {*relations, RECORD}),
            (self._staging, self._tables(con, self._staging) - {*relations, *ours, RECORD}),
        ):
            if foreign:
                raise LcmError(
                    f"{self.shown}: {schema}.{min(foreign)} was not published by lcm and would be in the way",
                    "name another schema with --schema",
                )
        return sorted(ours)

    def _tables(self, con: "psycopg.Connection[Any]", schema: str) -> set[str]:
        found = con.execute(
            "select relname from pg_class "
            "where relnamespace = %s::regnamespace and relkind in ('r', 'p', 'v', 'm', 'f')",
            [schema],
        )
        return {name for (name,) in found.fetchall()}

    def _stage(
        self, con: "psycopg.Connection[Any]", path: Path, name: str, relation: dict[str, Any], snapshot_id: str
    ) -> None:
        table = f"{self._staging}.{quoted(name)}"
        with duckdb.connect() as reader:
            reader.execute("set timezone = 'UTC'")
            # A file that was taken over from the snapshot before names that one.
            read = f"read_parquet({literal(str(path))})"
            source = f"(select * replace ({literal(snapshot_id)} as snapshot_id) from {read})"
            described = reader.execute(f"describe select * from {source}").fetchall()
            columns = {column: _type(name, column, data_type) for column, data_type, *_ in described}
            declared = ", ".join(f"{quoted(column)} {data_type}" for column, data_type in columns.items())
            con.execute(f"drop table if exists {table}")
            con.execute(f"create table {table} ({declared})")
            # PostgreSQL's text cannot hold the character 0.
            wanted = ", ".join(
                f"replace({quoted(column)}, chr(0), '')" if data_type == "text" else quoted(column)
                for column, data_type in columns.items()
            )
            reader.execute(f"select {wanted} from {source}")
            with con.cursor().copy(f"copy {table} from stdin (format binary)") as copy:
                copy.set_types([data_type.partition("(")[0] for data_type in columns.values()])
                while rows := reader.fetchmany(ROWS_AT_ONCE):
                    for row in rows:
                        copy.write_row(row)
        con.execute(f"comment on table {table} is {literal(relation.get('description', ''))}")
        for column, description in relation.get("descriptions", {}).items():
            con.execute(f"comment on column {table}.{quoted(column)} is {literal(description)}")
        con.execute(f"analyze {table}")

    def _record(self, con: "psycopg.Connection[Any]", known: dict[str, Any]) -> None:
        table = f"{self._staging}.{RECORD}"
        con.execute(f"drop table if exists {table}")
        con.execute(f"create table {table} ({RECORD_SQL})")
        con.execute(f"comment on table {table} is 'One row per table that lcm-ml published here, and its snapshot.'")
        with con.cursor() as cursor:
            cursor.executemany(
                f"insert into {table} (relation, row_count, sha256, snapshot_id, created_at) "
                "values (%s, %s, %s, %s, %s)",
                [
                    (name, relation["rows"], relation["sha256"], known["snapshot_id"], known["created_at"])
                    for name, relation in known["relations"].items()
                ],
            )

    def _swap(self, con: "psycopg.Connection[Any]", old: list[str], new: list[str]) -> None:
        """Rename, as soon as no reader is in any of the old tables.

        All of them are locked before the first one goes: a query or transaction that began on one old table finds
        the others, and one that comes meanwhile waits and finds the new ones.
        """
        import psycopg

        deadline = time.monotonic() + lock_timeout()
        while True:
            try:
                with con.transaction():
                    con.execute(f"set local lock_timeout = '{SWAP_LOCK}'")
                    if old:
                        tables = ", ".join(f"{self.schema}.{quoted(name)}" for name in old)
                        con.execute(f"lock table {tables} in access exclusive mode")
                    grants = [grant for name in old if name in new for grant in self._grants(con, name)]
                    for name in old:
                        con.execute(f"drop table {self.schema}.{quoted(name)}")
                    for name in new:
                        con.execute(f"alter table {self._staging}.{quoted(name)} set schema {self.schema}")
                    for grant in grants:
                        con.execute(grant)
                return
            except psycopg.errors.LockNotAvailable:
                if time.monotonic() >= deadline:
                    raise LcmError(
                        f"{self.shown}: for {lock_timeout():g} s there was always a reader in schema {self.schema}",
                        "end long or idle transactions there (pg_stat_activity), or raise LCM_LOCK_TIMEOUT (seconds)",
                    ) from None

    def _grants(self, con: "psycopg.Connection[Any]", name: str) -> list[str]:
        found = con.execute(
            """
            select
                format(
                    'grant %%s on %%s to %%s%%s',
                    lower(privilege_type),
                    class.oid::regclass,
                    case when grantee = 0 then 'public' else grantee::regrole::text end,
                    case when is_grantable then ' with grant option' else '' end
                )
            from pg_class as class, aclexplode(class.relacl)
            where class.oid = %s::regclass and grantee != class.relowner
            """,
            [f"{self.schema}.{quoted(name)}"],
        )
        return [grant for (grant,) in found.fetchall()]


def _type(relation: str, column: str, data_type: str) -> str:
    if data_type.startswith("DECIMAL"):
        return data_type.replace("DECIMAL", "numeric")
    try:
        return TYPES[data_type]
    except KeyError:
        raise LcmError(
            f"{relation}.{column} is {data_type}, which has no type in PostgreSQL here",
            "cast it in models/serving, or add it to TYPES in publishing/postgres.py",
        ) from None
