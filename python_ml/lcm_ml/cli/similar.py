"""`lcm-ml similar`: products like a product, users like a user."""

from datetime import datetime
from typing import Annotated, Any

import typer

from lcm_ml.cli.console import JsonOption, command, emit, notify, out, progress
from lcm_ml.cli.recommend import read_history

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Products like a product, users like a user.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
AsOf = Annotated[
    datetime | None,
    typer.Option("--as-of", help="One of marts.as_of_dates. Default: the end of the data.", formats=["%Y-%m-%d"]),
]
K = Annotated[int, typer.Option("--k", help="How many.", min=1, max=1000)]


@app.command()
def items(
    product_id: Annotated[str, typer.Argument(help="A product of marts.products, or one that was bought.")],
    k: K = 10,
    as_of: AsOf = None,
    as_json: JsonOption = False,
) -> None:
    """Show products in stock that are like a product: by the users they share, and by their attributes and words.

    Example: `lcm-ml similar items P00017 --k 5`
    """
    with command(as_json):
        with progress("similar items", as_json) as advance:
            result = run_similar("items", product_id, k, as_of, advance)
        emit(result, as_json, _show_items)


@app.command()
def users(
    user_id: Annotated[str, typer.Argument(help="A user of marts.user_lifecycle or staging.stg_users.")],
    k: K = 10,
    as_of: AsOf = None,
    as_json: JsonOption = False,
) -> None:
    """Show users who buy and look at the same products; rare products count more.

    Example: `lcm-ml similar users U00233 --json`
    """
    with command(as_json):
        with progress("similar users", as_json) as advance:
            result = run_similar("users", user_id, k, as_of, advance)
        emit(result, as_json, _show_users)


def run_similar(kind: str, wanted: str, k: int, as_of: datetime | None, advance: Any) -> dict[str, Any]:
    """Find what is like `wanted`, as known at a date; nothing is written.

    Raises:
        LcmError: when the id is not known at that date, or the marts cannot be read.
    """
    from lcm_ml.errors import LcmError
    from lcm_ml.frames.frame import built_settings, resolve_as_of
    from lcm_ml.insights.recommend.settings import Settings
    from lcm_ml.insights.recommend.similar import similar_items, similar_users
    from lcm_ml.warehouse.connection import connect

    advance("reading", 0.1)
    with connect(read_only=True, notify=notify) as con:
        settings = Settings.of(built_settings(con))
        day = resolve_as_of(con, as_of.date() if as_of else None)
        history = read_history(con, day, settings)
    advance("comparing", 0.6)
    if kind == "items":
        ids, tables = history.products["product_id"], "marts.products and marts.shop_events"
    else:
        ids, tables = history.users["user_id"], "staging.stg_users and marts.shop_events"
    name = {"items": "product", "users": "user"}[kind]
    if wanted not in ids:
        raise LcmError(f"there is no {name} {wanted!r} in {tables} before {day}", "take an id of these tables")
    find = similar_items if kind == "items" else similar_users
    return {f"{name}_id": wanted, "as_of_date": day, "similar": find(history, wanted, k).to_dicts()}


def _show_items(result: dict[str, Any]) -> None:
    from rich.table import Table

    if not result["similar"]:
        out.print(f"nothing in stock is like {result['product_id']} at {result['as_of_date']}")
        return
    out.print(f"like {result['product_id']} at {result['as_of_date']}")
    table = Table("product", "title", "category", "users in common", "by users", "by content", box=None)
    for row in result["similar"]:
        table.add_row(
            row["product_id"],
            row["title"] or "-",
            row["category"] or "-",
            f"{row['users_in_common']:,}",
            f"{row['by_users']:.3f}",
            f"{row['by_content']:.3f}",
        )
    out.print(table)


def _show_users(result: dict[str, Any]) -> None:
    from rich.table import Table

    if not result["similar"]:
        out.print(f"nobody shares a product with {result['user_id']} before {result['as_of_date']}")
        return
    out.print(f"like {result['user_id']} at {result['as_of_date']}")
    table = Table("user", "similarity", "products in common", "above all", box=None)
    for row in result["similar"]:
        table.add_row(row["user_id"], f"{row['similarity']:.3f}", f"{row['products_in_common']:,}", row["shared"])
    out.print(table)
