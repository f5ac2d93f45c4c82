"""Does monitoring stay silent while nothing changes, and name what does?

Simulates shops, watches 20 periods of each without a change, then injects each known shift into the raw events of the
last period, builds again and watches it once. Prints the alerts of unchanged periods, and whether each shift was found
and named.

    .venv/bin/python benchmarks/monitoring_truth.py [--users 1500] [--shops 3]
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections import Counter
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "python"))

import duckdb
from lifecycle import WITHOUT_TESTS, build, lcm
from shifts import SHIFTS, alerts_of, in_raw

PERIODS, DAYS = 20, 1000
VARIABLES = {"as_of_count": 60}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=1500)
    parser.add_argument("--shops", type=int, default=3)
    options = parser.parse_args()
    alarms, periods, named = Counter(), 0, Counter()
    wrong = []
    for seed in range(options.shops):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "lcm.duckdb"
            shop = Path(folder) / "shop"
            size = ["--users", str(options.users), "--days", str(DAYS), "--seed", str(seed)]
            lcm(path, "simulate", *size, "--out", str(shop))
            tables = [f"--{f.stem.replace('_', '-')}={f}" for f in shop.glob("*.parquet")]
            lcm(path, "load", "files", *tables)
            build(path, variables=VARIABLES)
            with duckdb.connect(str(path), read_only=True) as con:
                dates = [
                    r[0]
                    for r in con.execute(
                        "select as_of_date from marts.as_of_dates where is_on_grid order by 1"
                    ).fetchall()
                ]
            for day in dates[-PERIODS:]:
                periods += 1
                for alert in alerts_of(path, day):
                    alarms[alert.severity] += 1
                    if alert.severity == "critical":
                        wrong.append(f"{day} {alert.cause} {alert.subject}: {alert.message}")
            for name, (cause, _) in SHIFTS.items():
                changed = Path(folder) / "changed.duckdb"
                shutil.copy(path, changed)
                with duckdb.connect(str(changed)) as con:
                    for statement in in_raw(name, dates[-1] - timedelta(days=28)):
                        con.execute(statement)
                # Without dbt's tests: the log of the load does not know of the rows that were put in or taken out.
                build(changed, "--full-refresh", *WITHOUT_TESTS, variables=VARIABLES)
                found = alerts_of(changed, dates[-1])
                loud = [alert for alert in found if alert.severity == "critical"]
                named[name] += bool(loud) and loud[0].cause == cause and all(alert.cause == cause for alert in loud)
                told = [(alert.severity, alert.cause, alert.subject) for alert in found if alert.severity != "info"]
                print(f"shop {seed}: {name}: {told[:4]}", flush=True)
    print(f"\n{periods} unchanged periods: {dict(alarms)} alerts; critical ones: {len(wrong)}")
    for line in wrong:
        print(f"  {line}")
    for name in SHIFTS:
        print(f"  {name:<32} found and named in {named[name]} of {options.shops} shops")
    sys.exit(bool(wrong) or any(named[name] < options.shops for name in SHIFTS))


if __name__ == "__main__":
    os.environ.setdefault("DBT_SEND_ANONYMOUS_USAGE_STATS", "false")
    main()
