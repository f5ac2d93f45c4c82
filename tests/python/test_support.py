"""The support assistant: on held-out questions, on known truth, under hostile input, and in the warehouse."""

import re
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as example_settings
from hypothesis import strategies as st
from lifecycle import change, lcm, query, warehouse_at

from lcm_ml.errors import LcmError
from lcm_ml.frames.support import facts_of, tickets_before
from lcm_ml.insights.words.language import plain_texts
from lcm_ml.support.answers import Facts, check_sentences, write_answer, write_refusal
from lcm_ml.support.articles import index_articles
from lcm_ml.support.assistant import Assistant, build_assistant
from lcm_ml.support.corpus import UNKNOWN, base_questions, lesson
from lcm_ml.support.evaluation import evaluate_held_out, evaluate_shop
from lcm_ml.support.measures import macro_f1, search_measures
from lcm_ml.support.tokens import terms
from lcm_ml.support.triage import triage_rows
from lcm_ml.warehouse.connection import connect

HERE = Path(__file__).parent
QUESTIONS = pl.read_csv(HERE / "labelled_tickets.csv", infer_schema=False)
ARTICLES = pl.read_csv(HERE / "labelled_articles.csv", infer_schema=False)
NONE_LABELLED = pl.DataFrame(schema=dict.fromkeys(("plain", "language", "intent"), pl.String))
FACTS = Facts(
    "u17", date(2025, 6, 2), "EUR", "at_risk", 12, date(2025, 4, 9), 1234.5, True, 2, date(2025, 5, 28)
)  # fmt: skip
WEIGHTS = {"urgency": 4, "sentiment": 2, "value": 2, "churn": 2}
URGENCY = {"payment": 1.0, "product": 0.4}


@pytest.fixture(scope="module")
def assistant() -> Assistant:
    return build_assistant(ARTICLES, NONE_LABELLED)


@pytest.fixture(scope="module")
def figures() -> dict[tuple[str, str, str], dict[str, float]]:
    measured = evaluate_held_out(QUESTIONS, ARTICLES, NONE_LABELLED)
    return {(r["language"], r["model_name"], r["metric"]): r for r in measured.metrics.to_dicts()}


@pytest.fixture(scope="module")
def shop(sample: Path) -> Iterator[Path]:
    """The sample with two open tickets of one user, one of them without words."""
    columns = "ticket_id, user_id, created_at, text, intent, resolved_at, created_date"
    change(
        sample,
        f"insert into staging.stg_support_tickets ({columns}) "
        "select 'X1', user_id, timestamp '2025-12-20 10:00:00', 'I was charged twice, this is terrible!', null, null, "
        "date '2025-12-20' from serving.user_profiles where last_purchase_date is not null order by user_id limit 1",
        f"insert into staging.stg_support_tickets ({columns}) "
        "select 'X2', user_id, timestamp '2025-12-21 10:00:00', null, null, null, date '2025-12-21' "
        "from serving.user_profiles where last_purchase_date is not null order by user_id limit 1",
    )
    with warehouse_at(sample):
        yield sample


@pytest.mark.parametrize("language", ["en", "zh"])
def test_held_out_questions_beat_plain_ways(language, figures):
    own = QUESTIONS.filter(language=language)
    assert own.height >= 100
    assert (own["intent"] == UNKNOWN).sum() >= 20
    f1 = figures[language, "assistant", "intent_macro_f1"]
    assert f1["ci_low"] < f1["value"] < f1["ci_high"]
    assert f1["value"] > figures[language, "keywords", "intent_macro_f1"]["value"]
    assert f1["ci_low"] > figures[language, "majority", "intent_macro_f1"]["ci_high"]
    for metric in ("recall_at_3", "mrr"):
        assert figures[language, "assistant", metric]["value"] > figures[language, "keywords", metric]["value"]
    assert figures[language, "assistant", "recall_at_3"]["value"] >= 0.75
    assert figures[language, "assistant", "refusal_recall"]["value"] >= 0.5


def test_held_out_questions_are_not_learnt_from():
    tested = set(plain_texts(QUESTIONS.rename({"language": "meant"}))["plain"])
    for language in ("en", "zh"):
        assert not tested & set(base_questions(language)["plain"])
    assert set(QUESTIONS["article_id"].drop_nulls()) == set(ARTICLES["article_id"])


def test_measures_by_hand():
    scores = pl.DataFrame([[3.0, 2.0, 1.0, 0.0], [1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]).transpose().to_numpy()
    found = search_measures(
        scores, right=pl.Series([1, 1, -1]).to_numpy(), refused=pl.Series([False, True, True]).to_numpy()
    )
    assert found["mrr"][0] == pytest.approx((1 / 2 + 1 / 1.5) / 2)
    assert found["recall_at_3"][0] == 1.0
    assert found["refusal_precision"][0] == 0.5
    assert found["refusal_recall"][0] == 1.0
    assert found["right_article_first"][0] == 0.0
    f1 = macro_f1(["a", "a", "b", "b"], ["a", "a", "a", "c"], ["1", "2", "3", "4"])
    assert f1[0] == pytest.approx((0.8 + 0.0) / 2)


def test_probabilities_are_calibrated_within_what_chance_allows(assistant):
    """Of what is said with a probability of about p, a share of about p is right."""
    for language, model in assistant.models.items():
        own = plain_texts(QUESTIONS.filter(language=language).rename({"language": "meant"}))
        probabilities = model.probabilities(own["plain"].to_list())
        assert probabilities.sum(axis=1) == pytest.approx(1.0)
        right = pl.Series([model.intents[k] for k in probabilities.argmax(axis=1)]) == own["intent"]
        assert abs(probabilities.max(axis=1).mean() - right.mean()) < 0.15


def test_bm25_finds_the_article_with_the_rare_word_and_refuses_what_nobody_wrote_about(assistant):
    answer = assistant.ask("Can I pay with PayPal or a gift card?")
    assert answer.citations[0].article_id == "payment-methods-en"
    assert answer.citations[0].passage in answer.written.text
    chinese = assistant.ask("怎么开发票？")
    assert chinese.citations[0].article_id == "payment-invoice-zh"
    assert "发票" in chinese.written.text
    refused = assistant.ask("How do I bake a cake with three eggs?")
    assert refused.is_refused
    assert refused.citations == ()


def test_the_language_of_the_answer_is_that_of_the_question(assistant):
    for text, expected in (("Where is my parcel?", "en"), ("我的包裹在哪里？", "zh"), ("今天天气怎么样", "zh")):
        told = plain_texts(pl.DataFrame({"text": [assistant.ask(text, FACTS).written.text]}))["language"][0]
        assert told == expected


def test_a_long_article_is_cited_by_the_sentences_that_answer():
    body = "We sell tea. " * 40 + "The kettle has a warranty of nine years. " + "We sell coffee. " * 40
    articles = pl.DataFrame(
        {"article_id": ["a", "b"], "intent": ["x", "y"], "title": ["Tea", "Cups"], "body": [body, "c"]}
    )
    index = index_articles(articles)["en"]
    assert "nine years" in index.passage(0, "how long is the warranty of the kettle")
    assert len(index.passage(0, "warranty")) < 200


def numbers(text: str) -> set[str]:
    return set(re.findall(r"\d[\d,.:-]*\d|\d", text))


@pytest.mark.parametrize("known", [None, FACTS])
def test_every_figure_comes_from_a_table(assistant, known):
    for question in QUESTIONS["text"]:
        answer = assistant.ask(question, known)
        sources = [*answer.written.facts.values(), *(f"{cited.title}\n{cited.passage}" for cited in answer.citations)]
        allowed = set().union(*(numbers(source) for source in sources), set())
        assert numbers(answer.written.text + answer.written.agent_note) <= allowed


def test_what_is_not_known_is_not_said():
    stranger = Facts("u1", date(2025, 6, 2), "EUR")
    written = write_answer("en", "default", "T", "P", stranger)
    assert written.text == "T\nP\nThere is no purchase of yours yet.\nYou have no open ticket."
    assert written.agent_note == ""
    told = write_answer("zh", "delivery", "T", "P", FACTS)
    assert "1,234.50 EUR" in told.text
    assert "2025-04-09" in told.text
    assert "at_risk" in told.agent_note
    assert "at_risk" not in told.text
    assert write_refusal("other", None).text.startswith("I found no article")


@pytest.mark.parametrize("sentence", ["{title.__class__}", "{title[0]}", "{title!r}", "{title:>9}", "{user_id}", "{}"])
def test_templates_have_plain_fields_alone(sentence):
    from lcm_ml.support.answers import _sentences

    good = dict(_sentences()[0]["en"])
    check_sentences("en", good)
    with pytest.raises(LcmError, match="article"):
        check_sentences("en", {**good, "article": sentence})


HOSTILE = [
    "",
    " ",
    "refund " * 150_000,
    "退款" * 500_000,
    "<script>alert(1)</script><b>where is my parcel</b>",
    "'; drop table marts.kb_articles; --",
    "{facts.__class__} {0} {} %s %(x)s {{user_id}}",
    "‮my parcel‬ ‏ is late",
    "\x00\x01\ud83d" if False else "\x00\x01",
    "Где моя посылка?",
    "أين طردي؟",
    "荷物はどこですか",
    "💥💥💥",
    "1234567890",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_questions_are_answered_or_refused_and_never_repeated(assistant, text):
    written = assistant.ask(text, FACTS).written
    for part in ("<script", "drop table", "__class__", "{", "%s", "‮"):
        assert part not in written.text
    assert len(written.text) < 2000


@example_settings(max_examples=30)
@given(st.text(max_size=60))
def test_any_text_has_an_answer(assistant_once, text):
    answer = assistant_once.ask(text)
    assert answer.is_refused == (not answer.citations)
    assert answer.intent in {*assistant_once.models["en"].intents, UNKNOWN}


@pytest.fixture(scope="module")
def assistant_once(assistant: Assistant) -> Assistant:
    return assistant


def test_hostile_articles_stay_text():
    articles = pl.DataFrame(
        {
            "article_id": ["a", "b", "c"],
            "intent": ["delivery", None, "delivery"],
            "title": ["Parcel {user_id}", None, "包裹"],
            "body": ["Your parcel: {0} {facts.__class__}", "", None],
        }
    )
    answer = build_assistant(articles, NONE_LABELLED).ask("where is my parcel?", FACTS)
    assert "{user_id}" in answer.written.text
    assert "{facts.__class__}" in answer.written.text


def test_articles_without_intents_are_found_all_the_same():
    bare = build_assistant(ARTICLES.with_columns(intent=pl.lit(None, pl.String)), NONE_LABELLED)
    assert bare.ask("Can I pay with PayPal or a gift card?").citations[0].article_id == "payment-methods-en"
    assert bare.ask("What is the capital of Australia?").is_refused


def test_a_shop_without_articles_refuses(assistant):
    bare = build_assistant(ARTICLES.clear(), NONE_LABELLED)
    answer = bare.ask("I forgot my password")
    assert answer.is_refused
    assert answer.intent == "account"


def test_a_shop_with_intents_of_its_own_learns_those():
    own = pl.DataFrame(
        {
            "plain": [f"the bicycle number {k} needs a new chain" for k in range(12)]
            + [f"my helmet number {k} is too tight" for k in range(12)],
            "language": ["en"] * 24,
            "intent": ["workshop"] * 12 + ["clothing"] * 12,
        }
    )
    rows = lesson("en", own, pl.DataFrame(schema=NONE_LABELLED.schema))
    assert set(rows["intent"]) == {"workshop", "clothing", UNKNOWN}
    assert build_assistant(ARTICLES.clear(), own).ask("can you change the chain of my bicycle").intent == "workshop"


def test_terms():
    assert terms("returned returns returning", "en") == ["return"] * 3
    assert terms("the of and", "en") == []
    assert terms("退货abc", "zh") == ["退货", "abc"]


def waiting(**changes: object) -> pl.DataFrame:
    row = {
        "ticket_id": "t", "user_id": "u", "created_at": datetime(2025, 6, 1), "intent": "product",
        "intent_probability": 0.9, "sentiment": 0.0, "article_id": None,
    }  # fmt: skip
    return pl.DataFrame([row | changes], schema_overrides={"article_id": pl.String, "sentiment": pl.Float64})


def standing(decile: int | None = 5, churn: float | None = 0.5) -> pl.DataFrame:
    rows = {"user_id": ["u"], "value_decile": [decile], "churn_probability": [churn]}
    return pl.DataFrame(rows, schema_overrides={"value_decile": pl.Int64, "churn_probability": pl.Float64})


def priority(tickets: pl.DataFrame, known: pl.DataFrame) -> float:
    return float(triage_rows(tickets, known, WEIGHTS, URGENCY)["priority"][0])


def test_each_part_raises_the_priority():
    base = priority(waiting(), standing())
    assert priority(waiting(intent="payment"), standing()) > base
    assert priority(waiting(sentiment=-0.8), standing()) > base
    assert priority(waiting(), standing(decile=1)) > base
    assert priority(waiting(), standing(churn=0.9)) > base
    assert priority(waiting(intent="payment", sentiment=-1.0), standing(1, 1.0)) == 1.0
    assert priority(waiting(), standing()) == pytest.approx(0.4 * 0.4 + 0.2 * 0.5 + 0.2 * 5 / 9 + 0.2 * 0.5, abs=1e-6)


def test_reasons_name_what_presses_and_nothing_else():
    pressed = triage_rows(waiting(intent="payment", sentiment=-0.9), standing(1, 0.83), WEIGHTS, URGENCY)
    assert pressed["reason"][0].split("; ") == [
        "payment is urgent",
        "the user is worth much (value decile 1)",
        "it sounds negative",
        "the user may leave (83%)",
    ]  # fmt: skip
    calm = triage_rows(waiting(sentiment=0.5), standing(9, 0.1), WEIGHTS, URGENCY)
    assert calm["reason"][0] == "nothing about it presses"
    missing = triage_rows(waiting(sentiment=None), standing(None, None), WEIGHTS, {})
    assert missing["priority"][0] == 0.5


@pytest.mark.parametrize("weights", [{"urgency": -1}, {"urgency": 0}, {"age": 1}, {}])
def test_weights_without_sense_are_refused(weights):
    with pytest.raises(LcmError, match="triage_weights"):
        triage_rows(waiting(), standing(), weights, URGENCY)


def test_out_of_time_on_the_shop_learns_from_the_past_alone():
    rows = pl.DataFrame(
        {
            "created_date": [date(2025, 1, 1)] * 12 + [date(2025, 5, 20)] * 2,
            "plain": [f"zork number {k}" for k in range(12)] + ["zork number 3", "zork again"],
            "language": ["en"] * 14,
            "intent": ["delivery"] * 14,
            "user_id": ["a"] * 14,
        }
    )
    early = evaluate_shop(rows, ARTICLES, date(2025, 6, 2))
    found = early.metrics.filter(model_name="assistant", metric="intent_macro_f1")
    assert found["value"][0] == 1.0
    assert found["n"][0] == 2
    assert early.notes == ["1 of 2 labelled tickets of the shop have a text that was seen before"]
    # Without the past, nothing is known of that word.
    alone = evaluate_shop(rows.tail(2), ARTICLES, date(2025, 6, 2))
    assert alone.metrics.filter(model_name="assistant", metric="intent_macro_f1")["value"][0] < 1.0


def test_triage_in_the_warehouse(shop):
    result = lcm(shop, "support", "triage")
    rows = query(shop, "select * from serving.ticket_triage_latest order by priority_rank")
    assert {"X1", "X2"} <= set(rows["ticket_id"])
    assert rows["priority_rank"].to_list() == list(range(1, rows.height + 1))
    assert rows["priority"].is_sorted(descending=True)
    by_ticket = {row["ticket_id"]: row for row in rows.to_dicts()}
    assert by_ticket["X1"]["intent"] == "payment"
    assert by_ticket["X1"]["sentiment"] < 0
    assert by_ticket["X1"]["suggested_article_id"] == "KB-payment-en"
    assert by_ticket["X2"]["intent"] == UNKNOWN
    assert by_ticket["X2"]["suggested_article_id"] is None
    assert result["open"] == rows.height
    lcm(shop, "support", "triage")
    assert query(shop, "select count(*) from ml.ticket_triage").item() == rows.height


def test_what_comes_later_is_not_known(shop):
    early = date(2025, 12, 22)
    with connect(read_only=True) as con:
        before = tickets_before(con, early)
    resolved = query(shop, "select ticket_id, resolved_date from marts.support_tickets")
    joined = before.join(resolved, on="ticket_id")
    assert (before["created_date"] < early).all()
    later = joined.filter(pl.col("resolved_date").is_null() | (pl.col("resolved_date") >= early))
    assert later.height
    assert joined.filter("is_open")["ticket_id"].sort().equals(later["ticket_id"].sort())


def test_facts_are_those_of_the_tables(shop):
    user = query(shop, "select user_id from marts.support_tickets where ticket_id = 'X1'").item()
    answer = lcm(shop, "support", "ask", "I was charged twice", "--user", user)
    with connect(read_only=True) as con:
        facts = facts_of(con, user)
    assert facts is not None
    spent = query(
        shop,
        f"""
        select round(sum(amount), 2) from marts.shop_events
        where event_type = 'purchase' and event_date = '{facts.last_purchase_date}'
            and (user_id = '{user}' or linked_user_id = '{user}')
        """,
    ).item()
    assert facts.last_purchase_amount == pytest.approx(float(spent), abs=0.01)
    assert facts.open_tickets == 2
    assert answer["user_known"]
    assert answer["facts"]["open_tickets"] == "2"
    assert answer["citations"][0]["article_id"] == "KB-payment-en"
    general = lcm(shop, "support", "ask", "我的包裹在哪里？", "--user", "nobody'; drop table marts.kb_articles; --")
    assert not general["user_known"]
    assert general["facts"] == {}
    assert general["citations"][0]["article_id"] == "KB-delivery-zh"


def test_evaluate_writes_figures_with_baselines(shop):
    lcm(shop, "support", "evaluate")
    rows = query(shop, "select * from ml.support_metrics")
    assert {"assistant", "keywords", "majority"} <= set(rows["model_name"])
    assert set(rows["evaluated_on"]) == {"held_out", "shop"}
    confusion = query(
        shop, "select evaluated_on, language, sum(n) as n from ml.support_confusion group by all order by all"
    )
    assert confusion.filter(evaluated_on="held_out")["n"].to_list() == [120, 120]


def test_a_shop_without_tickets_and_articles_has_notes(shop, tmp_path):
    import shutil

    path = tmp_path / "lcm.duckdb"
    shutil.copy(shop, path)
    change(path, "delete from staging.stg_support_tickets", "delete from staging.stg_kb_articles")
    assert lcm(path, "support", "triage")["notes"] == [
        "there are no tickets: load support_tickets",
        "there are no articles to suggest: load kb_articles",
    ]
    assert lcm(path, "support", "ask", "where is my parcel?")["is_refused"]
    assert query(path, "select count(*) from serving.ticket_triage_latest").item() == 0
    assert "no labelled ticket" in lcm(path, "support", "evaluate")["notes"][0]
