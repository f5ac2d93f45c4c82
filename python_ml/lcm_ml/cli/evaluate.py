"""`lcm-ml evaluate`: how good the models are, date by date, from what was known at each."""

from typing import TYPE_CHECKING, Annotated, Any

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
            result = run_evaluate(FitOptions(names, seed, folds, resamples), advance)
        emit(result, as_json, _show)


def run_evaluate(options: "FitOptions", advance: Any) -> dict[str, Any]:
    """Read the marts, predict each date from earlier ones, write the figures and predictions.

    Raises:
        LcmError: when the marts cannot be read, no date can be predicted, or the warehouse cannot be written.
    """
    from dataclasses import asdict

    import polars as pl

    from lcm_ml.churn import records
    from lcm_ml.churn.evaluation import compare, means, measure_folds, predict_folds, rolling_splits
    from lcm_ml.frames.frame import training_frame
    from lcm_ml.registry.runs import Run, failure_recorded, record
    from lcm_ml.warehouse.connection import connect

    models = chosen_models(options.models)
    advance("reading marts", 0.0)
    run = Run("evaluate", asdict(options), options.seed)
    with connect(read_only=True, notify=notify) as con:
        frame = training_frame(con)
    with failure_recorded(run, notify):
        run.data_fingerprint = frame.fingerprint()
        splits = rolling_splits(frame, options.folds)
        folds = predict_folds(frame, splits, models, options.seed, lambda what, share: advance(what, 0.8 * share))
        figures = measure_folds(
            folds, options.seed, options.resamples, lambda what, share: advance(what, 0.8 + 0.15 * share)
        )
        mean = means(figures)
        comparisons = records.comparison_rows(run.run_id, compare(figures))
        advance("writing", 0.95)
        tables = {
            "model_metrics": records.rows_frame(
                [
                    *records.metric_rows(run.run_id, "fold", figures),
                    *records.mean_rows(run.run_id, "fold", figures, mean),
                ]
            ),
            "model_comparisons": records.rows_frame(comparisons),
            "evaluation_predictions": pl.concat(records.prediction_rows(run.run_id, fold) for fold in folds),
            "calibration_bins": records.rows_frame(
                [row for fold in folds for row in records.calibration_rows(run.run_id, fold)]
            ),
            "lift_bins": records.rows_frame([row for fold in folds for row in records.lift_rows(run.run_id, fold)]),
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
    }


def _show(result: dict[str, Any]) -> None:
    from lcm_ml.cli.metric_table import comparison_lines, metric_table

    for fold in result["folds"]:
        title = f"{fold['as_of_date']}: {fold['users']:,} users, {fold['churned']:,} churned"
        out.print(metric_table(title, fold["models"]))
    out.print(metric_table(f"mean of {len(result['folds'])} dates", result["mean"]))
    for line in comparison_lines(result["comparisons"]):
        out.print(line)
