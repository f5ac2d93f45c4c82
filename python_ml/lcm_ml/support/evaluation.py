"""How good the assistant is: on labelled questions it never saw, and out of time on the shop's own labelled tickets."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cache
from importlib import resources

import numpy as np
import numpy.typing as npt
import polars as pl
import yaml

from lcm_ml.insights.words.language import LANGUAGES, plain_texts
from lcm_ml.support.assistant import Assistant, article_scores, build_assistant
from lcm_ml.support.corpus import UNKNOWN
from lcm_ml.support.measures import Interval, macro_f1, search_measures

WINDOW_DAYS = 84
METRICS = {
    "evaluated_on": pl.String,
    "language": pl.String,
    "model_name": pl.String,
    "metric": pl.String,
    **dict.fromkeys(("value", "ci_low", "ci_high"), pl.Float64),
    "n": pl.Int64,
}
CONFUSION = {**dict.fromkeys(("evaluated_on", "language", "intent", "recognised_intent"), pl.String), "n": pl.Int64}


@dataclass
class Measured:
    """Rows of ml.support_metrics and ml.support_confusion, without as_of_date and run_id, and what is to be noted."""

    metrics: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=METRICS))
    confusion: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=CONFUSION))
    notes: list[str] = field(default_factory=list)

    def add(self, other: "Measured") -> None:
        """Take over what another one found."""
        self.metrics = pl.concat([self.metrics, other.metrics])
        self.confusion = pl.concat([self.confusion, other.confusion])
        self.notes += other.notes


def evaluate_held_out(questions: pl.DataFrame, articles: pl.DataFrame, labelled: pl.DataFrame) -> Measured:
    """Measure an assistant for `articles` on labelled questions.

    Args:
        questions: language, intent (unknown: to be refused), article_id (null for those), text.
        articles: article_id, intent, title, body of the knowledge base that the questions belong to.
        labelled: the shop's labelled tickets to learn from, beside the base questions.
    """
    assistant = build_assistant(articles, labelled)
    measured = Measured()
    for language in LANGUAGES:
        own = plain_texts(questions.filter(pl.col("language") == language).rename({"language": "meant"}))
        if own.is_empty():
            continue
        numbers = [str(row) for row in range(own.height)]
        measured.add(_intents("held_out", language, own, assistant, _commonest(own), numbers))
        if language in assistant.indexes:
            measured.add(_search(language, own, assistant))
    return measured


def evaluate_shop(tickets: pl.DataFrame, articles: pl.DataFrame, as_of: date) -> Measured:
    """Measure the recognition of intents on the shop's labelled tickets of the last days, by models of what lay before.

    Args:
        tickets: created_date, plain, language, intent, user_id of tickets before `as_of`, oldest first.
        articles: the shop's knowledge base.
        as_of: end of the window.
    """
    labelled = tickets.filter(pl.col("intent").is_not_null(), pl.col("plain") != "")
    start = as_of - timedelta(days=WINDOW_DAYS)
    past, later = labelled.filter(pl.col("created_date") < start), labelled.filter(pl.col("created_date") >= start)
    later = later.filter(pl.col("language").is_in(LANGUAGES))
    if later.is_empty():
        return Measured(notes=[f"no labelled ticket of the shop in the {WINDOW_DAYS} days before {as_of}"])
    assistant = build_assistant(articles, past)
    measured = Measured()
    for language in LANGUAGES:
        own = later.filter(pl.col("language") == language)
        if own.height:
            before = _commonest(past.filter(pl.col("language") == language), own)
            measured.add(_intents("shop", language, own, assistant, before, own["user_id"].to_list()))
    seen = later.filter(pl.col("plain").is_in(past["plain"].implode())).height
    measured.notes.append(f"{seen:,} of {later.height:,} labelled tickets of the shop have a text that was seen before")
    return measured


def _commonest(*frames: pl.DataFrame) -> str:
    """The commonest intent of the first frame that has any."""
    for frame in frames:
        if frame.height:
            return str(min(Counter(frame["intent"]).items(), key=lambda item: (-item[1], item[0]))[0])
    return UNKNOWN


def _intents(
    evaluated_on: str, language: str, own: pl.DataFrame, assistant: Assistant, majority: str, owners: list[str]
) -> Measured:
    model, texts, truth = assistant.models[language], own["plain"].to_list(), own["intent"].to_list()
    told = [intent for intent, _ in model.told(model.probabilities(texts))]
    by_model = {
        "assistant": told,
        "keywords": [keyword_intent(text, language) for text in texts],
        "majority": [majority] * len(texts),
    }
    rows = [
        (evaluated_on, language, name, "intent_macro_f1", *_finite(macro_f1(truth, found, owners)), len(truth))
        for name, found in by_model.items()
    ]
    counted = sorted(Counter(zip(truth, told, strict=True)).items())
    cells = [(evaluated_on, language, actual, found, n) for (actual, found), n in counted]
    return Measured(
        pl.DataFrame(rows, schema=METRICS, orient="row"), pl.DataFrame(cells, schema=CONFUSION, orient="row")
    )


def _search(language: str, own: pl.DataFrame, assistant: Assistant) -> Measured:
    """The whole search, its parts (which refuse nothing), and keyword matching, which refuses what shares no term."""
    index, model, texts = assistant.indexes[language], assistant.models[language], own["plain"].to_list()
    places = {article: place for place, article in enumerate(index.articles["article_id"])}
    right = np.array([places.get(article, -1) for article in own["article_id"]])
    scores = article_scores(index, model, texts, model.probabilities(texts))
    shared = index.overlap(texts)
    refused: dict[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_] | None]] = {
        "assistant": (scores, scores.max(axis=1) < assistant.thresholds[language]),
        "keywords": (shared, shared.max(axis=1) == 0),
        "bm25": (index.bm25(texts), None),
        "cosine": (index.cosine(texts), None),
        "majority": (
            _of_intent(index.articles["intent"], _commonest(own.filter(pl.col("intent") != UNKNOWN)), own),
            None,
        ),
    }
    rows = []
    for name, (found, turned_down) in refused.items():
        nobody = np.zeros(len(texts), dtype=bool)
        for metric, value in search_measures(found, right, nobody if turned_down is None else turned_down).items():
            if turned_down is not None or metric in ("recall_at_3", "mrr"):
                rows.append(("held_out", language, name, metric, *_finite(value), len(texts)))
    return Measured(pl.DataFrame(rows, schema=METRICS, orient="row"))


def _of_intent(intents: pl.Series, intent: str, own: pl.DataFrame) -> npt.NDArray[np.float64]:
    return np.tile((intents == intent).cast(pl.Float64).to_numpy(), (own.height, 1))


def keyword_intent(plain: str, language: str) -> str:
    """The intent with the most of its keywords in the text, the first one where equal; unknown without any."""
    padded = f" {plain} "
    counts = {intent: sum(word in padded for word in words) for intent, words in _keywords()[language].items()}
    best = max(counts, key=lambda intent: counts[intent])
    return best if counts[best] else UNKNOWN


@cache
def _keywords() -> dict[str, dict[str, list[str]]]:
    source = resources.files("lcm_ml.support") / "data" / "keywords.yml"
    found: dict[str, dict[str, list[str]]] = yaml.safe_load(source.read_text(encoding="utf-8"))
    return found


def _finite(interval: Interval) -> tuple[float | None, ...]:
    return tuple(value if np.isfinite(value) else None for value in interval)
