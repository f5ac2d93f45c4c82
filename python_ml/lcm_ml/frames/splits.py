"""Splits by as_of_date, purged so that no label window reaches into the next part."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from lcm_ml.errors import LcmError


@dataclass(frozen=True)
class Split:
    """Dates to train on, the date that validates, and the date to predict. Each part's labels end before the next."""

    train: tuple[date, ...]
    validation: date
    test: date

    @property
    def fitted(self) -> tuple[date, ...]:
        """All dates that a model for the test date may be trained on: train and validation."""
        return (*self.train, self.validation)


def observed_before(dates: Sequence[date], moment: date, horizon_days: int) -> list[date]:
    """Dates whose label window [d, d + horizon_days) is over at `moment`, oldest first."""
    return sorted({d for d in dates if d + timedelta(days=horizon_days) <= moment})


def split_for(dates: Sequence[date], test: date, horizon_days: int) -> Split | None:
    """The split that predicts `test` from what was known by then, or None where too few dates lie before it."""
    known = observed_before(dates, test, horizon_days)
    if not known:
        return None
    validation = known[-1]
    train = observed_before(known, validation, horizon_days)
    return Split(tuple(train), validation, test) if train else None


def split_by_date(dates: Sequence[date], horizon_days: int) -> Split:
    """The latest date tests, the latest one observed before it validates, those observed before that one train.

    Args:
        dates: labelled as_of_dates, in any order.
        horizon_days: days of the label window.

    Raises:
        LcmError: where there are too few dates.
    """
    if not dates:
        raise LcmError(*no_labels(horizon_days))
    split = split_for(dates, max(dates), horizon_days)
    if split is None:
        days = sorted(set(dates))
        which = (
            f"a single labelled as_of_date ({days[0]})"
            if len(days) == 1
            else f"only {len(days)} labelled as_of_dates ({days[0]} to {days[-1]})"
        )
        raise LcmError(
            f"{which}: training, validation and test need three whose label windows of {horizon_days} days "
            "do not overlap",
            "load more history, or lower the vars churn_horizon_days or as_of_step_days and run `dbt build`",
        )
    return split


def no_labels(horizon_days: int) -> tuple[str, str]:
    """Message and next step where no user has a label."""
    return (
        f"no users with labels: no as_of_date has {horizon_days} fully observed days after it",
        "load more history, or lower the var churn_horizon_days and run `dbt build`",
    )


def rolling_origin(dates: Sequence[date], horizon_days: int, folds: int) -> list[Split]:
    """Splits that predict each of the last `folds` dates from what was known by then, oldest first.

    Rolling-origin evaluation (Tashman 2000, International Journal of Forecasting 16). Dates with too little
    before them are left out, so there may be fewer than `folds`, or none.
    """
    splits = [split_for(dates, test, horizon_days) for test in sorted(set(dates))]
    possible = [split for split in splits if split is not None]
    return possible[-folds:] if folds > 0 else []
