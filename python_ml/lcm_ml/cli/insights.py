"""What `lcm-ml run` finds out about users once they are scored: the commands that the var insights names."""

import importlib
from typing import Any

from lcm_ml.cli.console import Advance, Laps, notify
from lcm_ml.errors import LcmError

# What a run of each is called in ml.model_runs, and its function, imported when it runs.
RUNNERS = {
    "segment": "segment:run_segment",
    "value": "value:run_value",
    "recommend": "recommend:run_recommend",
    "rules": "rules:run_rules",
    "paths": "paths:run_paths",
    "words": "words:run_words",
    "cohorts": "cohorts:run_cohorts",
    "forecast": "forecast:run_forecast",
    "response": "response:run_response",
    "uplift": "uplift:run_uplift",
    "experiment": "experiment_analysis:run_experiment",
    "support triage": "support_runs:run_triage",
    "budget": "budget:run_budget",
    "act": "act_runs:run_act",
    "strategy": "strategy:run_strategy",
}

# What depends on scores, effects and what a marketer set, which the data's fingerprint does not tell. They are quick.
EVERY_TIME = ("budget", "act", "strategy")


def run_insights(advance: Advance, laps: Laps, *, again: bool) -> dict[str, Any]:
    """Run each command that is due. One that fails keeps the others from nothing.

    Args:
        advance: told how far it is.
        laps: takes the seconds of each.
        again: run also those that have seen this data.

    Returns:
        done: command to its result; current: commands with nothing new to see; failed: command to what went wrong.

    Raises:
        LcmError: when nothing is built, or the var insights names what there is not.
    """
    from lcm_ml.frames.frame import built_settings
    from lcm_ml.registry.staleness import is_current
    from lcm_ml.warehouse.connection import connect

    with connect(read_only=True, notify=notify) as con:
        wanted = built_settings(con)["insights"]
        if unknown := [name for name in wanted if name not in RUNNERS]:
            raise LcmError(f"the var insights names {', '.join(map(repr, unknown))}", f"there are {', '.join(RUNNERS)}")
        current = [] if again else [name for name in wanted if name not in EVERY_TIME and is_current(con, name)]
    due = [name for name in wanted if name not in current]
    done: dict[str, Any] = {}
    failed: dict[str, str] = {}
    for place, name in enumerate(due):
        advance(name, place / len(due))
        told = _within(advance, name, place, len(due))
        module, function = RUNNERS[name].split(":")
        run = getattr(importlib.import_module(f"lcm_ml.cli.{module}"), function)
        try:
            done[name] = run(None, told)
        except LcmError as error:
            failed[name] = error.message
        laps.end(name)
    return {"done": done, "current": current, "failed": failed}


def _within(advance: Advance, name: str, place: int, commands: int) -> Advance:
    """How far one command is, as a part of all."""
    return lambda what, share: advance(f"{name} {what}", (place + share) / commands)
