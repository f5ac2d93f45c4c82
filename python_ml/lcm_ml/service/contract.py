"""Response models whose columns, types and descriptions are those of the relations' contracts."""

from datetime import UTC, date, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field, create_model

from lcm_ml.warehouse import contracts

# Tables hold UTC without saying so; RFC 3339, which OpenAPI's date-time means, has to say it.
Instant = Annotated[datetime, AfterValidator(lambda instant: instant.replace(tzinfo=UTC))]
TYPES: dict[str, Any] = {
    "varchar": str,
    "integer": int,
    "bigint": int,
    "double": float,
    "boolean": bool,
    "date": date,
    "timestamp": Instant,
}


def row_model(relation: str) -> type[BaseModel]:
    """A model of the relation's rows. All but the user may be null: a snapshot of an earlier version has fewer columns.

    Args:
        relation: a mart or serving relation, by name.
    """
    described = contracts.descriptions()[relation]
    columns: dict[str, Any] = {}
    for name, kind in described.types.items():
        told = described.columns[name]
        if name == "user_id":
            columns[name] = (str, Field(description=told))
        else:
            columns[name] = (TYPES[kind] | None, Field(None, description=told))
    name = "".join(part.capitalize() for part in relation.removesuffix("_latest").split("_")).removesuffix("s")
    return create_model(name, __doc__=described.text, **columns)
