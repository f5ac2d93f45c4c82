"""Loading a Parquet file of events with all cleaning rules, beside DuckDB's plain `create table as select *`."""

import shutil
import time

from speed.measure import Measure, in_turns, seconds
from speed.shop import Shop, connect


def measure(shop: Shop, rounds: int) -> list[Measure]:
    path = shop.copy(shop.history)
    other = path.with_name("plain.duckdb")
    files = shop.files / "history.parquet"

    def ours() -> float:
        start = time.perf_counter()
        shop.load(path, "history", first=True)
        loaded = time.perf_counter() - start
        return loaded + sum(shop.build(path, "--full-refresh", "-s", "stg_events_checked").values())

    def plain() -> float:
        other.unlink(missing_ok=True)

        def work() -> None:
            con = connect(other)
            con.execute(f"create table events as select * from '{files}'")
            con.close()

        return seconds(work)

    mine, theirs = in_turns(rounds, ours, plain)
    shutil.rmtree(path.parent)
    what = "`lcm-ml load` as a process and the checking of every row, beside `create table as select *` of the file"
    return [Measure("load", what, 6, mine, theirs)]
