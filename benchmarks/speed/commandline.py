"""`lcm-ml --help` beside `python -c pass`: what a command costs before it does anything."""

import subprocess
import sys
from pathlib import Path

from speed.measure import Measure, in_turns, seconds
from speed.shop import Shop

MOST_SECONDS = 0.25


def measure(shop: Shop, rounds: int) -> list[Measure]:  # noqa: ARG001
    python, lcm = sys.executable, str(Path(sys.executable).with_name("lcm-ml"))

    def run(*command: str) -> float:
        return seconds(lambda: subprocess.run(command, check=True, capture_output=True))

    helped, passed = in_turns(max(rounds, 5), lambda: run(lcm, "--help"), lambda: run(python, "-c", "pass"))
    beyond = [ours - theirs for ours, theirs in zip(helped, passed, strict=True)]
    return [
        Measure("help", "`lcm-ml --help` less `python -c pass`, beside the 0.25 s that it may take", 1, beyond,
                [MOST_SECONDS] * len(beyond))
    ]  # fmt: skip
