"""The assistant: built once from articles and labelled tickets, then held; it recognises, searches, answers or not."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from lcm_ml.insights.words.language import LANGUAGES, plain_texts
from lcm_ml.support.answers import Facts, Written, write_answer, write_refusal
from lcm_ml.support.articles import ArticleIndex, index_articles
from lcm_ml.support.corpus import UNKNOWN, lesson
from lcm_ml.support.intents import IntentModel, fit_intents

_NO_ARTICLES = pl.DataFrame(schema=dict.fromkeys(("plain", "language", "intent"), pl.String))
WEIGHTS = {"bm25": 0.45, "cosine": 0.15, "intent": 0.15, "known": 0.25}
"""Of an article's score, which is 0 to 1: chosen on the topics of the base questions, and known on their refusals."""
CITED = 3
MOST_CHECKED = 300
"""At most so many labelled texts take part in the choice of the threshold, the newest ones."""

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
            best = [int(place) for place in np.argsort(-scores, kind="stable")[:CITED]]
            fitting = [place for place in best if scores[place] >= self.thresholds[language]]
            citations = tuple(_citation(index, place, plain, scores) for place in fitting)
        if not citations:
            return Answer(language, intent, probability, True, write_refusal(language, facts), ())
        about = intent if intent != UNKNOWN else citations[0].intent or UNKNOWN
        written = write_answer(language, about, citations[0].title, citations[0].passage, facts)
        return Answer(language, intent, probability, False, written, citations)

    def ask_as_rows(self, question: str, user_id: str | None, facts: Facts | None) -> dict[str, Any]:
        """`ask`, as one flat document, with what the asker should know about the answer.

        Args:
            question: any text.
            user_id: who asks, or None.
            facts: of that user; None where it is not known.

        Returns:
            The fields of `Answer`, with those of `written` in place of it, user_known and notes.
        """
        answer = asdict(self.ask(question, facts))
        written = answer.pop("written")
        notes = []
        if user_id and facts is None:
            notes.append(f"no user {user_id!r} in user_profiles: a general answer")
        if not self.indexes:
            notes.append("there are no articles: load kb_articles")
        return {**answer, **written, "user_known": facts is not None, "notes": notes}

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
                "text_id",
                intent=pl.lit(UNKNOWN),
                intent_probability=pl.lit(None, pl.Float64),
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
    told = [index.articles.with_columns(language=pl.lit(language)) for language, index in indexes.items()]
    known = pl.concat([_NO_ARTICLES, *(rows.select(_NO_ARTICLES.columns) for rows in told)])
    for language in LANGUAGES:
        rows = lesson(language, labelled, known)
        models[language] = fit_intents(language, rows)
        if language in indexes:
            thresholds[language] = _threshold(indexes[language], models[language], rows)
    return Assistant(models, indexes, thresholds)


def article_scores(index: ArticleIndex, model: IntentModel, plain: Sequence[str], probabilities: Matrix) -> Matrix:
    """(n, articles) scores: shares of BM25 and cosine, and the probability of the article's intent.

    The probability that the question is one for support at all is the same for all articles: it only tells whether to
    answer.
    """
    unknown = model.intents.index(UNKNOWN) if UNKNOWN in model.intents else None
    known = np.ones(len(plain)) if unknown is None else 1 - probabilities[:, unknown]
    return (
        WEIGHTS["bm25"] * index.bm25(plain)
        + WEIGHTS["cosine"] * index.cosine(plain)
        + WEIGHTS["intent"] * index.priors(model.intents, probabilities)
        + WEIGHTS["known"] * known[:, None]
    )


def _threshold(index: ArticleIndex, model: IntentModel, rows: pl.DataFrame) -> float:
    """The least score that best tells questions with an article from those without, on the base questions.

    Their intents are those of models that did not know them. A question counts as well served when it is answered
    from an article of its intent, one that has none when it is refused; both kinds weigh the same. The least score is
    taken that is within one standard error of the best, since few questions tell them apart. The shop's own tickets
    take part only where it has none of the base's intents: many are alike, so that even out of fold they are recognised
    better than new ones will be. Articles are no questions: each would find itself.
    """
    kinds = rows["kind"].to_numpy()
    chosen = np.flatnonzero(kinds == "base")
    if not (rows.filter(kind="base")["intent"] != UNKNOWN).any():
        chosen = np.concatenate([chosen, np.flatnonzero(kinds == "own")[-MOST_CHECKED:]])
    texts = rows["plain"].gather(chosen).to_list()
    truth = rows["intent"].gather(chosen).to_numpy().astype(str)
    scores = article_scores(index, model, texts, model.out_of_fold[chosen])
    surest = scores.max(axis=1)
    intents = index.articles["intent"].fill_null("").to_numpy().astype(str)
    answerable = np.isin(truth, intents)
    right = answerable & (intents[scores.argmax(axis=1)] == truth)
    if not answerable.any():
        # Articles without intents: nothing tells which is right, only what is no question for a shop.
        answerable = right = truth != UNKNOWN
    tried = np.unique(surest.round(3))
    n, others = answerable.sum(), (~answerable).sum()
    answered = np.array([(right & (surest >= least)).sum() / max(n, 1) for least in tried])
    refused = np.array([(~answerable & (surest < least)).sum() / max(others, 1) for least in tried])
    served = (answered + refused) / 2
    best = int(np.argmax(served))
    spread = answered[best] * (1 - answered[best]) / max(n, 1) + refused[best] * (1 - refused[best]) / max(others, 1)
    return float(tried[np.flatnonzero(served >= served[best] - np.sqrt(spread) / 2)[0]])


def _read(question: str) -> tuple[str, str]:
    row = plain_texts(pl.DataFrame({"text": [question]}))
    return row.item(0, "plain"), row.item(0, "language")


def _citation(index: ArticleIndex, place: int, plain: str, scores: Matrix) -> Citation:
    row = index.articles.row(place, named=True)
    passage = index.passage(place, plain)
    return Citation(row["article_id"], row["intent"], row["title"] or "", passage, float(scores[place]))
