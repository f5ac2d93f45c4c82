"""What `lcm-ml run` finds out about users once they are scored: the commands that the var insights names."""

import importlib
from collections.abc import Callable
from typing import Any

from lcm_ml.cli.console import Advance, notify
from lcm_ml.errors import LcmError

Runner = Callable[[Any, Advance], dict[str, Any]]

# What a run of each is called in ml.model_runs, its module, imported when it runs, and its defaults.
RUNNERS: dict[str, tuple[str, Runner]] = {
    "segment": ("segment", lambda module, advance: module.run_segment(None, advance)),
    "value": ("value", lambda module, advance: module.run_value(None, 0, advance)),
    "recommend": ("recommend", lambda module, advance: module.run_recommend(None, advance)),
    "rules": ("rules", lambda module, advance: module.run_rules(None, module.LEVELS, None, 0.1, 3, advance)),
    "paths": ("paths", lambda module, advance: module.run_paths(None, None, advance)),
    "words": ("words", lambda module, advance: module.run_words(advance=advance)),
    "cohorts": ("cohorts", lambda module, advance: module.run_cohorts(None, 0, advance)),
    "forecast": ("forecast", lambda module, advance: module.run_forecast(None, 28, (), advance)),
    "response": ("response", lambda module, advance: module.run_response(None, advance)),
    "uplift": ("uplift", lambda module, advance: module.run_uplift(None, advance)),
    "experiment": ("experiment_analysis", lambda module, advance: module.run_experiment(None, advance)),
    "support triage": ("support_runs", lambda module, advance: module.run_triage(None, advance)),
}


def run_insights(advance: Advance, *, again: bool) -> dict[str, Any]:
    """Run each command that is due. One that fails keeps the others from nothing.

    Args:
        advance: told how far it is.
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
        current = [] if again else [name for name in wanted if is_current(con, name)]
    due = [name for name in wanted if name not in current]
    done: dict[str, Any] = {}
    failed: dict[str, str] = {}
    for place, name in enumerate(due):
        advance(name, place / len(due))
        module, run = RUNNERS[name]
        try:
            done[name] = run(importlib.import_module(f"lcm_ml.cli.{module}"), lambda *_: None)
        except LcmError as error:
            failed[name] = error.message
    return {"done": done, "current": current, "failed": failed}
