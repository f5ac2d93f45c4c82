"""Pseudonymous user ids: a keyed hash in place of every user id, computed by DuckDB while rows are loaded.

HMAC (RFC 2104) with SHA-256, as hex, the first LENGTH characters: without the key nobody can tell whose pseudonym one
is, not even by hashing all the ids there are. The key stays in the environment; the warehouse keeps a check value.
"""

import hashlib
import hmac
import json
import os
from dataclasses import dataclass, field
from typing import Any

import duckdb

from lcm_ml import project
from lcm_ml.errors import LcmError
from lcm_ml.warehouse.connection import first_row, table_exists
from lcm_ml.warehouse.contracts import Table, read_yaml
from lcm_ml.warehouse.sql import literal

KEY_VARIABLE = "LCM_ID_KEY"
SHORTEST_KEY = 16
LENGTH = 32
BLOCK = 64
USER_IDS = ("user_id", "anonymous_id")
"""Columns of these names hold a user's id, whatever the raw table."""

CHECKED_TEXT = b"lcm key check"
ID_CASES = {"keep": "{}", "lower": "lower({})", "upper": "upper({})"}
HIDDEN = "(pseudonymised)"


def user_columns(table: Table) -> list[str]:
    """The columns of a raw table that hold a user's id."""
    return [name for name in table.column_names if name in USER_IDS]


def id_case_setting() -> str:
    """The var id_case of dbt_project.yml.

    Raises:
        LcmError: when it is none of ID_CASES.
    """
    variables = read_yaml(project.root() / "dbt_project.yml")["vars"]
    id_case = str(variables.get("id_case", "keep"))
    if id_case not in ID_CASES:
        raise LcmError(f"the var id_case takes {', '.join(ID_CASES)}, not {id_case!r}", "mend dbt_project.yml")
    return id_case


@dataclass(frozen=True)
class Pseudonyms:
    """How ids become pseudonyms.

    Attributes:
        key: of the hash; it is in no repr and no message.
        id_case: the var id_case: ids are made alike before they are hashed, since it cannot be done after.
        name: of the session's variables that hold the key, so that one connection can use two keys.
    """

    key: bytes = field(repr=False)
    id_case: str = "keep"
    name: str = "lcm_id"

    @classmethod
    def from_environment(cls) -> "Pseudonyms":
        """With the key in LCM_ID_KEY and the var id_case of dbt_project.yml.

        Raises:
            LcmError: when there is no key, or it is too short to keep anything secret.
        """
        key = os.environ.get(KEY_VARIABLE, "")
        new = f"make one with `openssl rand -hex 32`, keep it where your secrets are, and set {KEY_VARIABLE} to it"
        if not key:
            raise LcmError(f"pseudonymous ids need a key, and {KEY_VARIABLE} is not set", new)
        if len(key.strip()) < SHORTEST_KEY:
            raise LcmError(f"the key in {KEY_VARIABLE} is shorter than {SHORTEST_KEY} characters", new)
        return cls(key.encode(), id_case_setting())

    @property
    def described(self) -> dict[str, str]:
        """For raw.loads.options: a value that shows whether another key is the same, and cannot give it away."""
        digest = hmac.digest(self.key, CHECKED_TEXT, hashlib.sha256).hex()
        return {"key_check": digest[:8], "id_case": self.id_case}

    def prepare(self, con: duckdb.DuckDBPyConnection) -> None:
        """Give the connection what `sql` needs, in variables of its session, which are kept nowhere."""
        key = hashlib.sha256(self.key).digest() if len(self.key) > BLOCK else self.key
        padded = key.ljust(BLOCK, b"\0")
        con.execute(f"set variable {self.name}_inner = ?", [bytes(byte ^ 0x36 for byte in padded)])
        con.execute(f"set variable {self.name}_outer = ?", [bytes(byte ^ 0x5C for byte in padded)])

    def sql(self, value: str) -> str:
        """SQL for the pseudonym of an id, trimmed and its case folded as staging does; null where there is none."""
        inner = f"unhex(sha256(getvariable('{self.name}_inner') || encode({self.cleaned(value)})))"
        return f"left(sha256(getvariable('{self.name}_outer') || {inner}), {LENGTH})"

    def cleaned(self, value: str) -> str:
        """SQL for an id as staging makes it: trimmed, its case folded, null where blank."""
        return ID_CASES[self.id_case].format(f"nullif(trim({value}), '')")

    def of(self, user_id: str) -> str:
        """The pseudonym of one id, as the marts show it.

        Raises:
            LcmError: for a blank id.
        """
        with duckdb.connect() as con:
            self.prepare(con)
            # Staging folds the pseudonym too.
            row = first_row(con, f"select {ID_CASES[self.id_case].format(self.sql(literal(user_id)))}")
        if row is None or row[0] is None:
            raise LcmError("a blank id has no pseudonym", "give a user's id")
        return str(row[0])


def refuse_mixture(con: duckdb.DuckDBPyConnection, pseudonyms: Pseudonyms | None) -> None:
    """Refuse to add rows whose ids were treated in another way than those that raw holds: users would come apart.

    Raises:
        LcmError: saying which of the two to change.
    """
    described = pseudonyms.described if pseudonyms else None
    for before in loaded_with(con):
        if before == described:
            continue
        if before is None:
            raise LcmError(
                "raw holds loads with plain user ids, and this one is pseudonymised",
                "load everything again with --pseudonymise, or leave it out here",
            )
        if described is None:
            raise LcmError(
                "raw holds pseudonymised user ids, and this load has plain ones",
                f"add --pseudonymise, with the same {KEY_VARIABLE}",
            )
        if before["key_check"] != described["key_check"]:
            raise LcmError(*_another_key(before["key_check"]))
        raise LcmError(
            f"raw was loaded with id_case {before['id_case']}, and the var is now {described['id_case']}: pseudonyms "
            "cannot be folded any more",
            "load everything again, or set the var id_case back",
        )


def refuse_another_key(con: duckdb.DuckDBPyConnection, pseudonyms: Pseudonyms) -> None:
    """Refuse a key that is not the one of the ids in raw.

    Raises:
        LcmError: when it is not.
    """
    for before in loaded_with(con):
        if before and before["key_check"] != pseudonyms.described["key_check"]:
            raise LcmError(*_another_key(before["key_check"]))


def _another_key(check: str) -> tuple[str, str]:
    return (
        f"{KEY_VARIABLE} is not the key that the ids in raw were made with (its check value is {check})",
        "set the key of the first load, or load everything again",
    )


def loaded_with(con: duckdb.DuckDBPyConnection) -> list[dict[str, Any] | None]:
    """What `described` was in each load that raw holds; None for a load with plain ids."""
    if not table_exists(con, "raw", "loads"):
        return []
    options = con.execute("select options from raw.loads order by load_id").fetchall()
    return [json.loads(text).get("pseudonyms") for (text,) in options]
