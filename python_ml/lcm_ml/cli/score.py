"""`lcm-ml score`: churn probabilities for every active buyer at one date."""

from datetime import datetime
from typing import Annotated, Any

import typer

from lcm_ml.cli.console import JsonOption, command, emit, notify, out, progress

PREVIOUS = {
    "previous_probability": "churn_probability",
    "previous_decile": "churn_decile",
    "previous_risk_band": "risk_band",
}


def score(
    as_of: Annotated[
        datetime | None,
        typer.Option(
            help="Date to score, one of marts.as_of_dates. Default: the end of the data.", formats=["%Y-%m-%d"]
        ),
    ] = None,
    model_version: Annotated[
        str | None, typer.Option(help="A version of ml.model_versions. Default: the champion.")
    ] = None,
    reasons: Annotated[int, typer.Option(help="Reasons kept for each user; 0 for none.", min=0, max=20)] = 3,
    hints: Annotated[
        bool, typer.Option(help="The smallest change that leaves the high-risk band, for each user in it.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Score the churn population and write ml.churn_scores; a rerun replaces the same rows.

    Example: `lcm-ml score --as-of 2017-12-04`
    """
    with command(as_json):
        with progress("score", as_json) as advance:
            result = run_score(as_of, model_version, advance, reasons, hints=hints)
        emit(result, as_json, _show)


def run_score(
    as_of: datetime | None, model_version: str | None, advance: Any, reasons: int = 3, *, hints: bool = True
) -> dict[str, Any]:
    """Read the features, load the model, score, write.

    Raises:
        LcmError: when there is no such model or date, nobody to score, or the features are not those of training.
    """
    from lcm_ml.churn.current import FullScoring, current_rows, forget_current, limits_of
    from lcm_ml.churn.hints import hint_rows
    from lcm_ml.churn.reasons import reason_rows, usual_values
    from lcm_ml.churn.scoring import Bands, score_rows
    from lcm_ml.errors import LcmError
    from lcm_ml.frames.frame import built_settings, scoring_date, scoring_frame
    from lcm_ml.registry import artefacts
    from lcm_ml.registry.runs import Run, failure_recorded, record, utc_now
    from lcm_ml.registry.versions import FIT, find_version
    from lcm_ml.warehouse.connection import connect

    advance("reading marts", 0.0)
    with connect(read_only=True, notify=notify) as con:
        settings = built_settings(con)
        version = find_version(con, model_version)
        day = as_of.date() if as_of else scoring_date(con)
        frame = scoring_frame(con, day)
        is_newest = day == scoring_date(con)
    run = Run("score", {"as_of": day, "model_version": version["model_version"]}, None)
    with failure_recorded(run, notify):
        run.data_fingerprint = frame.fingerprint()
        advance("scoring", 0.3)
        if version["horizon_days"] != frame.horizon_days:
            raise LcmError(
                f"{version['model_version']} predicts churn over {version['horizon_days']} days, and the warehouse is "
                f"now built for churn_horizon_days = {frame.horizon_days}",
                FIT,
            )
        model, _ = artefacts.load(version["artefact"], version["artefact_hash"])
        bands = Bands.from_settings(settings)
        rows = score_rows(model, version["model_version"], frame, day, bands, run.run_id, utc_now())
        probability = rows.get_column("churn_probability").to_numpy()
        tables, told = {}, None
        usual = usual_values(model, frame) if reasons else {}
        if reasons:
            tables["churn_score_reasons"] = reason_rows(
                model,
                version["model_version"],
                frame,
                probability,
                run.run_id,
                reasons,
                usual,
                lambda share: advance("reasons", 0.4 + 0.1 * share),
            )
        if hints:
            kept_out = settings["non_model_features"]
            actionable = {name: how for name, how in settings["actionable_features"].items() if name not in kept_out}
            told = hint_rows(
                model,
                version["model_version"],
                frame,
                probability,
                run.run_id,
                bands.high,
                actionable,
                lambda share: advance("hints", 0.5 + 0.4 * share),
            )
            tables["churn_hints"] = told.rows
        full = None
        if is_newest:
            full = FullScoring(day, run.run_id, version["model_version"], model, bands, limits_of(rows), usual)

        def written(con: Any) -> dict[str, Any]:
            found = {"churn_scores": _with_history(con, rows), **tables}
            if full:
                # What `lcm-ml watch` scored since the last full scoring is behind this one.
                forget_current(con)
                before = rows.select("user_id", **PREVIOUS)
                found |= current_rows(con, full, None, run.run_id, utc_now(), before, reasons)
            return found

        advance("writing", 0.9)
        record(run, written, notify)
    counts = dict(rows.get_column("risk_band").value_counts().iter_rows())
    return {
        "run_id": run.run_id,
        "as_of_date": day,
        "model_version": version["model_version"],
        "status": version["status"],
        "users": rows.height,
        "mean_probability": rows.get_column("churn_probability").mean(),
        "predicted_churn": int(rows.get_column("is_predicted_churn").sum()),
        "risk_bands": {band: counts.get(band, 0) for band in ("high", "medium", "low")},
        "horizon_days": model.horizon_days,
        "is_in_training_data": day in model.trained_on,
        "hints": told.summary() if told else None,
    }


def _with_history(con: Any, rows: Any) -> Any:
    """The new scores, and those that they take the place of, which stay but are no longer served."""
    import polars as pl

    from lcm_ml.churn.scoring import no_longer_served
    from lcm_ml.frames.frame import read

    served = read(
        con, "select * from ml.churn_scores where as_of_date = $day and is_served", {"day": rows.item(0, "as_of_date")}
    )
    history = no_longer_served(served, rows)
    return pl.concat([rows.select(history.columns), history], how="vertical_relaxed") if history.height else rows


def _show(result: dict[str, Any]) -> None:
    out.print(f"{result['users']:,} users scored at {result['as_of_date']}")
    out.print(f"model: {result['model_version']} ({result['status']})")
    out.print(
        f"expected to churn within {result['horizon_days']} days: {result['mean_probability']:.1%}; "
        f"above the threshold: {result['predicted_churn']:,}"
    )
    out.print("risk: " + ", ".join(f"{count:,} {band}" for band, count in result["risk_bands"].items()))
    if result["hints"]:
        out.print(_hints_line(result["hints"]))
    if result["is_in_training_data"]:
        out.print(
            "note: this model was trained on this date, so these are no out-of-time predictions; "
            "`lcm-ml evaluate` makes those"
        )
    out.print("in ml.churn_scores; next: lcm-ml publish")


def _hints_line(hints: dict[str, Any]) -> str:
    moved = ", ".join(f"{name} {count:,}" for name, count in hints["levers"].items())
    told = f", as the model sees it, by a change of: {moved}" if moved else " by a change of actionable_features"
    return f"hints: {hints['leaving']:,} of {hints['high_risk']:,} high-risk users would leave the band{told}"
