"""What is in the report, in order. A new section is a function, named in its module's SECTIONS."""

from lcm_ml.reporting.section import Group
from lcm_ml.reporting.sections import (
    cohorts,
    experiments,
    fairness,
    features,
    forecast,
    lifecycle,
    models,
    monitoring,
    paths,
    quality,
    recommendations,
    rules,
    segments,
    support,
    uplift,
    users,
    value,
    words,
)

GROUPS = (
    Group("lifecycle", "Lifecycle", lifecycle.SECTIONS),
    Group("cohorts", "How long users stay", cohorts.SECTIONS),
    Group("users", "Users at risk", users.SECTIONS),
    Group("segments", "Kinds of users", segments.SECTIONS),
    Group("value", "What users are worth", value.SECTIONS),
    Group("paths", "Ways through the shop", paths.SECTIONS),
    Group("rules", "Bought together", rules.SECTIONS),
    Group("words", "What users write", words.SECTIONS),
    Group("support", "Support", support.SECTIONS),
    Group("forecast", "What to expect", forecast.SECTIONS),
    Group("recommendations", "Recommendations", recommendations.SECTIONS),
    Group("campaigns", "What campaigns do", uplift.SECTIONS),
    Group("experiments", "Experiments", experiments.SECTIONS),
    Group("models", "How good the model is", (*models.SECTIONS, *features.SECTIONS)),
    Group("fairness", "Fairness", fairness.SECTIONS),
    Group("monitoring", "Monitoring", monitoring.SECTIONS),
    Group("data", "Data and models behind it", quality.SECTIONS),
)
