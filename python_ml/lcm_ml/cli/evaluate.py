"""`lcm-ml evaluate`: how good the models are, date by date, from what was known at each."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lcm_ml.cli.console import JsonOption, command, emit, notify, out, progress
from lcm_ml.cli.fit import MODEL_HELP, chosen_models

if TYPE_CHECKING:
    from lcm_ml.churn.training import FitOptions


def evaluate(
    folds: Annotated[int, typer.Option(help="Labelled dates to predict, the latest ones.", min=1)] = 4,
    model: Annotated[list[str] | None, typer.Option("--model", help=MODEL_HELP)] = None,
    seed: Annotated[int, typer.Option(help="Same seed and data, same figures.", min=0)] = 0,
    resamples: Annotated[int, typer.Option(help="Bootstrap resamples for the intervals.", min=50)] = 500,
    by: Annotated[
        Literal["lifecycle_stage", "tenure_band", "value_band"] | None, typer.Option(help="Show figures by group too.")
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option(help="OUT/truth of `lcm-ml simulate --preset plain`: adds the best that can be done."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Rolling-origin evaluation: each of the last dates is predicted by models trained on earlier ones alone.

    It saves no model and leaves the champion as it is.

    Example: `lcm-ml evaluate --folds 4`
    """
    with command(as_json):
        from lcm_ml.churn.estimator import DEFAULT_MODELS
        from lcm_ml.churn.training import FitOptions

        names = tuple(dict.fromkeys(model or DEFAULT_MODELS))
        with progress("evaluate", as_json) as advance:
            result = run_evaluate(FitOptions(names, seed, folds, resamples), advance, truth)
        emit(result, as_json, lambda found: _show(found, by))


def run_evaluate(options: "FitOptions", advance: Any, truth: Path | None = None) -> dict[str, Any]:
    """Read the marts, predict each date from earlier ones, write the figures and predictions.

    Raises:
        LcmError: when the marts cannot be read, no date can be predicted, or the warehouse cannot be written.
    """
    from dataclasses import asdict

    from lcm_ml.churn import records
    from lcm_ml.churn.assessment import assessment_tables, read_yardstick
    from lcm_ml.churn.baselines import RECENCY
    from lcm_ml.churn.ceiling import reached, read_truth, with_ceiling
    from lcm_ml.churn.evaluation import compare, draws_for, means, measure_folds, predict_folds, rolling_splits
    from lcm_ml.frames.frame import read, training_frame
    from lcm_ml.registry.runs import Run, failure_recorded, record
    from lcm_ml.warehouse.connection import connect
    from lcm_ml.warehouse.state import settings

    models = chosen_models(options.models)
    advance("reading marts", 0.0)
    run = Run("evaluate", {**asdict(options), "truth": truth is not None}, options.seed)
    known = read_truth(truth) if truth else None
    with connect(read_only=True, notify=notify) as con:
        frame = training_frame(con)
        yardstick = read_yardstick(con, frame, settings(con))
        orders = read(con, "select user_id, ordered_at from intermediate.int_orders") if known else None
    with failure_recorded(run, notify):
        run.data_fingerprint = frame.fingerprint()
        splits = rolling_splits(frame, options.folds)
        folds = predict_folds(frame, splits, models, options.seed, lambda what, share: advance(what, 0.8 * share))
        if known and orders is not None:
            folds = [with_ceiling(fold, known, orders, frame) for fold in folds]
        draws = draws_for(folds, options.seed, options.resamples)
        figures = measure_folds(folds, draws, lambda what, share: advance(what, 0.8 + 0.15 * share))
        mean = means(figures)
        comparisons = records.comparison_rows(run.run_id, compare(figures, models))
        advance("writing", 0.95)
        tables = {
            "model_metrics": records.rows_frame(
                [
                    *records.metric_rows(run.run_id, "fold", figures),
                    *records.mean_rows(run.run_id, "fold", figures, mean),
                ]
            ),
            "model_comparisons": records.rows_frame(comparisons),
            **assessment_tables(run.run_id, folds, draws, yardstick),
        }
        record(run, lambda _: tables, notify)
    return {
        "run_id": run.run_id,
        "folds": [
            {
                "as_of_date": fold.as_of_date,
                "users": fold.n_users,
                "churned": fold.n_churned,
                "models": records.figures(fold.models),
            }
            for fold in figures
        ],
        "mean": records.figures(mean),
        "comparisons": comparisons,
        "segments": tables["segment_metrics"].to_dicts(),
        "reached": reached(mean, RECENCY, [recipe.name for recipe in models]) if known else [],
    }


def _show(result: dict[str, Any], by: str | None) -> None:
    from lcm_ml.cli.metric_table import comparison_lines, metric_table, segment_table

    for fold in result["folds"]:
        title = f"{fold['as_of_date']}: {fold['users']:,} users, {fold['churned']:,} churned"
        out.print(metric_table(title, fold["models"]))
    out.print(metric_table(f"mean of {len(result['folds'])} dates", result["mean"]))
    models = {row["model_name"] for row in result["comparisons"]}
    best = min(models, key=lambda name: result["mean"][name]["log_loss"]["value"])
    for line in comparison_lines(result["comparisons"], best):
        out.print(line)
    if by:
        out.print(segment_table(result["segments"], best, by))
    for row in result["reached"]:
        out.print(
            f"{row['model_name']}: {row['share']:.1%} of the way from recency to the ceiling in {row['metric']} "
            f"({row['baseline']:.4f} -> {row['value']:.4f} of {row['ceiling']:.4f})"
        )
