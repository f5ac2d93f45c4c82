"""The tables' contracts, read from the one place that states them: the dbt source files."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from lcm_ml import project

SOURCE_FILES = {
    "raw": "models/staging/_raw__sources.yml",
    "ml": "models/ml/_ml__sources.yml",
    "meta": "models/meta/_meta__sources.yml",
}


@dataclass(frozen=True)
class Column:
    """A column of a contract. `data_type` is a DuckDB type in lower case."""

    name: str
    data_type: str
    required: bool = False
    sensitive: bool = False
    lineage: bool = False


@dataclass(frozen=True)
class Table:
    """A table of a contract.

    `key` is what a write replaces rows by; empty where it only appends. A table with a `scope` is written a whole
    scope (an as_of_date, say) at a time: what was there for the same values goes.
    """

    schema: str
    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()
    scope: tuple[str, ...] = ()
    cut_column: str | None = None

    @property
    def full_name(self) -> str:
        """schema.table, as SQL takes it."""
        return f"{self.schema}.{self.name}"

    @property
    def column_names(self) -> list[str]:
        """Names in the contract's order."""
        return [column.name for column in self.columns]

    def create_sql(self, name: str | None = None) -> str:
        """`create table if not exists` with the contract's columns."""
        columns = ", ".join(f"{column.name} {column.data_type}" for column in self.columns)
        return f"create table if not exists {name or self.full_name} ({columns})"


def _column(entry: dict[str, Any]) -> Column:
    meta = entry.get("meta", {})
    return Column(
        name=entry["name"],
        data_type=entry["data_type"],
        required=bool(meta.get("required")),
        sensitive=bool(meta.get("sensitive")),
        lineage=bool(meta.get("lineage")),
    )


def read_yaml(path: Path) -> Any:
    """The document in a YAML file."""
    # The loader in C takes a tenth of the time.
    return yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))


@cache
def _read(path: Path, schema: str) -> dict[str, Table]:
    sources = read_yaml(path)["sources"]
    return {
        entry["name"]: Table(
            schema=schema,
            name=entry["name"],
            columns=tuple(_column(column) for column in entry["columns"]),
            key=tuple(entry.get("meta", {}).get("key", ())),
            scope=tuple(entry.get("meta", {}).get("scope", ())),
            cut_column=entry.get("meta", {}).get("cut_column"),
        )
        for source in sources
        for entry in source["tables"]
    }


def tables(schema: str) -> dict[str, Table]:
    """The contract of `schema` (raw, ml or meta): table name to Table."""
    return _read(project.root() / SOURCE_FILES[schema], schema)


SERVED_FILES = ("models/marts/_marts__models.yml", "models/serving/_serving__models.yml")


@dataclass(frozen=True)
class Description:
    """What dbt says of a relation, and of each of its columns; `types` are DuckDB's, in lower case."""

    text: str
    columns: dict[str, str]
    types: dict[str, str]


@cache
def _read_descriptions(root: Path) -> dict[str, Description]:
    documents = [read_yaml(root / file) for file in SERVED_FILES]
    return {
        model["name"]: Description(
            model["description"],
            {column["name"]: column["description"] for column in model["columns"]},
            {column["name"]: column["data_type"] for column in model["columns"] if "data_type" in column},
        )
        for document in documents
        for model in document["models"]
    }


def descriptions() -> dict[str, Description]:
    """Descriptions of the marts and serving relations, by name."""
    return _read_descriptions(project.root())


LOAD_LOG = ("loads", "load_files", "rejected_rows")
KEPT = ("prunings", "kept_days", "kept_orders", "kept_order_products", "kept_sessions", "kept_refunds")
"""What `lcm-ml prune` keeps of events that it removes."""


def raw_inputs() -> dict[str, Table]:
    """The raw tables that a shop's rows go to, without the log of the loads and what is kept of pruned events."""
    return {name: table for name, table in tables("raw").items() if name not in (*LOAD_LOG, *KEPT)}
