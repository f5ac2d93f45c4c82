"""`lcm-ml recommend`: a list of products for every user, with reasons, and how good such lists are."""

from collections import Counter
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lcm_ml.cli.console import Advance, AsOfOption, JsonOption, command, emit, notify, out, progress, with_interval

if TYPE_CHECKING:
    import duckdb
    import polars as pl

    from lcm_ml.insights.recommend.history import History
    from lcm_ml.insights.recommend.recommend import Dated
    from lcm_ml.warehouse.packed import Rows

EXAMPLES = 3


def recommend(
    as_of: AsOfOption = None,
    evaluate: Annotated[
        bool | None,
        typer.Option(
            "--evaluate/--no-evaluate",
            help="Measure all models on the last horizon before the date. Default: where that was not done yet.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of factors, trees and resamples.", min=0)] = 0,
    as_json: JsonOption = False,
) -> None:
    """Recommend products to every user, and tell why; measure the lists on purchases that came after.

    Example: `lcm-ml recommend --evaluate`
    """
    with command(as_json):
        with progress("recommend", as_json) as advance:
            result = run_recommend(as_of, advance, evaluate=evaluate, seed=seed)
        emit(result, as_json, _show)


def run_recommend(
    as_of: datetime | None, advance: Advance, *, evaluate: bool | None = None, seed: int = 0
) -> dict[str, Any]:
    """Fit, rank, write, tell.

    Args:
        as_of: one of marts.as_of_dates; the end of the data where None.
        advance: told how far it is.
        evaluate: whether to measure; where None, only when ml.recommendation_metrics lacks the newest date whose
            horizon lies before `as_of`.
        seed: of everything that is drawn.

    Raises:
        LcmError: when the marts cannot be read or the warehouse cannot be written.
    """
    import polars as pl

    from lcm_ml.frames.frame import built_settings
    from lcm_ml.frames.interactions import purchases_between
    from lcm_ml.insights.recommend.lists import HYBRID
    from lcm_ml.insights.recommend.recommend import NO_RANKER, dated, evaluated, recommended, taught
    from lcm_ml.insights.recommend.settings import Settings
    from lcm_ml.memory import give_back
    from lcm_ml.registry.runs import Run, run_capability
    from lcm_ml.warehouse.packed import Packed

    run = Run("recommend", {"evaluate": evaluate}, seed)

    def compute(con: "duckdb.DuckDBPyConnection", day: date) -> "tuple[dict[str, Rows], dict[str, Any]]":
        settings = Settings.of(built_settings(con))
        horizon = timedelta(days=settings.horizon_days)

        def at(when: date, is_over: bool) -> "Dated":
            give_back()
            purchased = purchases_between(con, when, when + horizon) if is_over else None
            return dated(read_history(con, when, settings), purchased, seed)

        # One history at a time: each holds what every user did.
        before, figures = day - horizon, None
        if is_measured := evaluate or (evaluate is None and not _is_measured(con, before)):
            advance(f"learning from {before - horizon}", 0.05)
            earlier = taught([at(before - horizon, True)], seed)
        advance(f"learning from {before}", 0.3)
        lesson = at(before, True)
        if is_measured:
            advance(f"measuring at {before}", 0.45)
            figures = evaluated(lesson, earlier, seed)
        advance("learning to rank", 0.6)
        ranker = taught([lesson], seed)
        del lesson
        advance("reading", 0.65)
        now = at(day, False)
        lists, counts = Packed(), []
        examples: list[dict[str, Any]] = []
        for part in recommended(now, ranker, settings.count, lambda share: advance("listing", 0.7 + 0.2 * share)):
            lists.add(part)
            counts.append(_counted(part))
            examples += _examples(part, now.history) if len(examples) < EXAMPLES else []
        advance("writing", 0.9)
        tables: dict[str, Rows] = {"recommendations": lists.fill({"model_name": HYBRID})}
        if figures is not None:
            tables["recommendation_metrics"] = figures.with_columns(as_of_date=pl.lit(before))
        return tables, {
            "users": now.history.n_users,
            **_totals(counts),
            "examples": examples[:EXAMPLES],
            "evaluated_date": before if figures is not None else None,
            "metrics": figures.to_dicts() if figures is not None else [],
            "note": "; ".join([*now.models.notes, *([NO_RANKER] if ranker is None else [])]) or None,
        }

    day, told = run_capability(run, as_of, compute, notify)
    return {"run_id": run.run_id, "as_of_date": day, **told}


def read_history(con: "duckdb.DuckDBPyConnection", as_of: date, settings: Any) -> "History":
    """What was known at a date."""
    from lcm_ml.frames.events import products_at
    from lcm_ml.frames.interactions import interactions_before, users_at
    from lcm_ml.insights.recommend.history import make_history

    return make_history(con, interactions_before(as_of), products_at(con, as_of), users_at(con, as_of), as_of, settings)


def _is_measured(con: "duckdb.DuckDBPyConnection", day: date) -> bool:
    from lcm_ml.warehouse.connection import first_row, table_exists

    if not table_exists(con, "ml", "recommendation_metrics"):
        return False
    return first_row(con, "select 1 from ml.recommendation_metrics where as_of_date = ? limit 1", [day]) is not None


def _counted(lists: "pl.DataFrame") -> dict[str, Any]:
    """Figures of the lists of some users, which add up."""
    return {
        "users_with_a_list": lists["user_id"].n_unique(),
        "recommendations": lists.height,
        "cold_start_users": lists.filter("is_cold_start")["user_id"].n_unique(),
        "repeats": int(lists["is_repeat"].sum()),
        "sources": dict(lists["source"].value_counts().iter_rows()),
    }


def _totals(counts: list[dict[str, Any]]) -> dict[str, Any]:
    names = ("users_with_a_list", "recommendations", "cold_start_users", "repeats")
    total = {name: sum(part[name] for part in counts) for name in names}
    sources: Counter[str] = Counter()
    for part in counts:
        sources.update(part["sources"])
    rows, repeats = total["recommendations"], total.pop("repeats")
    return total | {"repeat_share": repeats / rows if rows else None, "sources": dict(sorted(sources.items()))}


def _examples(lists: "pl.DataFrame", history: "History") -> list[dict[str, Any]]:
    import polars as pl

    titles = history.products.select("product_id", title=pl.coalesce("title", "category", "product_id"))
    firsts = lists.filter(rank=1).sort("user_id").head(EXAMPLES)
    found = firsts.join(titles, on="product_id", how="left", maintain_order="left")
    return found.select("user_id", "product_id", "title", "explanation").to_dicts()


def _show(result: dict[str, Any]) -> None:
    from rich.table import Table

    out.print(
        f"recommended at {result['as_of_date']}: {result['recommendations']:,} products to "
        f"{result['users_with_a_list']:,} of {result['users']:,} users, {result['cold_start_users']:,} of them without "
        "a purchase"
    )
    if result["note"]:
        out.print(result["note"])
    for example in result["examples"]:
        out.print(f"  {example['user_id']}: {example['title']} ({example['explanation']})")
    if not result["metrics"]:
        return
    out.print(f"\nlists of {result['evaluated_date']} against the purchases of the horizon after it (95 % intervals)")
    cells = {
        (row["model_name"], row["metric"], row["k"]): row for row in result["metrics"] if row["reference_name"] is None
    }
    shown = {"ndcg": "NDCG@10", "recall": "recall@10", "map": "MAP@10", "coverage": "coverage@10", "novelty": "bits@10"}
    table = Table("model", *shown.values(), box=None)
    names = dict.fromkeys(name for name, _, _ in cells)
    for name in sorted(names, key=lambda name: -cells[name, "ndcg", 10]["value"]):
        table.add_row(name, *(with_interval(cells[name, metric, 10]) for metric in shown))
    out.print(table)
    for row in result["metrics"]:
        if row["reference_name"] is not None and (row["metric"], row["k"]) == ("ndcg", 10):
            out.print(f"{row['model_name']} less {row['reference_name']}, NDCG@10: {with_interval(row)}")
