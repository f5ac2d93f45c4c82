"""`lcm-ml threshold`: from which churn probability on a contact pays."""

from typing import Annotated, Any

import typer

from lcm_ml.cli.console import JsonOption, command, emit, notify, out


def threshold(
    contact_cost: Annotated[float | None, typer.Option(help="Of one contact. Default: the var contact_cost.")] = None,
    saved_value: Annotated[
        float | None, typer.Option(help="Of a churner who is kept. Default: the var saved_value.")
    ] = None,
    success_rate: Annotated[
        float | None, typer.Option(help="Share of contacted churners kept. Default: the var contact_success_rate.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the threshold that the costs imply, and what it would have earned on the test date.

    The threshold follows from the costs alone, no outcome chose it. To decide by it, set the var decision_threshold.

    Example: `lcm-ml threshold --contact-cost 2 --saved-value 60 --success-rate 0.15`
    """
    with command(as_json):
        result = run_threshold(contact_cost, saved_value, success_rate)
        emit(result, as_json, _show)


def run_threshold(contact_cost: float | None, saved_value: float | None, success_rate: float | None) -> dict[str, Any]:
    """The profit curve of the champion's test date under these costs.

    Raises:
        LcmError: when nothing was fitted.
        UsageError: for costs that make no sense.
    """
    from lcm_ml.churn.metrics import Resamples
    from lcm_ml.churn.profit import Costs, profit_curve
    from lcm_ml.registry.predictions import champion_test
    from lcm_ml.warehouse.connection import connect
    from lcm_ml.warehouse.state import settings

    with connect(read_only=True, notify=notify) as con:
        usual = Costs.from_settings(settings(con))
        tested = champion_test(con)
    costs = Costs(
        usual.contact_cost if contact_cost is None else contact_cost,
        usual.saved_value if saved_value is None else saved_value,
        usual.success_rate if success_rate is None else success_rate,
    )
    curve = profit_curve(tested.outcome, costs, Resamples([tested.outcome.users], 0, 500))
    chosen = curve.filter("is_chosen").row(0, named=True)
    return {
        "model_version": tested.model_version,
        "as_of_date": tested.as_of_date,
        "users": len(tested.outcome.y),
        "contact_cost": costs.contact_cost,
        "saved_value": costs.saved_value,
        "success_rate": costs.success_rate,
        "threshold": costs.threshold,
        "at_threshold": chosen,
        "contact_everybody": curve.row(0, named=True),
        "best_in_hindsight": curve.sort("realised_profit", descending=True).row(0, named=True),
        "curve": curve.to_dicts(),
    }


def _show(result: dict[str, Any]) -> None:
    from lcm_ml.cli.metric_table import profit_line

    out.print(
        f"a contact costs {result['contact_cost']:g}, keeps {result['success_rate']:.0%} of churners, each worth "
        f"{result['saved_value']:g}: it pays from a churn probability of {result['threshold']:.3f} on"
    )
    if result["threshold"] >= 1:
        out.print("no contact pays: it costs more than it can save")
        return
    out.print(f"on {result['as_of_date']}, {result['users']:,} users, out of time:")
    out.print(f"  by the threshold   {profit_line(result['at_threshold'])}")
    out.print(f"  everybody          {profit_line(result['contact_everybody'])}")
    best = result["best_in_hindsight"]
    out.print(f"  best in hindsight  {profit_line(best)} (threshold {best['threshold']:.2f}; nobody could know it)")
    out.print(f"next: set the var decision_threshold to {result['threshold']:.3f}, run `dbt build` and `lcm-ml score`")
