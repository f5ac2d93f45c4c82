"""Sentiment and topics of texts: on labelled sentences, on known truth, and in the warehouse."""

import random
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as example_settings
from hypothesis import strategies as st
from lifecycle import change, lcm, query, warehouse_at
from polars.testing import assert_frame_equal

from lcm_ml.insights.words.agreement import agreement
from lcm_ml.insights.words.features import text_features
from lcm_ml.insights.words.judging import judge, with_sentiment
from lcm_ml.insights.words.language import LONGEST, plain_texts
from lcm_ml.insights.words.sentiment import LABELS, base_corpus, base_model, shop_model
from lcm_ml.insights.words.topics import fit_topics

LABELLED = Path(__file__).parent / "labelled_texts.csv"
AS_OF = date(2025, 6, 2)
NOTHING_KNOWN = pl.DataFrame(
    schema={"language": pl.String, "as_of_date": pl.Date, "topic_id": pl.Int64, "words": pl.String}
)
THEMES = {
    "parcel": "parcel courier street delivery arrived driver door box tracking depot",
    "shoes": "shoes leather heel sole walking laces boots ankle toe insole",
    "coffee": "coffee beans espresso roast aroma grinder cup brew filter mug",
}


def texts_of(*rows: tuple[str, str, date, str, float | None]) -> pl.DataFrame:
    """kind, user_id, written_date, text, rating."""
    frame = pl.DataFrame(rows, schema=["kind", "user_id", "written_date", "text", "rating"], orient="row")
    return frame.with_columns(
        pl.col("rating").cast(pl.Float64),
        text_id=pl.format("t{}", pl.int_range(pl.len()).cast(pl.String).str.zfill(5)),
        written_at=pl.col("written_date").cast(pl.Datetime),
    )


def label_of(text: str) -> str:
    plain = plain_texts(texts_of(("ticket", "u", AS_OF, text, None)))
    model = base_model(plain["language"][0])
    label: str = with_sentiment(plain, model, model)["label"][0]
    return label


@pytest.mark.parametrize(("language", "least"), [("en", 0.75), ("zh", 0.8)])
def test_held_out_sentences_are_judged_better_than_by_the_majority(language, least):
    rows = plain_texts(pl.read_csv(LABELLED).filter(language=language))
    assert (rows["language"] == language).all()
    assert rows["label"].value_counts()["count"].min() >= 30
    found = base_model(language).probabilities(rows["plain"].to_list())
    predicted = pl.Series([LABELS[k] for k in found.argmax(axis=1)])
    own = pl.Series(range(rows.height))
    value, low, high = agreement(rows["label"], predicted, own)["macro_f1"]
    majority = agreement(rows["label"], pl.Series(["positive"] * rows.height), own)["macro_f1"]
    assert value >= least
    assert low < value < high
    assert low > majority[2]


def test_the_labelled_sentences_are_not_learnt_from():
    tested = set(plain_texts(pl.read_csv(LABELLED))["plain"])
    for language in ("en", "zh"):
        assert not tested & set(plain_texts(base_corpus(language))["plain"])


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Good quality.", "positive"),
        ("Not good quality.", "negative"),
        ("It broke.", "negative"),
        ("It didn't break.", "positive"),
        ("I am happy with this.", "positive"),
        ("I am not happy with this.", "negative"),
        ("No problems.", "positive"),
        ("质量好。", "positive"),
        ("质量不好。", "negative"),
        ("满意", "positive"),
        ("不满意", "negative"),
        ("没有问题，很好", "positive"),
        ("👍", "positive"),
    ],
)
def test_negation_turns_an_opinion(text, label):
    if text == "👍":
        assert base_model("en").probabilities([text]).argmax() == LABELS.index(label)
    else:
        assert label_of(text) == label


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The bag is nice", "en"),
        ("这个包很好看", "zh"),
        ("这个 iPhone 手机壳很好", "zh"),
        ("これはとても良いです", "other"),
        ("Der Stoff ist sehr schön und nicht teuer", "other"),
        ("Отличный товар", "other"),
        ("مرحبا", "other"),
        ("👍 5", "none"),
        ("", "none"),
    ],
)
def test_languages_are_told_apart(text, language):
    assert plain_texts(texts_of(("review", "u", AS_OF, text, None)))["language"][0] == language


def test_texts_are_made_plain():
    rows = plain_texts(
        texts_of(
            ("review", "u", AS_OF, "<p>Good&nbsp;&amp; <b>cheap</b></p><script>alert(1)</script>", None),
            ("review", "u", AS_OF, "\u200fnice\u202e \u0000bag\ufeff", None),
            ("review", "u", AS_OF, "very good " * 5000, None),
        )
    )
    assert rows["plain"].to_list()[:2] == ["good & cheap", "nice bag"]
    assert len(rows["plain"][2]) == LONGEST
    assert rows["is_cut"].to_list() == [False, False, True]


@given(st.lists(st.text(max_size=60), min_size=1, max_size=8))
@example_settings(max_examples=40)
def test_any_text_is_judged_without_error_and_within_bounds(texts):
    rows = plain_texts(texts_of(*(("review", "u", AS_OF - timedelta(days=1), text, 3.0) for text in texts)))
    found = judge(rows, AS_OF, 84, NOTHING_KNOWN, pl.Series([], dtype=pl.String), None, lambda *_: None).sentiments
    assert found.height == len(texts)
    assert found["sentiment"].drop_nulls().is_between(-1, 1).all()
    assert found.filter(pl.col("sentiment").is_null() != pl.col("label").is_null()).is_empty()


def test_a_shop_teaches_its_own_words():
    rated = plain_texts(
        texts_of(
            *(("review", f"u{k}", AS_OF, f"It is zorbly, item {k}", 5.0) for k in range(40)),
            *(("review", f"v{k}", AS_OF, f"It is grumpish, item {k}", 1.0) for k in range(40)),
        )
    )
    asked = ["so zorbly", "so grumpish"]
    assert shop_model("en", rated.head(20)) is base_model("en")
    known = shop_model("en", rated).probabilities(asked)
    assert [LABELS[k] for k in known.argmax(axis=1)] == ["positive", "negative"]
    assert np.array_equal(known, shop_model("en", rated).probabilities(asked))


def themed(seed: int, days: int = 30) -> pl.DataFrame:
    draw = random.Random(seed)
    rows = []
    for k in range(240):
        theme = list(THEMES)[k % len(THEMES)]
        text = " ".join(draw.sample(THEMES[theme].split(), 5))
        rows.append(("ticket", f"u{k}", AS_OF - timedelta(days=1 + k % days), text, None))
    return plain_texts(texts_of(*rows))


def test_topics_are_found_and_keep_their_ids():
    rows = themed(0)
    first = fit_topics("en", rows["plain"].to_list(), NOTHING_KNOWN.drop("language"), 3)
    assert first is not None
    found = first.of(rows["plain"].to_list())
    by_theme = [{found[k] for k in range(240) if k % 3 == theme} for theme in range(3)]
    assert [len(ids) for ids in by_theme] == [1, 1, 1]
    assert len(set.union(*by_theme)) == 3
    known = pl.DataFrame(
        {"as_of_date": [AS_OF] * 3, "topic_id": [70, 80, 90], "words": [", ".join(words) for words in first.words]}
    )
    again = fit_topics("en", themed(1)["plain"].to_list(), known, 3)
    assert again is not None
    assert sorted(again.ids) == [70, 80, 90]
    before = dict(zip([70, 80, 90], first.words, strict=True))
    for topic, words in zip(again.ids, again.words, strict=True):
        assert len(set(words) & set(before[topic])) >= 6
    assert fit_topics("en", rows["plain"].to_list()[:10], NOTHING_KNOWN.drop("language")) is None


def test_agreement_is_that_of_the_confusion_matrix():
    truth = pl.Series(["positive"] * 6 + ["negative"] * 4)
    predicted = pl.Series(["positive"] * 5 + ["negative"] * 5)
    scores = (np.arange(10.0)[::-1], np.array([5.0] * 6 + [1.0] * 4))
    found = agreement(truth, predicted, pl.Series(range(10)), scores)
    assert found["accuracy"][0] == pytest.approx(0.9)
    assert found["macro_f1"][0] == pytest.approx((10 / 11 + 8 / 9) / 2)
    assert found["rank_correlation"][0] == pytest.approx(0.853, abs=1e-3)


def test_features_know_nothing_of_later_texts():
    start = AS_OF - timedelta(days=10)
    rows = texts_of(
        ("review", "u", start - timedelta(days=90), "I love it, excellent", 5.0),
        ("review", "u", start, "Terrible, it broke", 1.0),
        ("ticket", "u", start + timedelta(days=1), "Very bad, I am angry", None),
        ("review", "v", start, "Very good and beautiful", 5.0),
        ("ticket", "w", AS_OF, "Later, terrible", None),
    )
    found = text_features(rows, AS_OF)
    assert_frame_equal(found, text_features(rows.head(4), AS_OF))
    values = {(row["user_id"], row["feature"]): row["value"] for row in found.to_dicts()}
    assert values["u", "text_sentiment_trend_84d"] < -1
    assert values["u", "negative_tickets_84d"] == values["u", "negative_reviews_84d"] == 1
    assert values["u", "text_sentiment_min_84d"] <= values["u", "text_sentiment_mean_84d"] < 0
    assert values["v", "text_sentiment_last_84d"] > 0.5
    assert ("v", "text_sentiment_trend_84d") not in values
    assert "w" not in found["user_id"]


@pytest.fixture(scope="module")
def shop(sample: Path) -> Iterator[Path]:
    with warehouse_at(sample):
        yield sample


def test_a_run_writes_its_tables_once_and_an_older_date_sees_nothing_newer(shop):
    dates = query(shop, "select as_of_date from marts.as_of_dates order by 1")["as_of_date"].to_list()
    earlier, last = dates[-2], dates[-1]
    result = lcm(shop, "words")
    texts = query(shop, "select * from ml.text_sentiments order by text_id")
    assert result["judged"] == texts.height == result["texts"] > 0
    assert set(texts["as_of_date"]) == {last}
    assert (texts["written_date"] < last).all()
    assert query(shop, "select sum(n_texts) from serving.text_topics_latest").item() > 0
    assert query(shop, "select count(*) from serving.product_sentiments_latest").item() == result["products"] > 0
    metrics = {(row["language"], row["model_name"], row["metric"]): row for row in result["metrics"]}
    assert metrics["en", "base", "macro_f1"]["ci_low"] > metrics["en", "majority", "macro_f1"]["value"]

    lcm(shop, "words")
    again = query(shop, "select * exclude (run_id) from ml.text_sentiments order by text_id")
    assert_frame_equal(again, texts.drop("run_id"), abs_tol=1e-9)

    # Ratings that come later must not change what an earlier date says.
    lcm(shop, "words", "--as-of", str(earlier))
    then = query(shop, f"select * exclude (run_id) from ml.text_sentiments where as_of_date = '{earlier}' order by all")
    assert (then["written_date"] < earlier).all()
    change(
        shop, f"create or replace table words_copy as select * from marts.user_texts where written_date < '{earlier}'"
    )
    change(
        shop,
        "drop view marts.user_texts",
        "create view marts.user_texts as select * from words_copy",
        "delete from ml.text_sentiments",
        f"delete from ml.text_topics where as_of_date > '{earlier}'",
    )
    lcm(shop, "words", "--as-of", str(earlier), "--again")
    cut = query(shop, f"select * exclude (run_id) from ml.text_sentiments where as_of_date = '{earlier}' order by all")
    assert_frame_equal(cut.drop("topic_id"), then.drop("topic_id"), abs_tol=1e-9)

    change(shop, "create or replace view marts.user_texts as select * from words_copy where false")
    nothing = lcm(shop, "words")
    assert nothing["texts"] == 0
    assert "no texts" in nothing["notes"][0]
    assert query(shop, f"select count(*) from ml.text_topics where as_of_date = '{last}'").item() == 0
