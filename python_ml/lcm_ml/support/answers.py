"""Answers in words: an article's passage, and the user's own facts filled into sentences. Nothing else is said."""

import string
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib import resources
from typing import Any

import yaml

from lcm_ml.errors import LcmError

FIELDS: dict[str, set[str]] = {
    "article": {"title", "passage"},
    "last_purchase": {"last_purchase_date", "last_purchase_amount", "currency"},
    "open_tickets": {"open_tickets", "oldest_ticket_date"},
    "agent": {"user_id", "stage", "days_in_stage", "as_of_date"},
    **{name: set() for name in ("refusal", "no_purchase", "no_tickets", "consent_given", "consent_refused")},
}
"""The sentences, and the fields that each may have."""


@dataclass(frozen=True)
class Facts:
    """What the warehouse knows of who asks, strictly before `as_of_date`. None: not known, and nothing is said of it.

    Attributes:
        last_purchase_amount: money of the last day with a purchase, in `currency`.
        oldest_ticket_date: of the open tickets.
    """

    user_id: str
    as_of_date: date
    currency: str
    stage: str | None = None
    days_in_stage: int | None = None
    last_purchase_date: date | None = None
    last_purchase_amount: float | None = None
    marketing_consent: bool | None = None
    open_tickets: int = 0
    oldest_ticket_date: date | None = None


@dataclass(frozen=True)
class Written:
    """An answer in words.

    Attributes:
        text: for the user.
        agent_note: for the support agent, who sees the lifecycle stage; empty where nobody is known.
        facts: every fact that text and note hold, as written there.
    """

    text: str
    agent_note: str
    facts: dict[str, str]


def write_answer(language: str, intent: str, title: str, passage: str, facts: Facts | None) -> Written:
    """An article's passage, and what is known of the user that matters for the intent.

    Args:
        language: en or zh.
        intent: decides which facts are told.
        title: of the article.
        passage: of the article.
        facts: None for a general answer.
    """
    sentences, _ = _sentences()
    article = sentences[language]["article"].format(title=title, passage=passage)
    return _with_facts(language, intent, article, facts)


def write_refusal(language: str, facts: Facts | None) -> Written:
    """That no article fits; in English where the question's language is not known."""
    told = language if language in _sentences()[0] else "en"
    return _with_facts(told, "refused", _sentences()[0][told]["refusal"], facts)


def _with_facts(language: str, intent: str, text: str, facts: Facts | None) -> Written:
    if facts is None:
        return Written(text, "", {})
    sentences, called_for = _sentences()
    known = _as_text(facts)
    chosen = []
    for kind in ["tickets"] if intent == "refused" else called_for.get(intent, called_for["default"]):
        if kind == "purchase":
            chosen.append("last_purchase" if facts.last_purchase_date else "no_purchase")
        elif kind == "tickets":
            chosen.append("open_tickets" if facts.open_tickets else "no_tickets")
        elif facts.marketing_consent is not None:
            chosen.append("consent_given" if facts.marketing_consent else "consent_refused")
    lines = [text]
    used: set[str] = set()
    for name in chosen:
        if FIELDS[name] <= known.keys():
            lines.append(sentences[language][name].format(**known))
            used |= FIELDS[name]
    note = ""
    if FIELDS["agent"] <= known.keys():
        note = sentences[language]["agent"].format(**known)
        used |= FIELDS["agent"]
    return Written("\n".join(lines), note, {name: known[name] for name in sorted(used)})


def _as_text(facts: Facts) -> dict[str, str]:
    """Facts that are known, as an answer writes them."""
    amount = facts.last_purchase_amount
    found: dict[str, Any] = {
        "user_id": facts.user_id,
        "as_of_date": facts.as_of_date,
        "currency": facts.currency,
        "stage": facts.stage,
        "days_in_stage": facts.days_in_stage,
        "last_purchase_date": facts.last_purchase_date,
        "last_purchase_amount": None if amount is None else f"{amount:,.2f}",
        "open_tickets": facts.open_tickets,
        "oldest_ticket_date": facts.oldest_ticket_date,
    }
    return {name: str(value) for name, value in found.items() if value is not None}


@cache
def _sentences() -> tuple[dict[str, dict[str, str]], dict[str, list[str]]]:
    """The sentences by language, and the facts by intent; checked, so that none has a field of its own."""
    source = resources.files("lcm_ml.support") / "data" / "answers.yml"
    document = yaml.safe_load(source.read_text(encoding="utf-8"))
    called_for = document.pop("facts")
    for language, sentences in document.items():
        check_sentences(language, sentences)
    return document, called_for


def check_sentences(language: str, sentences: dict[str, str]) -> None:
    """See that the sentences are complete and have plain, allowed fields alone: no attribute, index or conversion.

    Raises:
        LcmError: naming the sentence.
    """
    step = "mend support/data/answers.yml"
    if missing := FIELDS.keys() - sentences.keys():
        raise LcmError(f"answers in {language} lack {', '.join(sorted(missing))}", step)
    for name, sentence in sentences.items():
        for _, field, form, conversion in string.Formatter().parse(sentence):
            if field is not None and (field not in FIELDS.get(name, set()) or form or conversion):
                raise LcmError(f"the sentence {name} in {language} has the field {{{field}}}", step)
