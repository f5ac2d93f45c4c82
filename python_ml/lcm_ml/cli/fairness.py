"""`lcm-ml fairness`: does the champion treat groups of users alike, and what would change it."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lcm_ml.cli.console import JsonOption, command, emit, notify, progress
from lcm_ml.cli.fairness_table import TITLES, show
from lcm_ml.errors import UsageError

if TYPE_CHECKING:
    import duckdb

    from lcm_ml.churn.fairness import Audit, Group
    from lcm_ml.churn.mitigation import Tried
    from lcm_ml.registry.predictions import Tested


def fairness(
    threshold: Annotated[
        float | None,
        typer.Option(help="Contact from this churn probability on. Default: the var decision_threshold.", min=0, max=1),
    ] = None,
    mitigate: Annotated[
        Literal["group_thresholds", "reweighing"] | None,
        typer.Option(help="Try what narrows the gaps of --attribute, and show its cost. Nothing is served from it."),
    ] = None,
    attribute: Annotated[str | None, typer.Option(help="A sensitive column of users, for --mitigate.")] = None,
    resamples: Annotated[int, typer.Option(help="Bootstrap resamples for the intervals.", min=50)] = 500,
    seed: Annotated[int, typer.Option(help="Of resamples and permutations.", min=0)] = 0,
    as_json: JsonOption = False,
) -> None:
    """Compare groups of each sensitive attribute on the champion's test date: base rate, AUC, calibration, errors.

    A gap is a warning when it exceeds the var fairness_max_gap and chance does not explain it. Groups smaller than
    the var min_group_size are suppressed. No model ever sees these attributes.

    Example: `lcm-ml fairness --threshold 0.125 --mitigate group_thresholds --attribute age_band`
    """
    with command(as_json):
        if (mitigate is None) != (attribute is None):
            raise UsageError("--mitigate and --attribute go together", "name the attribute whose gaps to narrow")
        with progress("fairness", as_json) as advance:
            result = run_fairness(threshold, mitigate, attribute, resamples, seed, advance)
        emit(result, as_json, show)


def run_fairness(
    threshold: float | None, mitigate: str | None, attribute: str | None, resamples: int, seed: int, advance: Any
) -> dict[str, Any]:
    """Audit every attribute that has values, try a mitigation where one is asked for, write the rows.

    Raises:
        LcmError: when nothing was fitted, the mitigation cannot be tried, or the warehouse cannot be written.
        UsageError: for an attribute that is none, or has no values.
    """
    from lcm_ml.churn.fairness import Decision, audit, measure_everybody
    from lcm_ml.churn.fairness_records import NONE, audit_rows, cost_rows
    from lcm_ml.churn.metrics import Resamples, figure
    from lcm_ml.churn.mitigation import measure_cost, mitigated
    from lcm_ml.churn.profit import Costs
    from lcm_ml.churn.records import rows_frame
    from lcm_ml.churn.segments import groups_of
    from lcm_ml.frames.sensitive import sensitive_attributes, sensitive_columns
    from lcm_ml.registry.predictions import champion_test
    from lcm_ml.registry.runs import Run, failure_recorded, record
    from lcm_ml.registry.versions import find_version
    from lcm_ml.warehouse.connection import connect
    from lcm_ml.warehouse.state import settings

    advance("reading", 0.0)
    with connect(read_only=True, notify=notify) as con:
        known = settings(con)
        tested = champion_test(con)
        version = find_version(con, tested.model_version)
        values = sensitive_attributes(con)
        limit = float(known["decision_threshold"]) if threshold is None else threshold
        tried = _tried(con, version, tested, limit) if mitigate else None
    outcome = tested.outcome
    aligned = groups_of(outcome, values)
    present = [name for name in sensitive_columns() if aligned.get_column(name).count()]
    if attribute is not None and attribute not in present:
        raise UsageError(
            f"--attribute {attribute} is no sensitive column of users with values",
            f"take one of {', '.join(present)}" if present else "load users with sensitive columns",
        )
    draws, costs = Resamples([outcome.users], seed, resamples), Costs.from_settings(known)
    smallest, max_gap = int(known["min_group_size"]), float(known["fairness_max_gap"])

    def audited(name: str, decision: Decision, everybody: "Group") -> "Audit":
        return audit(
            name,
            decision,
            aligned.get_column(name),
            draws,
            everybody,
            smallest=smallest,
            max_gap=max_gap,
            attributes=len(present),
            seed=seed,
        )

    run = Run("fairness", {"threshold": limit, "mitigate": mitigate, "attribute": attribute}, seed)
    same = (run.run_id, str(version["model_name"]), tested.as_of_date)
    with failure_recorded(run, notify):
        plain = Decision(outcome, outcome.probability > limit)
        everybody = measure_everybody(plain, draws)
        audits, rows, mitigation = {}, [], None
        for done, name in enumerate(present):
            advance(name, 0.1 + 0.6 * done / len(present))
            audits[name] = audited(name, plain, everybody)
            rows += audit_rows(audits[name], NONE, *same)
        if mitigate and attribute and tried:
            advance(mitigate, 0.7)
            before = audits[attribute]
            decision, thresholds = mitigated(mitigate, tried, plain, values.select("user_id", attribute), before)
            after = audited(attribute, decision, measure_everybody(decision, draws))
            without, with_it = measure_cost(plain, costs, draws), measure_cost(decision, costs, draws)
            rows += audit_rows(after, mitigate, *same)
            rows += cost_rows(mitigate, without, with_it, before, *same)
            mitigation = {
                "kind": mitigate,
                "thresholds": thresholds,
                "audit": _told(after),
                "costs": {
                    metric: {
                        "without": figure(without[metric]),
                        "with": figure(with_it[metric]),
                        "change": figure(with_it[metric].minus(without[metric])),
                    }
                    for metric in without
                },
            }
        advance("writing", 0.95)
        frame = rows_frame(rows)
        record(run, lambda _: {"fairness_metrics": frame}, notify)
    return {
        "run_id": run.run_id,
        "model_version": tested.model_version,
        "as_of_date": tested.as_of_date,
        "users": len(outcome.y),
        "churned": int(outcome.y.sum()),
        "threshold": limit,
        "threshold_by_costs": costs.threshold,
        "min_group_size": smallest,
        "max_gap": max_gap,
        "attributes": [_told(found) for found in audits.values()],
        "without_values": [name for name in sensitive_columns() if name not in present],
        "warnings": [text for found in audits.values() for text in _warnings(found, max_gap)],
        "mitigation": mitigation,
    }


def _tried(con: "duckdb.DuckDBPyConnection", version: dict[str, Any], tested: "Tested", threshold: float) -> "Tried":
    from lcm_ml.churn.mitigation import Tried
    from lcm_ml.frames.frame import training_frame
    from lcm_ml.registry import artefacts

    model, _ = artefacts.load(version["artefact"], version["artefact_hash"])
    return Tried(model, training_frame(con), tested.as_of_date, threshold)


def _told(found: "Audit") -> dict[str, Any]:
    def group(each: "Group") -> dict[str, Any]:
        return {
            "level": each.level,
            "users": each.users,
            "churned": each.churned,
            "is_suppressed": not each.figures,
            "figures": {metric: estimate.row() for metric, estimate in each.figures.items()},
        }

    return {
        "attribute": found.attribute,
        "unknown": found.unknown,
        "everybody": group(found.everybody),
        "groups": [group(each) for each in found.groups],
        "gaps": [
            {
                "metric": gap.metric,
                **gap.difference.row(),
                "high": gap.high,
                "low": gap.low,
                "p_value": gap.p_value,
                "pair": list(gap.pair) if gap.pair else None,
                "is_warning": gap.is_warning,
            }
            for gap in found.gaps
        ],
    }


def _warnings(found: "Audit", max_gap: float) -> list[str]:
    figures = {group.level: group.figures for group in found.groups}
    texts = []
    for gap in found.gaps:
        if gap.is_warning and gap.pair:
            (high, low), metric = gap.pair, gap.metric
            texts.append(
                f"{found.attribute}: the {TITLES[metric]} of {high} ({figures[high][metric].value:.3f}) and {low} "
                f"({figures[low][metric].value:.3f}) are more than {max_gap:g} apart, and chance does not explain it "
                f"(p {gap.p_value:.3f})"
            )
    return texts
