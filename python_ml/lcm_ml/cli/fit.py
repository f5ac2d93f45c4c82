"""`lcm-ml fit`: train the churn models and choose the champion."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lcm_ml.cli.console import JsonOption, command, emit, notify, out, progress, show_share
from lcm_ml.errors import UsageError

MODEL_HELP = (
    "logistic, xgboost, random_forest, decision_tree, gradient_boosting, neural_network, ensemble, or one of the var "
    "custom_estimators; may be repeated. Default: logistic and xgboost."
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl

    from lcm_ml.churn.assessment import Yardstick
    from lcm_ml.churn.estimator import Recipe
    from lcm_ml.churn.training import FitOptions, FitResult
    from lcm_ml.frames.frame import Frame
    from lcm_ml.registry.runs import Run


def fit(
    model: Annotated[list[str] | None, typer.Option("--model", help=MODEL_HELP)] = None,
    seed: Annotated[int, typer.Option(help="Same seed and data, same scores.", min=0)] = 0,
    folds: Annotated[int, typer.Option(help="Validation dates that choose the champion.", min=1)] = 4,
    resamples: Annotated[int, typer.Option(help="Bootstrap resamples for the intervals.", min=50)] = 500,
    tune: Annotated[
        int, typer.Option(help="Search settings with this many trials per model; a stopped search goes on.", min=0)
    ] = 0,
    accept_changed_features: Annotated[
        bool, typer.Option("--accept-changed-features", help="Features of past dates were redefined on purpose.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Promote the best model whatever the rule says.")] = False,
    why: Annotated[str | None, typer.Option(help="The reason for --force, kept in ml.model_promotions.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Train churn models on the dates with labels; the latest date tests, those before it choose the champion.

    The best, refitted on all labelled dates, becomes the champion, which `lcm-ml score` uses, unless that would be a
    step back: see `lcm-ml models promote --help` for the rule.

    Example: `lcm-ml fit --model logistic --model xgboost --model ensemble --seed 7`
    """
    with command(as_json):
        from lcm_ml.churn.estimator import DEFAULT_MODELS
        from lcm_ml.churn.training import FitOptions

        reason = forced_reason(force, why)
        names = tuple(dict.fromkeys(model or DEFAULT_MODELS))
        with progress("fit", as_json) as advance:
            result = run_fit(FitOptions(names, seed, folds, resamples, tune, accept_changed_features), advance, reason)
        emit(result, as_json, _show)


def forced_reason(force: bool, why: str | None) -> str | None:
    """The reason for overruling the promotion rule, or None.

    Raises:
        UsageError: when only one of --force and --why is given.
    """
    if force != bool(why):
        raise UsageError("--force and --why go together", "say why the rule is overruled: --force --why 'reason'")
    return why


def chosen_models(names: "Sequence[str]") -> "tuple[Recipe, ...]":
    """Recipes of these names; the warehouse is asked only for names of the var custom_estimators.

    Raises:
        UsageError: for a name that there is not.
        LcmError: for a class of the user's own that cannot be used.
    """
    from lcm_ml import project
    from lcm_ml.churn.estimator import ESTIMATORS, recipes
    from lcm_ml.warehouse.connection import connect, table_exists
    from lcm_ml.warehouse.state import settings

    custom: dict[str, Any] = {}
    if set(names) - set(ESTIMATORS) and project.warehouse_path().exists():
        with connect(read_only=True, notify=notify) as con:
            custom = settings(con).get("custom_estimators", {}) if table_exists(con, "meta", "settings") else {}
    return recipes(names, custom)


def run_fit(options: "FitOptions", advance: Any, why: str | None = None) -> dict[str, Any]:
    """Read the marts, fit, save the artefacts, write the tables.

    Raises:
        LcmError: when the marts cannot be read, the data allows no fit, or the warehouse cannot be written.
    """
    from dataclasses import asdict

    from lcm_ml.churn.assessment import read_yardstick
    from lcm_ml.churn.training import fit_models
    from lcm_ml.frames.frame import training_frame
    from lcm_ml.frames.steadiness import changed_features, fingerprints, refuse_changed
    from lcm_ml.registry.runs import Run, failure_recorded
    from lcm_ml.registry.studies import tuned
    from lcm_ml.warehouse.connection import connect
    from lcm_ml.warehouse.state import settings

    models = chosen_models(options.models)
    advance("reading marts", 0.0)
    run = Run("fit", asdict(options), options.seed)
    # Closed before training starts: nobody waits for a fit.
    with connect(read_only=True, notify=notify) as con:
        frame = training_frame(con)
        yardstick = read_yardstick(con, frame, settings(con))
        prints = fingerprints(con, frame, run.run_id, run.started_at)
        changed = changed_features(con, prints)
    with failure_recorded(run, notify):
        if not options.accept_changed_features:
            refuse_changed(changed)
        run.data_fingerprint = frame.fingerprint()
        searched = 0.8 if options.tune else 0.0
        if options.tune:
            models = tuned(models, frame, options, run, lambda what, share: advance(what, searched * share), notify)
        found = fit_models(frame, models, options, lambda what, share: advance(what, searched + (1 - searched) * share))
        advance("writing", 0.95)
        return _keep(run, frame, yardstick, prints, found, why)


def _keep(
    run: "Run", frame: "Frame", yardstick: "Yardstick", prints: "pl.DataFrame", found: "FitResult", why: str | None
) -> dict[str, Any]:
    """Artefacts first, then all rows: a folder without a row harms nobody, a row without its folder would."""
    from lcm_ml.churn import records
    from lcm_ml.churn.assessment import assessment_tables
    from lcm_ml.churn.importance import permutation_rows
    from lcm_ml.churn.metrics import figure
    from lcm_ml.registry import artefacts
    from lcm_ml.registry.promotion import Contender, Verdict, current_champion, judge, promotion_row
    from lcm_ml.registry.runs import record
    from lcm_ml.registry.versions import succeeded_by, version_row
    from lcm_ml.warehouse.connection import connect

    def facts(name: str) -> dict[str, Any]:
        metrics = found.test_figures.models[name]
        return {
            "run_id": run.run_id,
            "data_fingerprint": run.data_fingerprint,
            "validation_date": found.split.validation.isoformat(),
            "test_date": found.split.test.isoformat(),
            "test_metrics": {metric: figure(value) for metric, value in metrics.items()},
        }

    versions = {name: f"{name}-{run.stamp}-evaluated" for name in found.evaluated}
    rows = []
    for name, model in found.evaluated.items():
        saved = artefacts.save(model, versions[name], facts(name))
        status = "evaluated" if name == found.champion else "challenger"
        rows.append(version_row(model, versions[name], saved, run, status))
    served_version, evaluated = f"{found.champion}-{run.stamp}", versions[found.champion]
    saved = artefacts.save(found.served, served_version, facts(found.champion) | {"evaluated_version": evaluated})
    candidate = version_row(found.served, served_version, saved, run, "challenger", evaluated)
    contender = Contender(candidate, (found.served, found.evaluated[found.champion]))
    with connect(notify=notify) as con:
        before = current_champion(con)
        verdict = Verdict(True, why) if why else judge(con, contender, frame)
    if verdict.promote:
        candidate["status"] = "champion"
    rows.append(candidate)
    decision = promotion_row(
        "promote" if verdict.promote else "refuse",
        served_version,
        before["model_version"] if before else None,
        verdict.reason,
        forced=why is not None,
        difference=verdict.difference,
    )

    mean = found.latest_means()
    metrics = [
        *records.metric_rows(run.run_id, "validation", found.validation),
        *records.metric_rows(run.run_id, "test", [found.test_figures], versions),
        *records.metric_rows(run.run_id, "fold", found.latest),
        *records.mean_rows(run.run_id, "fold", found.latest, mean),
    ]
    tables = {
        "model_metrics": records.rows_frame(metrics),
        "model_comparisons": records.rows_frame(records.comparison_rows(run.run_id, found.comparisons)),
        "feature_importance": records.rows_frame(
            [
                *records.importance_rows(run.run_id, found.evaluated.values()),
                *permutation_rows(
                    run.run_id, found.evaluated[found.champion], frame.at(found.split.test), run.seed or 0
                ),
            ]
        ),
        "feature_fingerprints": prints,
        "model_promotions": decision,
        "training_curves": records.curve_rows(run.run_id, found.test),
        **assessment_tables(run.run_id, [found.test], found.draws, yardstick, versions),
    }
    record(run, lambda con: {"model_versions": succeeded_by(con, rows), **tables}, notify)
    return {
        "run_id": run.run_id,
        "best": found.champion,
        "version": served_version,
        "is_promoted": verdict.promote,
        "verdict": verdict.reason,
        "champion_version": served_version if verdict.promote or before is None else before["model_version"],
        "evaluated_version": evaluated,
        "settings": found.served.estimator.settings,
        "calibration": found.served.calibration.kind,
        "rows": frame.data.height,
        "users_share": frame.users_share,
        "features": len(found.served.encoding.columns),
        "constant_columns": list(found.served.constant),
        "data_fingerprint": run.data_fingerprint,
        "train_from": found.split.train[0],
        "train_to": found.split.train[-1],
        "validation_date": found.split.validation,
        "validation_dates": [fold.as_of_date for fold in found.validation],
        "test_date": found.split.test,
        "test_users": found.test_figures.n_users,
        "test_churned": found.test_figures.n_churned,
        "test": records.figures(found.test_figures.models),
        "latest_dates": [fold.as_of_date for fold in found.latest],
        "latest_mean": records.figures(mean),
        "comparisons": records.comparison_rows(run.run_id, found.comparisons),
        "notes": found.notes,
    }


def _show(result: dict[str, Any]) -> None:
    from lcm_ml.cli.metric_table import accuracy_line, calibration_line, comparison_lines, metric_table

    out.print(
        f"trained on {result['train_from']} to {result['validation_date']} (the last one validates), "
        f"{result['features']} features, {result['rows']:,} rows with the test date"
    )
    show_share(result["users_share"])
    out.print(
        metric_table(
            f"test date {result['test_date']}: {result['test_users']:,} users, {result['test_churned']:,} churned",
            result["test"],
            result["best"],
        )
    )
    out.print(calibration_line(result["test"][result["best"]]))
    out.print(accuracy_line(result["test"][result["best"]]))
    dates = result["latest_dates"]
    out.print(
        metric_table(
            f"mean of the last {len(dates)} labelled dates, {dates[0]} to {dates[-1]}",
            result["latest_mean"],
            result["best"],
        )
    )
    for line in comparison_lines(result["comparisons"], result["best"]):
        out.print(line)
    chosen = ", ".join(str(day) for day in result["validation_dates"]) or str(result["validation_date"])
    out.print(f"best: {result['best']}, by log loss on {chosen}; calibration: {result['calibration']}")
    if result["is_promoted"]:
        out.print(f"champion: {result['version']}, refitted on all labelled dates ({result['verdict']})")
    else:
        out.print(f"champion: still {result['champion_version']}; {result['version']} was refused: {result['verdict']}")
        out.print(f"  to promote it all the same: lcm-ml models promote {result['version']} --force --why '...'")
    for note in result["notes"]:
        out.print(f"note: {note}")
    out.print("next: lcm-ml score")
