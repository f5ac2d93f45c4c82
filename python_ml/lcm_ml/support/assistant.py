"""The assistant: built once from articles and labelled tickets, then held; it recognises, searches, answers or refuses."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from lcm_ml.insights.words.language import LANGUAGES, plain_texts
from lcm_ml.support.answers import Facts, Written, write_answer, write_refusal
from lcm_ml.support.articles import ArticleIndex, index_articles
from lcm_ml.support.corpus import UNKNOWN, base_questions, lesson
from lcm_ml.support.intents import IntentModel, fit_intents

WEIGHTS = {"bm25": 0.3, "cosine": 0.3, "intent": 0.4}
"""Of an article's score, which is 0 to 1: chosen on the topics of the base questions."""
CITED = 3
MOST_CHECKED = 300
"""The newest so many labelled texts take part in the choice of the threshold, beside the base questions."""

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Citation:
    """An article that was found for a question: score 0 to 1."""

    article_id: str
    intent: str | None
    title: str
    passage: str
    score: float


@dataclass(frozen=True)
class Answer:
    """What `Assistant.ask` says.

    Attributes:
        language: en, zh, other or none; answers to the latter two are in English.
        intent: unknown where the model is not sure.
        intent_probability: None where the language is not known.
        is_refused: no article fits well enough; `citations` are then empty.
        written: text for the user, a note for the agent and the facts that they hold.
        citations: the best first; the text is that of the first.
    """

    language: str
    intent: str
    intent_probability: float | None
    is_refused: bool
    written: Written
    citations: tuple[Citation, ...]


@dataclass(frozen=True)
class Assistant:
    """Everything that questions are answered with, by language.

    Attributes:
        models: intents.
        indexes: articles; a language without any has none.
        thresholds: the least score with which an article is cited.
    """

    models: dict[str, IntentModel]
    indexes: dict[str, ArticleIndex]
    thresholds: dict[str, float]

    def ask(self, question: str, facts: Facts | None = None) -> Answer:
        """Answer a question from the articles and the user's own facts, or say that no article fits.

        Args:
            question: any text; mark-up and what is longer than 2,000 letters is not read.
            facts: of who asks; None for a general answer.
        """
        plain, language = _read(question)
        model = self.models.get(language)
        if model is None or not plain:
            return Answer(language, UNKNOWN, None, True, write_refusal(language, facts), ())
        probabilities = model.probabilities([plain])
        intent, probability = model.told(probabilities)[0]
        index = self.indexes.get(language)
        citations: tuple[Citation, ...] = ()
        if index is not None:
            scores = article_scores(index, model, [plain], probabilities)[0]
            if scores.max() >= self.thresholds[language]:
                best = np.argsort(-scores, kind="stable")[:CITED]
                citations = tuple(_citation(index, int(place), plain, scores) for place in best)
        if not citations:
            return Answer(language, intent, probability, True, write_refusal(language, facts), ())
        about = intent if intent != UNKNOWN else citations[0].intent or UNKNOWN
        written = write_answer(language, about, citations[0].title, citations[0].passage, facts)
        return Answer(language, intent, probability, False, written, citations)

    def judge(self, texts: pl.DataFrame) -> pl.DataFrame:
        """Recognise many texts at once and suggest an article for each.

        Args:
            texts: text_id, plain, language (from `plain_texts`).

        Returns:
            text_id, intent, intent_probability (null and unknown where the language is not known), article_id (null
            where none fits), sorted by text_id.
        """
        parts = [
            texts.filter(~pl.col("language").is_in(list(self.models)) | (pl.col("plain") == "")).select(
                "text_id", intent=pl.lit(UNKNOWN), intent_probability=pl.lit(None, pl.Float64),
                article_id=pl.lit(None, pl.String),
            )
        ]
        for language, model in self.models.items():
            own = texts.filter(pl.col("language") == language, pl.col("plain") != "")
            if own.is_empty():
                continue
            # Many tickets are equal, and each text costs a search.
            distinct = own["plain"].unique(maintain_order=True).to_list()
            probabilities = model.probabilities(distinct)
            told = model.told(probabilities)
            verdicts = pl.DataFrame(
                {
                    "plain": distinct,
                    "intent": [intent for intent, _ in told],
                    "intent_probability": [probability for _, probability in told],
                    "article_id": self._suggested(language, distinct, probabilities),
                },
                schema_overrides={"article_id": pl.String},
            )
            parts.append(own.join(verdicts, on="plain").select(parts[0].columns))
        return pl.concat(parts).sort("text_id")

    def _suggested(self, language: str, plain: list[str], probabilities: Matrix) -> list[str | None]:
        index = self.indexes.get(language)
        if index is None:
            return [None] * len(plain)
        found: list[str | None] = []
        for start in range(0, len(plain), 500):
            part = slice(start, start + 500)
            scores = article_scores(index, self.models[language], plain[part], probabilities[part])
            best = scores.argmax(axis=1)
            fits = scores.max(axis=1) >= self.thresholds[language]
            ids = index.articles["article_id"]
            found += [ids[int(place)] if fit else None for place, fit in zip(best, fits, strict=True)]
        return found


def build_assistant(articles: pl.DataFrame, labelled: pl.DataFrame) -> Assistant:
    """Learn the intents, index the articles, and choose for each language when to refuse.

    Args:
        articles: article_id, intent, title, body.
        labelled: plain, language, intent of the shop's labelled tickets, oldest first, all before the date.
    """
    models, thresholds = {}, {}
    indexes = index_articles(articles)
    for language in LANGUAGES:
        rows = lesson(language, labelled, articles)
        models[language] = fit_intents(language, rows)
        if language in indexes:
            thresholds[language] = _threshold(indexes[language], models[language], rows)
    return Assistant(models, indexes, thresholds)


def article_scores(index: ArticleIndex, model: IntentModel, plain: Sequence[str], probabilities: Matrix) -> Matrix:
    """(n, articles) scores: shares of BM25 and cosine, and the probability of the article's intent."""
    return (
        WEIGHTS["bm25"] * index.bm25(plain)
        + WEIGHTS["cosine"] * index.cosine(plain)
        + WEIGHTS["intent"] * _priors(index, model, probabilities)
    )


def _priors(index: ArticleIndex, model: IntentModel, probabilities: Matrix) -> Matrix:
    places = {intent: place for place, intent in enumerate(model.intents)}
    columns = [places.get(intent, -1) for intent in index.articles["intent"]]
    # An article whose intent nobody labelled: nothing is known for or against it.
    padded = np.hstack([probabilities, np.full((len(probabilities), 1), 1 / len(model.intents))])
    return np.asarray(padded[:, columns])


def _threshold(index: ArticleIndex, model: IntentModel, rows: pl.DataFrame) -> float:
    """The least score that best tells questions with an article from those without, on the texts of the lesson.

    Their intents are those of models that did not know them. A question counts as well served when it is answered
    from an article of its intent, one that has none when it is refused; both kinds weigh the same.
    """
    base = base_questions(index.language)["plain"].to_list()
    places = np.flatnonzero(rows["plain"].is_in(base).to_numpy())
    others = np.setdiff1d(np.arange(rows.height), places)[-MOST_CHECKED:]
    chosen = np.concatenate([places, others])
    texts = rows["plain"].gather(chosen).to_list()
    truth = rows["intent"].gather(chosen).to_numpy()
    scores = article_scores(index, model, texts, model.out_of_fold[chosen])
    surest, intents = scores.max(axis=1), index.articles["intent"].to_numpy()
    answerable = np.isin(truth.astype(str), intents[intents != None].astype(str))  # noqa: E711
    right = answerable & (intents[scores.argmax(axis=1)] == truth)
    tried = np.unique(surest.round(3))
    served = [
        (right & (surest >= least)).sum() / max(answerable.sum(), 1)
        + (~answerable & (surest < least)).sum() / max((~answerable).sum(), 1)
        for least in tried
    ]
    return float(tried[int(np.argmax(served))])


def _read(question: str) -> tuple[str, str]:
    row = plain_texts(pl.DataFrame({"text": [question]}))
    return row.item(0, "plain"), row.item(0, "language")


def _citation(index: ArticleIndex, place: int, plain: str, scores: Matrix) -> Citation:
    row = index.articles.row(place, named=True)
    passage = index.passage(place, plain)
    return Citation(row["article_id"], row["intent"], row["title"] or "", passage, float(scores[place]))
