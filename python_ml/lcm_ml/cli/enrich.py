"""`lcm-ml enrich`: features made in Python are kept only if they help out of time."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lcm_ml.cli.console import Advance, JsonOption, command, emit, notify, out, progress
from lcm_ml.cli.fit import MODEL_HELP, chosen_models

if TYPE_CHECKING:
    import duckdb
    import polars as pl

    from lcm_ml.churn.ablation import Ablation


def enrich(
    group: Annotated[
        list[str] | None,
        typer.Option("--group", help="Measure this candidate group alone; may be repeated. Default: all."),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help=f"{MODEL_HELP} Here the first one decides; default: the champion's."),
    ] = None,
    folds: Annotated[int, typer.Option(help="Dates that decide, before the last labelled one.", min=1)] = 4,
    seed: Annotated[int, typer.Option(help="Same seed and data, same figures.", min=0)] = 0,
    resamples: Annotated[int, typer.Option(help="Bootstrap resamples for the intervals.", min=50)] = 500,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Measure nothing: only compute kept groups at dates that lack them.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure groups of candidate features with and without, out of time, and keep those that help.

    A group is kept when the whole 95 % interval of the difference in log loss lies below 0. The last labelled date
    takes no part in the choice; what the groups do there is told separately. Values of kept groups go to
    ml.user_extra_features, which `lcm-ml fit` and `lcm-ml score` read. Fit again when the choice has changed.

    Example: `lcm-ml enrich --group interests --model logistic`
    """
    with command(as_json):
        with progress("enrich", as_json) as advance:
            if refresh:
                result = run_refresh(advance)
            else:
                result = run_enrich(tuple(group or ()), tuple(model or ()), folds, seed, resamples, advance)
        emit(result, as_json, _show_refreshed if refresh else _show)


def run_enrich(
    groups: tuple[str, ...], models: tuple[str, ...], folds: int, seed: int, resamples: int, advance: Advance
) -> dict[str, Any]:
    """Compute the candidates, measure, choose, write the figures and the values of what is kept.

    Raises:
        LcmError: when the marts cannot be read, there are too few dates, a group cannot be made, or the warehouse
            cannot be written.
        UsageError: for a group or model that there is not.
    """
    from lcm_ml.churn.ablation import ablate
    from lcm_ml.frames import extra_features as extras
    from lcm_ml.frames.frame import built_settings, scoring_date, training_frame
    from lcm_ml.insights.candidates import MART_GROUPS, candidates, code_of, make_features
    from lcm_ml.registry.runs import Run, failure_recorded, record
    from lcm_ml.warehouse.connection import connect

    run = Run("enrich", {"groups": groups, "models": models, "folds": folds, "resamples": resamples}, seed)
    with failure_recorded(run, notify):
        with connect(read_only=True, notify=notify) as con:
            settings = built_settings(con)
            chosen = models or (_champion(con),)
            makers = candidates(settings.get("candidate_features") or {}, groups)
            frame = extras.without_candidates(con, training_frame(con))
            day, dates = scoring_date(con), extras.dates_read(con)
            values = {}
            for done, (name, make) in enumerate(makers.items()):
                advance(f"computing {name}", 0.3 * done / len(makers))
                values[name] = extras.of_population(con, make_features(name, make, con, dates), dates)
            inputs = {name: extras.inputs_of(con, code_of(make)) for name, make in makers.items()}
            before = extras.present(con)
        recipes = chosen_models(chosen)
        run.data_fingerprint = frame.fingerprint()
        found = ablate(
            frame,
            {name: _wide(rows) for name, rows in values.items() if rows.height},
            {} if groups else MART_GROUPS,
            recipes,
            folds,
            seed,
            resamples,
            lambda what, share: advance(what, 0.3 + 0.65 * share),
        )
        empty = [name for name, rows in values.items() if not rows.height]
        advance("writing", 0.97)
        rows = {name: extras.stored(values[name], name, inputs[name], run.run_id) for name in found.kept}
        written = {(name, when) for name, frame in rows.items() for when in frame["as_of_date"].unique()}
        # Groups that were not measured now stay as they are.
        gone = sorted(key for key in before if key[0] in makers and key not in written)

        def tables(con: "duckdb.DuckDBPyConnection") -> "dict[str, pl.DataFrame]":
            extras.replace_values(con, rows, gone)
            return {"feature_ablation": _rows(found, run.run_id, day)}

        record(run, tables, notify)
    return {
        "run_id": run.run_id,
        "as_of_date": day,
        "models": [recipe.name for recipe in recipes],
        "effects": _rows(found, run.run_id, day).drop("run_id", "as_of_date").to_dicts(),
        "kept": list(found.kept),
        "changed": sorted({name for name, _ in before if name in makers} ^ set(found.kept)),
        "values": sum(frame.height for frame in rows.values()),
        "note": f"no values here, so not measured: {', '.join(empty)}" if empty else None,
    }


def run_refresh(advance: Advance) -> dict[str, Any]:
    """Compute the kept groups at the dates that models read and that lack them, or whose inputs or code changed.

    Raises:
        LcmError: when the marts cannot be read, a group cannot be made, or the warehouse cannot be written.
    """
    from lcm_ml.frames import extra_features as extras
    from lcm_ml.frames.frame import built_settings
    from lcm_ml.insights.candidates import candidates, code_of, make_features
    from lcm_ml.registry.runs import Run, failure_recorded, record
    from lcm_ml.warehouse.connection import connect

    run = Run("enrich", {"refresh": True})
    with failure_recorded(run, notify):
        with connect(read_only=True, notify=notify) as con:
            settings = built_settings(con)
            kept = extras.kept_groups(con)
            if not kept:
                return {"run_id": None, "kept": [], "computed": [], "values": 0, "note": "no candidate group is kept"}
            makers = candidates(settings.get("candidate_features") or {}, kept)
            dates, before = extras.dates_read(con), extras.present(con)
            rows = {}
            for done, (name, make) in enumerate(makers.items()):
                inputs = extras.inputs_of(con, code_of(make))
                lacking = [day for day in dates if before.get((name, day)) != inputs[day]]
                if lacking:
                    advance(f"computing {name} at {len(lacking)} dates", 0.9 * done / len(makers))
                    values = extras.of_population(con, make_features(name, make, con, lacking), lacking)
                    rows[name] = extras.stored(values, name, inputs, run.run_id)
        written = [(name, day) for name, frame in rows.items() for day in frame["as_of_date"].unique().sort()]
        gone = [key for key in before if key[0] in kept and key[1] not in dates]
        if written or gone:

            def tables(con: "duckdb.DuckDBPyConnection") -> "dict[str, pl.DataFrame]":
                extras.replace_values(con, rows, gone)
                return {}

            record(run, tables, notify)
    return {
        "run_id": run.run_id if written or gone else None,
        "kept": kept,
        "computed": [{"feature_group": name, "as_of_date": day} for name, day in written],
        "values": sum(frame.height for frame in rows.values()),
        "note": None,
    }


def _champion(con: "duckdb.DuckDBPyConnection") -> str:
    """The champion's estimator; before there is one, the first of the defaults."""
    from lcm_ml.churn.estimator import DEFAULT_MODELS
    from lcm_ml.warehouse.connection import first_row, table_exists

    found = None
    if table_exists(con, "ml", "model_versions"):
        found = first_row(con, "select model_name from ml.model_versions where status = 'champion'")
    return str(found[0]) if found else DEFAULT_MODELS[0]


def _wide(values: "pl.DataFrame") -> "pl.DataFrame":
    return values.sort("feature").pivot(on="feature", index=["user_id", "as_of_date"], values="value")


def _rows(found: "Ablation", run_id: str, day: Any) -> "pl.DataFrame":
    """Effects as rows of ml.feature_ablation."""
    import polars as pl

    from lcm_ml.churn.ablation import TOGETHER
    from lcm_ml.churn.metrics import figure

    rows = []
    for effect in found.effects:
        told = figure(effect.difference)
        rows.append(
            {
                "run_id": run_id,
                "as_of_date": day,
                "feature_group": effect.group,
                "model_name": effect.model,
                "metric": effect.metric,
                "comparison": effect.comparison,
                "split": effect.split,
                "value_with": figure(effect.with_it)["value"],
                "value_without": figure(effect.without)["value"],
                "difference": told["value"],
                "ci_low": told["ci_low"],
                "ci_high": told["ci_high"],
                "n_dates": effect.n_dates,
                "n_features": effect.n_features,
                "is_deciding": effect.model == found.deciding,
                "is_kept": None if effect.group == TOGETHER else effect.group in (*found.kept, *found.useful),
            }
        )
    return pl.DataFrame(rows, infer_schema_length=None)


def _show(result: dict[str, Any]) -> None:
    from rich.table import Table

    titles = {"choice": "the dates that decide", "last_date": "the last labelled date, which had no say"}
    for split, title in titles.items():
        rows = [row for row in result["effects"] if row["split"] == split]
        for model in dict.fromkeys(row["model_name"] for row in rows):
            table = Table(title=f"{model}, {title}: with the group less without it", title_justify="left")
            for header in ("group", "measured", "features", "log loss (below 0 helps)", "AUC (above 0 helps)"):
                table.add_column(header)
            own = [row for row in rows if row["model_name"] == model]
            figures = {(row["feature_group"], row["comparison"], row["metric"]): row for row in own}
            for (group, comparison, metric), row in figures.items():
                if metric == "log_loss":
                    table.add_row(
                        group,
                        comparison.replace("_", " "),
                        str(row["n_features"]),
                        _change(row),
                        _change(figures[group, comparison, "auc"]),
                    )
            out.print(table)
    if result["note"]:
        out.print(result["note"])
    out.print(f"kept: {', '.join(result['kept']) or 'none'} ({result['values']:,} values written)")
    if result["changed"]:
        out.print("the features of the model have changed: run `lcm-ml fit` before the next `lcm-ml score`")


def _change(row: dict[str, Any]) -> str:
    if row["difference"] is None:
        return "-"
    interval = "" if row["ci_low"] is None else f" ({row['ci_low']:+.4f} to {row['ci_high']:+.4f})"
    return f"{row['difference']:+.4f}{interval}"


def _show_refreshed(result: dict[str, Any]) -> None:
    if result["note"]:
        out.print(result["note"])
        return
    out.print(
        f"kept groups: {', '.join(result['kept'])}; {result['values']:,} values computed at "
        f"{len({row['as_of_date'] for row in result['computed']})} dates that lacked them"
    )
