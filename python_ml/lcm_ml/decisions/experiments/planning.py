"""An experiment as it is asked for, and the plan that follows from the shop's past."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from lcm_ml.decisions.experiments.design import (
    CONTROL,
    Baseline,
    Experiment,
    Size,
    checked_shares,
    detectable,
    duration,
    sample_size,
)
from lcm_ml.decisions.experiments.metrics import metric_named
from lcm_ml.errors import UsageError

PRE_DAYS = 84


@dataclass(frozen=True)
class Request:
    """What a user asks of a design; the fields are those of Experiment, and those of a size.

    Attributes:
        effect: the smallest one that matters.
        is_absolute: whether it is absolute, or relative to control.
        guardrails: texts of the form metric=margin.
        allocation: numbers in the ratio of the arms' sizes; equal where empty.
        traffic: share of the layer's users that may take part.
        days: planned days; computed where None.
    """

    experiment_id: str
    hypothesis: str
    metric: str
    effect: float
    is_absolute: bool = False
    secondary: tuple[str, ...] = ()
    guardrails: tuple[str, ...] = ()
    arms: tuple[str, ...] = (CONTROL, "treatment")
    allocation: tuple[float, ...] = ()
    alpha: float = 0.05
    power: float = 0.8
    looks: int = 1
    uses_cuped: bool = True
    window_days: int = 28
    pre_days: int = PRE_DAYS
    strata: tuple[str, ...] = ("stage", "value_band")
    stages: tuple[str, ...] = ()
    needs_consent: bool = False
    layer: str = "default"
    traffic: float = 1.0
    salt: str = ""
    days: int | None = None


@dataclass(frozen=True)
class Plan:
    """An experiment with what it takes.

    Attributes:
        experiment: as it will be stored.
        size: with the adjustments that were asked for.
        plain: without CUPED and with one look.
        needed_days: until so many users are in and their windows over; None where the shop never has them.
    """

    experiment: Experiment
    size: Size
    plain: Size
    needed_days: int | None


def checked(request: Request, strata: Sequence[str]) -> Request:
    """The request, once its names and numbers fit together.

    Raises:
        UsageError: naming what does not fit.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,63}", request.experiment_id):
        raise UsageError(
            f"{request.experiment_id!r} is no name of an experiment",
            "take letters, digits, dots, dashes and underscores, 64 at most",
        )
    for name in (request.metric, *request.secondary):
        metric_named(name)
    margins(request.guardrails)
    if request.metric in request.secondary:
        raise UsageError(f"{request.metric} is the primary metric and a secondary one", "name it once")
    if unknown := [name for name in request.strata if name not in strata]:
        raise UsageError(f"no stratum {', '.join(unknown)}", f"take some of {', '.join(strata)}")
    checked_shares(request.arms, request.allocation or None)
    return request


def margins(texts: Sequence[str]) -> dict[str, float]:
    """Guardrails and their relative margins, from texts of the form metric=margin.

    Raises:
        UsageError: for anything else.
    """
    found = {}
    for text in texts:
        name, _, margin = text.partition("=")
        metric_named(name)
        try:
            found[name] = float(margin)
        except ValueError:
            found[name] = 0.0
        if not 0 < found[name] < 1:
            raise UsageError(f"{text!r} is no guardrail", f"give metric=margin, e.g. {name}=0.05 for 5 % of control's")
    return found


def plan(
    request: Request,
    baseline: Baseline,
    slot: tuple[float, float],
    available: int,
    new_per_week: float,
    starts_on: date,
) -> Plan:
    """The size and duration of what was asked for.

    Args:
        request: checked.
        baseline: of the primary metric.
        slot: of the layer.
        available: users that could be assigned now, within the slot.
        new_per_week: users that come anew, within the slot.
        starts_on: the as_of_date.

    Raises:
        UsageError: for an effect that cannot be.
    """
    metric = metric_named(request.metric)
    shares = checked_shares(request.arms, request.allocation or None)
    effect = request.effect if request.is_absolute else request.effect * baseline.mean
    size = sample_size(
        baseline,
        metric,
        effect,
        alpha=request.alpha,
        power=request.power,
        shares=shares,
        uses_cuped=request.uses_cuped,
        looks=request.looks,
    )
    plain = sample_size(baseline, metric, effect, alpha=request.alpha, power=request.power, shares=shares)
    needed = duration(size.total, available, new_per_week, request.window_days)
    possible = detectable(baseline, available, shares, request.alpha, request.power, size)
    experiment = Experiment(
        experiment_id=request.experiment_id,
        hypothesis=request.hypothesis,
        kind="experiment",
        metric=request.metric,
        secondary=request.secondary,
        guardrails=margins(request.guardrails),
        arms=request.arms,
        shares=shares,
        salt=request.salt or request.experiment_id,
        layer=request.layer,
        slot=slot,
        strata=request.strata,
        stages=request.stages,
        needs_consent=request.needs_consent,
        alpha=request.alpha,
        power=request.power,
        mde=effect / baseline.mean,
        baseline_mean=baseline.mean,
        baseline_sd=baseline.sd,
        pre_correlation=baseline.correlation,
        n_per_arm=size.per_arm[0],
        n_available=available,
        mde_available=possible / baseline.mean if available else None,
        uses_cuped=request.uses_cuped,
        window_days=request.window_days,
        pre_days=request.pre_days,
        looks=request.looks,
        starts_on=starts_on,
        # Where the shop never has enough users, those that are there are followed for their window.
        planned_days=request.days or needed or request.window_days,
        status="designed",
    )
    return Plan(experiment, size, plain, needed)


def of_campaign(
    campaign_id: str, metric: str, secondary: Sequence[str], window_days: int, starts_on: date, ends_on: date
) -> Experiment:
    """A campaign's touches as an experiment that is over: treatment against control, one to one, in one look.

    Raises:
        UsageError: for a metric that there is not.
    """
    return Experiment(
        experiment_id=f"campaign-{campaign_id}",
        hypothesis=f"campaign {campaign_id}: does a touch change {metric}?",
        kind="campaign",
        metric=metric_named(metric).name,
        secondary=tuple(metric_named(name).name for name in secondary if name != metric),
        guardrails={},
        arms=(CONTROL, "treatment"),
        shares=(0.5, 0.5),
        salt="",
        layer="",
        slot=(0.0, 1.0),
        strata=("stage",),
        stages=(),
        needs_consent=False,
        alpha=0.05,
        power=0.8,
        mde=None,
        baseline_mean=None,
        baseline_sd=None,
        pre_correlation=None,
        n_per_arm=None,
        n_available=None,
        mde_available=None,
        uses_cuped=True,
        window_days=window_days,
        pre_days=PRE_DAYS,
        looks=1,
        starts_on=starts_on,
        planned_days=(ends_on - starts_on).days,
        status="finished",
    )
