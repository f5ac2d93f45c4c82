"""How long the support assistant takes to build and to answer at 10,000 synthetic articles, held in memory.

Ends with 1 when the 95th percentile of `ask` is above 100 ms.

    .venv/bin/python benchmarks/support.py [--articles 10000] [--questions 500]
"""

import argparse
import json
import random
import resource
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl

from lcm_ml.insights.words.language import LANGUAGES
from lcm_ml.support.assistant import build_assistant
from lcm_ml.support.corpus import UNKNOWN, base_questions

RESULTS = Path(__file__).parent / "results" / "support.json"
MOST_SECONDS = 0.1
NOTHING = pl.DataFrame(schema=dict.fromkeys(("plain", "language", "intent"), pl.String))


def synthetic_articles(n: int, seed: int = 0) -> pl.DataFrame:
    """Articles of about 60 words, half in each language: sentences of the base questions and made-up words."""
    rng = random.Random(seed)
    made_up = ["".join(rng.choices("abcdefghijklmnoprstuvw", k=rng.randint(4, 9))) for _ in range(8000)]
    rows = []
    for number in range(n):
        language = LANGUAGES[number % 2]
        known = base_questions(language).filter(pl.col("intent") != UNKNOWN)
        chosen = known.sample(5, seed=number)
        extra = (
            rng.choices(made_up, k=30) if language == "en" else [chr(rng.randint(0x4E00, 0x6FFF)) for _ in range(60)]
        )
        parts = [*chosen["text"], (" " if language == "en" else "").join(extra)]
        rows.append((f"a{number:05}", chosen["intent"][0], chosen["text"][0], " ".join(parts)))
    return pl.DataFrame(rows, schema=["article_id", "intent", "title", "body"], orient="row")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--articles", type=int, default=10_000)
    parser.add_argument("--questions", type=int, default=500)
    options = parser.parse_args()
    articles = synthetic_articles(options.articles)
    started = time.perf_counter()
    assistant = build_assistant(articles, NOTHING)
    build = time.perf_counter() - started
    texts = pl.concat([base_questions(language) for language in LANGUAGES])["text"]
    asked = texts.sample(options.questions, with_replacement=True, seed=1).to_list()
    taken = []
    for text in asked:
        started = time.perf_counter()
        assistant.ask(text)
        taken.append(time.perf_counter() - started)
    p50, p95 = np.percentile(taken, [50, 95])
    result = {
        "articles": options.articles,
        "questions": options.questions,
        "build_seconds": round(build, 2),
        "ask_p50_ms": round(1000 * p50, 1),
        "ask_p95_ms": round(1000 * p95, 1),
        "ask_max_ms": round(1000 * max(taken), 1),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))
    sys.exit(p95 > MOST_SECONDS)


if __name__ == "__main__":
    main()
