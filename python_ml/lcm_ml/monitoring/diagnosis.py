"""From abnormal figures to alerts: each with its most specific cause, what it means, and what to do."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

from lcm_ml.monitoring.drift import Drift
from lcm_ml.monitoring.realised import Realised
from lcm_ml.monitoring.signs import DataSign, Sign
from lcm_ml.monitoring.unusual import SERIES, Unusual, is_lasting_fall

SEVERITIES = ("info", "warning", "critical")
SPECIFIC = ("broken_tracker", "bot_traffic", "price_shift", "churn_shift")
"""Causes that explain drift: what they explain is told as info."""

SALES_CAUSES = ("price_shift", "churn_shift")
"""Causes that explain unusual sales."""

TOO_FAR = 0.6
"""An event type that loses more than this share of its rate, while others hold, was not counted any more."""

ADVICE = {
    "broken_tracker": "look at the tracking of {subject}, mend it, reload the days; do not retrain on them",
    "bot_traffic": "see is_suspected_bot in user_features, lower the var bot_z or set exclude_flagged_users",
    "price_shift": "if the prices really changed, retrain once labels of the new prices are there: lcm-ml fit",
    "churn_shift": "find out what changed in the shop; retrain once a date after the change has labels: lcm-ml fit",
    "volume": "check that every load arrived: lcm-ml status",
    "feature_drift": "see ml.drift_metrics; retrain when a date with the new values has labels: lcm-ml fit",
    "score_drift": "see which features drift in ml.drift_metrics",
    "performance": "compare with a fresh fit: lcm-ml fit",
    "retrain": "lcm-ml fit",
    "stale_data": "see why no load came: lcm-ml status; the limit is the var stale_after_hours",
    **{f"{name}_anomaly": "was the shop closed, or a load not whole? See lcm-ml status" for name in SERIES},
    "failed_files": "read the .error beside each file in {subject}, mend it and put it back, or remove it",
    "quarantine": "select rule, count(*) from staging.quarantined_events group by 1; mend the export, load it again",
}


@dataclass(frozen=True)
class Alert:
    """Something to look at."""

    severity: str
    cause: str
    subject: str
    message: str
    as_of_date: date

    @property
    def advice(self) -> str:
        """What to do next."""
        return ADVICE[self.cause].format(subject=self.subject)

    @property
    def alert_id(self) -> str:
        """The same trouble has the same id in every run."""
        return f"{self.as_of_date}-{self.cause}-{self.subject}"

    def row(self, run_id: str, model_version: str | None, raised_at: datetime) -> dict[str, object]:
        """As a row of ml.alerts."""
        return {
            "run_id": run_id,
            "alert_id": self.alert_id,
            "as_of_date": self.as_of_date,
            "model_version": model_version,
            "severity": self.severity,
            "cause": self.cause,
            "subject": self.subject,
            "message": self.message,
            "advice": self.advice,
            "raised_at": raised_at,
        }


def diagnose(
    as_of_date: date,
    signs: Sequence[Sign],
    drifts: Sequence[Drift],
    score: Drift | None,
    realised: Sequence[Realised],
    test: dict[str, tuple[float, float]],
    important: Sequence[str],
    data: Sequence[DataSign] = (),
    unusual: Sequence[Unusual] = (),
) -> list[Alert]:
    """Alerts of one date, the most severe first.

    Args:
        as_of_date: the date that is watched.
        signs: vital signs.
        drifts: features against training.
        score: scores against those of training dates, where there is a model.
        realised: served scores that matured, newest first.
        test: intervals (low, high) of the champion's test figures.
        important: the features that the model rests on; drift of others is never critical.
        data: how old and how clean the data is.
        unusual: days and weeks of sales outside what was forecast.
    """
    found = _from_signs(as_of_date, signs) + _from_data(as_of_date, data)
    explained = bool({alert.cause for alert in found if alert.severity != "info"} & set(SPECIFIC))
    found += _from_drift(as_of_date, drifts, score, important, explained)
    found += _from_outcomes(as_of_date, realised[:1], test)
    # Bots and lost views explain features, but not what was sold.
    sold = [a for a in found if a.cause in SALES_CAUSES or a.subject == "purchase"]
    found += _from_unusual(as_of_date, unusual, any(a.severity != "info" for a in sold))
    return sorted(found, key=lambda alert: (-SEVERITIES.index(alert.severity), alert.cause, alert.subject))


def _from_signs(day: date, signs: Sequence[Sign]) -> list[Alert]:
    abnormal = {(sign.name, sign.subject): sign for sign in signs if sign.severity}
    found = []
    rates = [sign for sign in signs if sign.name == "events_per_user"]
    crowded = abnormal.get(("top_users_share", "events"))
    if crowded and crowded.change > 0:
        text = f"the busiest 1 % of users make {crowded.value:.0%} of all events, usually {crowded.usual:.0%}"
        # Few can be busy by chance; together with a jump of a whole event type they are not people.
        jumped = [sign for sign in rates if sign.severity == "critical" and sign.change > 0]
        if jumped:
            text += "; " + ", ".join(f"{sign.subject} events per user {sign.change:+.0%}" for sign in jumped)
        found.append(Alert("critical" if jumped else "warning", "bot_traffic", "events", text, day))
    for sign in abnormal.values():
        if sign.name in ("missing_product", "missing_session") and sign.change > 0:
            column = sign.name.removeprefix("missing_") + "_id"
            text = f"{sign.value:.0%} of {sign.subject} events have no {column}, usually {sign.usual:.0%}"
            found.append(_alert(day, sign, "broken_tracker", text, subject=f"{column} of {sign.subject}"))
        elif sign.name == "price_level":
            text = f"products cost {sign.change:+.0%} against what the same products cost before (median over products)"
            found.append(_alert(day, sign, "price_shift", text, subject="price_level"))
        elif sign.name == "churn_rate":
            text = f"{sign.value:.1%} of active buyers made no purchase, usually {sign.usual:.1%}"
            found.append(_alert(day, sign, "churn_shift", text, subject="churn_rate"))
    others_hold = any(sign.change > -TOO_FAR for sign in rates)
    specific = {alert.cause for alert in found}
    for sign in rates:
        if not sign.severity:
            continue
        usual = f"usually {sign.usual:,.2f} ({sign.change:+.0%})"
        text = f"{sign.value:,.2f} {sign.subject} events per user in 28 days, {usual}"
        if sign.change < -TOO_FAR and others_hold:
            found.append(_alert(day, sign, "broken_tracker", text, subject=sign.subject))
        else:
            severity = "info" if specific & set(SPECIFIC) else "warning"
            found.append(Alert(severity, "volume", sign.subject, text, day))
    users = abnormal.get(("active_users", "users"))
    if users:
        text = f"{users.value:,.0f} users were active in 28 days, usually {users.usual:,.0f} ({users.change:+.0%})"
        # Growth is no trouble, and few users after a known cause are its consequence.
        critical = users.severity == "critical" and users.change < -0.5 and not specific & set(SPECIFIC)
        found.append(Alert("critical" if critical else "info", "volume", "active_users", text, day))
    return found


def _alert(day: date, sign: Sign, cause: str, text: str, subject: str | None = None) -> Alert:
    return Alert(sign.severity or "info", cause, subject or sign.subject, f"{text}; z = {sign.z:+.1f}", day)


def _from_data(day: date, data: Sequence[DataSign]) -> list[Alert]:
    found = []
    for state in data:
        if not state.is_alert:
            continue
        if state.metric == "hours_since_load":
            text = f"the newest load is {state.value:,.0f} hours old, limit {state.limit:g}"
            found.append(Alert("warning", "stale_data", state.subject, text, day))
        else:
            text = f"{state.value:.1%} of the rows of the newest load were quarantined, limit {state.limit:.1%}"
            found.append(Alert("warning", "quarantine", state.subject, text, day))
    return found


def _from_drift(
    day: date, drifts: Sequence[Drift], score: Drift | None, important: Sequence[str], explained: bool
) -> list[Alert]:
    found = []
    moved = [drift for drift in drifts if drift.severity]
    for drift in moved:
        severity = drift.severity or "info"
        if drift.subject not in important:
            severity = "info"
        text = (
            f"PSI {drift.psi:.2f} against training (limit {drift.threshold:.2f}), Jensen-Shannon "
            f"{drift.jensen_shannon:.2f}, missing {drift.missing_now:.0%} (training: {drift.missing_before:.0%})"
        )
        found.append(Alert("info" if explained else severity, "feature_drift", drift.subject, text, day))
    if score and score.severity:
        text = f"PSI {score.psi:.2f} of the scores against those of the training dates (limit {score.threshold:.2f})"
        found.append(Alert("info" if explained else score.severity, "score_drift", "churn_probability", text, day))
    return found


def _from_outcomes(day: date, realised: Sequence[Realised], test: dict[str, tuple[float, float]]) -> list[Alert]:
    found = []
    for served in realised:
        auc, rate = served.figures["auc"], served.figures["base_rate"]
        low, high = auc.interval
        if "auc" in test and high < test["auc"][0]:
            text = (
                f"the scores served for {served.as_of_date} ({served.users:,} users) reached AUC {auc.value:.3f} "
                f"({low:.3f} to {high:.3f}), below the test's {test['auc'][0]:.3f} to {test['auc'][1]:.3f}"
            )
            found.append(Alert("critical", "performance", "auc", text, day))
        low, high = rate.interval
        if not low <= served.expected_rate <= high:
            text = (
                f"{rate.value:.1%} of the users scored for {served.as_of_date} churned ({low:.1%} to {high:.1%}), "
                f"{served.expected_rate:.1%} were expected"
            )
            found.append(Alert("warning", "performance", "calibration", text, day))
    return found


def _from_unusual(day: date, unusual: Sequence[Unusual], explained: bool) -> list[Alert]:
    found: list[Alert] = []
    for grain in ("day", "week"):
        for series in SERIES:
            values = [each for each in unusual if each.series == series and each.grain == grain]
            if not values:
                continue
            severity = "critical" if is_lasting_fall(values) else "warning"
            # Revenue, orders and users move together: the first one tells it, the others only repeat it.
            quiet = explained or found
            text = f"{series.replace('_', ' ')} by {grain}, " + "; ".join(each.text for each in values)
            found.append(Alert("info" if quiet else severity, f"{series}_anomaly", f"{series} by {grain}", text, day))
    return found
