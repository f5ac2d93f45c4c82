"""Are expected purchases and spend right over a year, and how long do a million users take?

Simulates shops of three years, loads and builds them, runs `lcm-ml value` and prints its figures for 30, 90 and 365
days beside the naive guess. With --scale it times every step on so many synthetic users instead.

    .venv/bin/python benchmarks/value.py [--users 4000] [--days 1095] [--presets plain shop]
    .venv/bin/python benchmarks/value.py --scale 1000000
"""

import argparse
import os
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "python"))

import numpy as np
import polars as pl
from lifecycle import build, lcm

SHOWN = ("total_ratio", "spearman", "mae", "mae_less_naive", "mae_less_bg_nbd", "coverage_80", "purchases_total_ratio")


def simulated(users: int, days: int, preset: str, seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, shop = Path(folder) / "lcm.duckdb", Path(folder) / "shop"
        size = ["--users", str(users), "--days", str(days), "--seed", str(seed), "--preset", preset]
        lcm(path, "simulate", *size, "--out", str(shop))
        # A plain shop has no campaigns, and the loader refuses files without rows.
        filled = [f for f in sorted(shop.glob("*.parquet")) if pl.scan_parquet(f).head(1).collect().height]
        lcm(path, "load", "files", *[f"--{f.stem.replace('_', '-')}={f}" for f in filled])
        build(path, "--exclude-resource-type", "test", "--exclude-resource-type", "unit_test")
        begun = time.perf_counter()
        result = lcm(path, "value")
        print(f"\n{preset}: {users:,} users, {days} days, {time.perf_counter() - begun:.1f} s")
        for horizon in result["horizons"]:
            print(
                f"{horizon['horizon_days']} days at {horizon['evaluated_at']}, {horizon['evaluated_users']:,} users, "
                f"served by {horizon['served']}"
            )
            for name, figures in horizon["figures"].items():
                told = "  ".join(
                    f"{metric} {found['value']:.3f} ({found['ci_low']:.3f} to {found['ci_high']:.3f})"
                    for metric in SHOWN
                    if (found := figures.get(metric)) and found["value"] is not None
                )
                print(f"  {name:<8} {told}")
        print("\n".join(f"note: {note}" for note in result["notes"]), flush=True)


def scaled(users: int, seed: int = 0) -> None:
    """Every step that runs over all users, on synthetic ones with a hundred features each."""
    import duckdb

    from lcm_ml.insights import purchase_model, spend_trees, value
    from lcm_ml.warehouse import writer
    from lcm_ml.warehouse.contracts import tables

    rng = np.random.default_rng(seed)
    begun = time.perf_counter()

    def told(what: str) -> None:
        nonlocal begun
        print(f"{what:<44} {time.perf_counter() - begun:6.1f} s", flush=True)
        begun = time.perf_counter()

    age = rng.integers(1, 1000, users).astype(float)
    repeats = np.minimum(rng.poisson(rng.gamma(0.8, 1 / 16, users) * age), age)
    summaries = pl.DataFrame(
        {
            "user_id": np.char.add("u", np.arange(users).astype(str)),
            "as_of_date": [date(2025, 1, 1)] * users,
            "repeats": repeats,
            "last_age": np.where(repeats > 0, np.ceil(age * rng.random(users)), 0.0),
            "age": age,
            "paid_days": repeats + 1,
            "paid_amount": (repeats + 1) * rng.gamma(3.0, 12.0, users),
            **{f"{what}_last_{days}": rng.random(users) for days in value.HORIZONS for what in ("purchases", "amount")},
        }
    )
    features = summaries.select("user_id", "as_of_date").with_columns(
        pl.Series(f"feature_{k}", rng.random(users)) for k in range(100)
    )
    told(f"{users:,} users made")
    model = purchase_model.fit_purchase_model(summaries)
    told("BG/NBD and Gamma-Gamma fitted")
    for days in value.HORIZONS:
        model.predict(summaries, days)
    told("expected purchases and spend, 3 horizons")
    lifetime = model.lifetime(summaries, 0.1)
    told("lifetime value")
    quantiles = model.quantiles(summaries, value.HORIZONS)
    told("intervals by simulation, 3 horizons")
    some = summaries.head(100_000)
    days = some["as_of_date"].replace_strict({date(2025, 1, 1): date(2024, 6, 1)})
    past = value.Past(
        some.with_columns(days),
        features.head(100_000).with_columns(days),
        some.select("user_id", days, purchases=rng.poisson(2.0, 100_000) * 1.0, amount=rng.gamma(1.0, 40.0, 100_000)),
    )
    found = value.forecast(summaries, [features], model, quantiles, past, 90)
    assert isinstance(found.trees, spend_trees.SpendTrees)
    told("one horizon: trees fitted, all users predicted")
    rows = value.value_rows(found, 90, spend_trees.NAME).with_columns(run_id=pl.lit("run"))
    with duckdb.connect() as con:
        writer.ensure(con, {name: tables("ml")[name] for name in ("user_values", "user_lifetime_values")})
        con.begin()
        writer.write(con, tables("ml")["user_values"], rows, {"as_of_date": date(2025, 1, 1)})
        con.commit()
    told(f"{rows.height:,} rows written, {lifetime.height:,} lifetime values at hand")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=4000)
    parser.add_argument("--days", type=int, default=1095)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--presets", nargs="+", default=["plain", "shop"])
    parser.add_argument("--scale", type=int, help="Time so many synthetic users instead.")
    options = parser.parse_args()
    if options.scale:
        scaled(options.scale)
        return
    for preset in options.presets:
        simulated(options.users, options.days, preset, options.seed)


if __name__ == "__main__":
    os.environ.setdefault("DBT_SEND_ANONYMOUS_USAGE_STATS", "false")
    main()
