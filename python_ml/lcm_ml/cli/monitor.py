"""`lcm-ml monitor`: is the shop as it was, is the data whole, do the scores hold."""

from datetime import datetime
from typing import Any

import typer

from lcm_ml.cli.console import AsOfOption, JsonOption, command, emit, notify, out, progress

CRITICAL_EXIT = 3
COLOURS = {"critical": "bold red", "warning": "yellow", "info": "dim"}


def monitor(
    as_of: AsOfOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the shop, the features and the served scores with what they were, and raise alerts.

    Exit code 3 when an alert is critical, so that a scheduler can act; everything is printed and stored all the same.

    Example: `lcm-ml monitor || notify-the-team`
    """
    with command(as_json):
        with progress("monitor", as_json) as advance:
            result = run_monitor(as_of, advance)
        emit(result, as_json, _show)
    if result["critical"]:
        raise typer.Exit(CRITICAL_EXIT)


def run_monitor(as_of: datetime | None, advance: Any) -> dict[str, Any]:
    """Watch, write, tell.

    Raises:
        LcmError: when the marts cannot be read or the warehouse cannot be written.
    """
    from lcm_ml.churn.metrics import figure
    from lcm_ml.monitoring.watch import alert_rows, drift_rows, watch
    from lcm_ml.registry.runs import Run, failure_recorded, record, utc_now
    from lcm_ml.warehouse.connection import connect

    run = Run("monitor", {"as_of": as_of.date() if as_of else None})
    with failure_recorded(run, notify):
        advance("measuring", 0.1)
        with connect(read_only=True, notify=notify) as con:
            found = watch(con, as_of.date() if as_of else None, run.started_at)
        advance("writing", 0.9)
        tables = {"drift_metrics": drift_rows(run.run_id, found), "alerts": alert_rows(run.run_id, found, utc_now())}
        record(run, lambda _: tables, notify)
    return {
        "run_id": run.run_id,
        "as_of_date": found.as_of_date,
        "model_version": found.model_version,
        "data": [
            {"kind": d.kind, "subject": d.subject, "metric": d.metric, "value": d.value, "limit": d.limit}
            for d in found.data
        ],
        "signs": len(found.signs),
        "features": len(found.drifts),
        "score_psi": found.score.psi if found.score else None,
        "realised": [
            {
                "as_of_date": served.as_of_date,
                "model_version": served.model_version,
                "users": served.users,
                "expected_churn_rate": served.expected_rate,
                "figures": {name: figure(measured) for name, measured in served.figures.items()},
            }
            for served in found.realised
        ],
        "retrain": found.retrain,
        "alerts": [
            {"severity": a.severity, "cause": a.cause, "subject": a.subject, "message": a.message, "advice": a.advice}
            for a in found.alerts
        ],
        "critical": sum(alert.severity == "critical" for alert in found.alerts),
    }


def _show(result: dict[str, Any]) -> None:
    out.print(
        f"watched {result['as_of_date']}: {result['signs']} vital signs, {result['features']} features of "
        f"{result['model_version'] or 'no model'}"
    )
    for served in result["realised"][:3]:
        auc, rate = served["figures"]["auc"], served["figures"]["base_rate"]
        out.print(
            f"served for {served['as_of_date']}: {served['users']:,} users, AUC {auc['value']:.3f} "
            f"({auc['ci_low']:.3f} to {auc['ci_high']:.3f}), churned {rate['value']:.1%}, expected "
            f"{served['expected_churn_rate']:.1%}"
        )
    if not result["realised"]:
        out.print("no served scores have matured yet: their horizon is not over")
    show_alerts(result["alerts"])


def show_alerts(alerts: list[dict[str, Any]]) -> None:
    """One line an alert, the most severe first."""
    if not alerts:
        out.print("no alerts")
    for alert in alerts:
        out.print(
            f"{alert['severity']:<9} {alert['cause']} ({alert['subject']}): ", style=COLOURS[alert["severity"]], end=""
        )
        out.print(alert["message"])
        if alert["severity"] != "info":
            out.print(f"          next: {alert['advice']}")
