"""What is in the report, in order. A new section is a function, named in its module's SECTIONS."""

from lcm_ml.reporting.section import Group
from lcm_ml.reporting.sections import fairness, lifecycle, models, monitoring, quality, users

GROUPS = (
    Group("lifecycle", "Lifecycle", lifecycle.SECTIONS),
    Group("users", "Users at risk", users.SECTIONS),
    Group("models", "How good the model is", models.SECTIONS),
    Group("fairness", "Fairness", fairness.SECTIONS),
    Group("monitoring", "Monitoring", monitoring.SECTIONS),
    Group("data", "Data and models behind it", quality.SECTIONS),
)
