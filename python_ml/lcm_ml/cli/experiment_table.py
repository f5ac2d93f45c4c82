"""How `lcm-ml experiment` prints designs, assignments and results."""

from typing import Any

from lcm_ml.cli.console import out


def show_design(found: dict[str, Any]) -> None:
    """A design: what it rests on, users, days."""
    where = (
        f"measured on {found['baseline_users']:,} users from {found['measured_at']} on"
        if found["measured_at"]
        else "given"
    )
    out.print(found["experiment_id"], style="bold", end="")
    out.print("" if found["is_stored"] else "  (dry run: not stored)")
    out.print(
        f"{found['metric']} {found['baseline']:.4g} (standard deviation {found['sd']:.4g}), {where}; "
        f"effect to be found {found['mde_relative']:+.1%}, {found['mde_absolute']:+.4g}"
    )
    arms = ", ".join(f"{name} {users:,}" for name, users in found["arms"].items())
    out.print(f"users: {found['users']:,} ({arms}) for power {found['power']:g} at alpha {found['alpha']:g}")
    saved = f"CUPED saves {found['variance_reduction']:.0%} (correlation {found['pre_correlation']:.2f})"
    out.print(
        f"  without adjustments {found['users_plain']:,}; {saved if found['variance_reduction'] else 'no CUPED'}; "
        f"{found['looks']} looks take {found['looks_factor'] - 1:+.1%}"
    )
    out.print(
        f"traffic of layer {found['layer']}, slot {found['slot'][0]:g} to {found['slot'][1]:g}: {found['users_now']:,} "
        f"users now, {found['users_per_day']:,.0f} come a day, {found['users_per_week']:,.0f} a week, "
        f"{found['new_users_per_week']:,.1f} anew",
    )
    if found["mde_users_now"]:
        out.print(f"all users of now would show an effect of {found['mde_users_now']:.1%}")
    out.print(f"planned days: {found['planned_days']} from {found['as_of_date']}")
    _note(found)


def show_assignment(found: dict[str, Any]) -> None:
    """Who got what."""
    arms = ", ".join(f"{name} {users:,}" for name, users in found["arms"].items())
    out.print(f"{found['experiment_id']} at {found['as_of_date']}: {arms}")
    out.print(
        f"newly assigned {found['newly_assigned']:,}, had an arm before {found['already_assigned']:,}; eligible "
        f"{found['eligible']:,}, free in this layer's slot {found['in_slot']:,}; {found['strata']} strata; "
        f"sample ratio p {found['sample_ratio_p']:.3f}; ends on {found['ends_on']}"
    )
    if found["needed_per_arm"] and min(found["arms"].values()) < found["needed_per_arm"]:
        out.print(f"the design asks for {found['needed_per_arm']:,} in control", style="yellow")
    if found["out"]:
        out.print(f"written to {found['out']}")
    _note(found)


def show_analyses(found: dict[str, Any]) -> None:
    """Each experiment: its verdict, and a line for each figure."""
    for one in found["experiments"]:
        look = f"look {one['look']} of {one['looks']}" if one["look"] else "between looks"
        out.print(f"{one['experiment_id']}, before {found['as_of_date']}: ", end="", style="bold")
        out.print(f"{one['information_fraction']:.0%} over, {look}, sample ratio p {one['sample_ratio_p']:.2g}")
        out.print(f"  {one['verdict']}", style="bold", end="")
        out.print(f": {one['says']}")
        means = {
            (row["metric"], row["role"], row["dimension"], row["level"]): row["mean"]
            for row in one["results"]
            if row["arm"] == one["arms"][0]
        }
        for row in one["results"]:
            if row["effect"] is not None:
                _show_effect(row, means[row["metric"], row["role"], row["dimension"], row["level"]])
    _note(found)


def _show_effect(row: dict[str, Any], control: float | None) -> None:
    what = row["metric"] if row["dimension"] == "all" else f"{row['metric']}, {row['dimension']} {row['level']}"
    out.print(f"  {row['role']:<9} {what}, {row['arm']} ({row['n_users']:,} users): ", end="")
    if row["ci_low"] is None or control is None or row["mean"] is None:
        out.print("nothing happened that could be compared")
        return
    relative = ""
    if row["relative_ci_low"] is not None:
        relative = f" ({row['relative_effect']:+.1%}: {row['relative_ci_low']:+.1%} to {row['relative_ci_high']:+.1%})"
    words = f", {row['verdict']}" if row["verdict"] else ""
    out.print(
        f"{control:.4g} -> {row['mean']:.4g}, {row['effect']:+.4g} [{row['ci_low']:+.4g}, {row['ci_high']:+.4g}]"
        f"{relative}, p {row['p_adjusted']:.3g}{words}; variance {-row['variance_reduction']:+.0%}",
    )


def show_list(found: dict[str, Any]) -> None:
    """One line an experiment."""
    if not found["experiments"]:
        out.print("no experiments yet: `lcm-ml experiment design` one")
    for row in found["experiments"]:
        effect = ""
        if row["relative_effect"] is not None:
            effect = (
                f", {row['relative_effect']:+.1%} ({row['relative_ci_low']:+.1%} to {row['relative_ci_high']:+.1%})"
            )
        decision = f": {row['decision']}{effect} as of {row['result_as_of_date']}" if row["decision"] else ""
        out.print(
            f"{row['experiment_id']:<24} {row['status']:<9} {row['metric']:<18} {row['starts_on']} to {row['ends_on']}"
            f", {row['n_users'] or 0:,} users{decision}",
        )


def show_stop(found: dict[str, Any]) -> None:
    """What was stopped."""
    out.print(f"{found['experiment_id']} is stopped")


def _note(found: dict[str, Any]) -> None:
    if found["note"]:
        out.print(found["note"], style="yellow")
