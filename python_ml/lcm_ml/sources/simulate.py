"""A simulated shop whose truth is known: raw tables as a shop would export them, and the truth beside them.

The purchase process is the BG/NBD model of Fader, Hardie & Lee (2005), "Counting Your Customers the Easy Way: An
Alternative to the Pareto/NBD Model", Marketing Science 24(2): a user purchases at the rate lambda ~ Gamma(r, alpha)
and drops out for good after each repeat purchase with the probability p ~ Beta(a, b). The preset `plain` is that and
nothing else; `shop` builds visits, campaigns, support and dirt around it; `types` is that shop with users of five
kinds. docs/simulator.md is the guide.

Inside, times are days since the start of the history, as floats; they become whole seconds when events are made.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from itertools import product as combinations
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

Array = npt.NDArray[Any]
Progress = Callable[[str, float], None]
FileFormat = Literal["parquet", "csv"]

SECONDS_PER_DAY = 86_400
LABEL_DAYS = 28
"""Horizon of the truth's churn label at the end of the history, in days."""
EFFECT_DAYS = 14.0
"""A campaign's extra purchases fall into this many days after the touch."""
CHUNK_USERS = 16_384
"""Users drawn at once. Each chunk has a random stream of its own, so this number is part of the truth: fixed."""
SLICE_ROWS = 1_000_000
"""Events that become text at once, which bounds the memory for what lies between."""


# ---------------------------------------------------------------------------------------------------------------------
# Presets
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PurchaseProcess:
    """BG/NBD parameters: rate ~ Gamma(r, alpha) per day, drop-out probability ~ Beta(a, b) per repeat purchase."""

    r: float
    alpha: float  # days
    a: float
    b: float


@dataclass(frozen=True)
class Archetype:
    """A kind of user. Each user's own values are drawn around these."""

    name: str
    share: float  # of the registered users
    gap_days: float  # mean days between purchases; 0: never purchases
    dropout: float  # mean drop-out probability per repeat purchase
    conversion: float  # mean share of visits that end in an order
    extra_lines: float  # mean lines per order beyond the first
    price_taste: float  # exponent: above 1 cheap products, below 1 dear ones
    discounted: float  # mean share of lines bought at a discount


@dataclass(frozen=True)
class Preset:
    """Everything that is drawn, as rates and shares. The defaults switch all but the purchases off."""

    purchases: PurchaseProcess
    default_dirty: float = 0.0
    weekly_habits: bool = False
    sign_up_skew: float = 1.0  # sign-ups at days * u ** skew: above 1, more of them early
    first_purchase_delay: float = 0.0  # mean days from sign-up
    prospect_share: float = 0.0
    bot_share: float = 0.0
    reseller_share: float = 0.0
    visitor_share: float = 0.0  # visitors who never sign up, per user
    known_later_share: float = 0.0  # users first seen as an anonymous visitor
    drift_share: float = 0.0  # users whose preferred category changes once
    extra_lines: float = 0.0  # mean lines per order beyond the first
    extra_units: float = 0.0  # share of lines with more than one unit
    local_currencies: bool = False  # else everybody pays in USD
    discounts: bool = False
    cart_share: float = 0.0  # order lines that were seen and put into the cart before
    extra_views: float = 0.0  # mean further views in the visit of an order
    burst_visits: float = 0.0  # mean visits without an order in the days before one
    browsing: float = 0.0  # scale of visits without an order
    trickle_share: float = 0.0  # dropped-out users who still look in now and then
    review_share: float = 0.0  # per order line
    refund_share: float = 0.0  # per order line
    ticket_share: float = 0.0  # per order
    campaign_every: int = 0  # days; 0: no campaigns
    prospect_days: float = 40.0  # mean days that somebody who never purchases keeps looking in
    archetypes: tuple[Archetype, ...] = ()  # none: users differ by degrees


PRESETS: dict[str, Preset] = {
    "plain": Preset(PurchaseProcess(r=0.8, alpha=16.0, a=0.8, b=3.2)),
    "shop": Preset(
        PurchaseProcess(r=1.3, alpha=20.0, a=0.7, b=8.0),
        default_dirty=0.01,
        weekly_habits=True,
        sign_up_skew=1.6,
        first_purchase_delay=6.0,
        prospect_share=0.15,
        bot_share=0.004,
        reseller_share=0.004,
        visitor_share=0.10,
        known_later_share=0.25,
        drift_share=0.15,
        extra_lines=0.4,
        extra_units=0.15,
        local_currencies=True,
        discounts=True,
        cart_share=0.75,
        extra_views=0.8,
        burst_visits=0.3,
        browsing=0.5,
        trickle_share=0.2,
        review_share=0.10,
        refund_share=0.04,
        ticket_share=0.06,
        campaign_every=28,
    ),
}
PRESETS["types"] = replace(
    PRESETS["shop"],
    prospect_share=0.0,
    visitor_share=0.05,
    browsing=1.0,
    prospect_days=200.0,
    archetypes=(
        Archetype("loyal", 0.20, 6, 0.01, 0.60, 1.0, 1.0, 0.10),
        Archetype("bargain_hunter", 0.25, 20, 0.03, 0.25, 0.3, 2.5, 0.80),
        Archetype("big_spender", 0.15, 40, 0.04, 0.50, 4.0, 0.4, 0.10),
        Archetype("window_shopper", 0.20, 0, 0.0, 0.05, 0.0, 1.0, 0.10),
        Archetype("one_time_buyer", 0.20, 700, 0.50, 0.10, 0.2, 1.0, 0.10),
    ),
)

AGE_BANDS = ("18-24", "25-34", "35-44", "45-54", "55-64", "65+")
AGE_EFFECT = np.array([0.5, 0.8, 1.0, 1.1, 1.3, 1.6])
"""What age_band multiplies the purchase rate by, where `sensitive_effect` is set."""


@dataclass(frozen=True)
class SimulationConfig:
    """What to simulate.

    Args:
        users: registered users, at least 1.
        days: days of history before `end_date`, at least 1.
        seed: same seed, same shop; 0 or more.
        preset: a name in PRESETS.
        end_date: first day after the history.
        dirty: share of dirty rows, 0 to 0.5, split evenly over the kinds in DIRT; null: the preset's own share.
        sensitive_effect: whether age_band influences the purchase rate (AGE_EFFECT). gender never does.

    Raises:
        ValueError: a value is out of range; the message names it.
    """

    users: int = 10_000
    days: int = 365
    seed: int = 0
    preset: str = "shop"
    end_date: date = date(2026, 1, 1)
    dirty: float | None = None
    sensitive_effect: bool = False

    def __post_init__(self) -> None:
        if self.users < 1:
            raise ValueError(f"users must be at least 1, not {self.users}")
        if not 1 <= self.days <= 36_500:
            raise ValueError(f"days must be between 1 and 36500, not {self.days}")
        if self.seed < 0:
            raise ValueError(f"seed must be 0 or more, not {self.seed}")
        if self.preset not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(sorted(PRESETS))}, not {self.preset!r}")
        if self.dirty is not None and not 0 <= self.dirty <= 0.5:
            raise ValueError(f"dirty must be between 0 and 0.5, not {self.dirty}")
        if self.start_date < date(1971, 1, 1) or self.end_date > date(2099, 1, 1):
            raise ValueError(f"the history must lie between 1971 and 2099, not {self.start_date} to {self.end_date}")

    @property
    def parameters(self) -> Preset:
        """The preset that `preset` names."""
        return PRESETS[self.preset]

    @property
    def start_date(self) -> date:
        """First day of the history."""
        return self.end_date - timedelta(days=self.days)

    @property
    def dirty_share(self) -> float:
        """`dirty`, or the preset's own share."""
        return self.parameters.default_dirty if self.dirty is None else self.dirty

    @property
    def start_second(self) -> int:
        """Start of the history, in seconds since 1970 UTC."""
        return int(datetime(self.start_date.year, self.start_date.month, self.start_date.day, tzinfo=UTC).timestamp())

    @property
    def end_second(self) -> int:
        """End of the history (exclusive), in seconds since 1970 UTC."""
        return self.start_second + self.days * SECONDS_PER_DAY


# ---------------------------------------------------------------------------------------------------------------------
# What comes out
# ---------------------------------------------------------------------------------------------------------------------

_TIME = pl.Datetime("us")
_MONEY = pl.Decimal(18, 4)

CONTRACT: dict[str, dict[str, pl.DataType | type[pl.DataType]]] = {
    "events": {
        **dict.fromkeys(("event_id", "user_id"), pl.String),
        "event_time": _TIME,
        **dict.fromkeys(("event_type", "session_id", "order_id", "product_id"), pl.String),
        "quantity": pl.Decimal(18, 3),
        "unit_price": _MONEY,
        "amount": _MONEY,
        "currency": pl.String,
        "discount": _MONEY,
        "rating": pl.Float64,
        **dict.fromkeys(("text", "channel", "device"), pl.String),
    },
    "users": {
        "user_id": pl.String,
        "signed_up_at": _TIME,
        "country": pl.String,
        "acquisition_channel": pl.String,
        "marketing_consent": pl.Boolean,
        **dict.fromkeys(("age_band", "gender", "income_band", "marital_status"), pl.String),
        **dict.fromkeys(("household_size", "home_ownership"), pl.String),
    },
    "products": {
        **dict.fromkeys(("product_id", "category", "department", "brand"), pl.String),
        "price": _MONEY,
        "title": pl.String,
    },
    "campaigns": {
        **dict.fromkeys(("campaign_id", "channel", "kind"), pl.String),
        "starts_at": _TIME,
        "ends_at": _TIME,
        "cost_per_contact": _MONEY,
    },
    "campaign_touches": {
        **dict.fromkeys(("campaign_id", "user_id"), pl.String),
        "touched_at": _TIME,
        "arm": pl.String,
        "responded_at": _TIME,
    },
    "support_tickets": {
        **dict.fromkeys(("ticket_id", "user_id"), pl.String),
        "created_at": _TIME,
        **dict.fromkeys(("text", "intent"), pl.String),
        "resolved_at": _TIME,
    },
    "kb_articles": dict.fromkeys(("article_id", "intent", "title", "body"), pl.String),
    "identities": {"anonymous_id": pl.String, "user_id": pl.String, "linked_at": _TIME},
    "currency_rates": {"currency": pl.String, "valid_from": pl.Date, "rate": pl.Decimal(18, 8)},
}
"""Columns and types of the raw contract, models/staging/_raw__sources.yml, without its lineage columns."""


@dataclass(frozen=True)
class Truth:
    """What the data files do not say.

    Attributes:
        users: one row per user: purchase_rate (per day), dropout_probability, stage, churn_probability ...
        touches: one row per campaign touch: treatment_effect (expected extra orders in EFFECT_DAYS) and extra_orders.
        tickets: one row per support ticket, with its intent.
        dirt_counts: one row per kind of dirt: its rows, whether they were added or changed, the rule they break.
        dirt_rows: one row per dirty row: event_id, kind.
        parameters: the configuration and the preset, as plain values.
    """

    users: pl.DataFrame
    touches: pl.DataFrame
    tickets: pl.DataFrame
    dirt_counts: pl.DataFrame
    dirt_rows: pl.DataFrame
    parameters: dict[str, Any]

    def frames(self) -> dict[str, pl.DataFrame]:
        """The truth's tables by the name of their file."""
        return {
            "truth_users": self.users,
            "truth_touches": self.touches,
            "truth_tickets": self.tickets,
            "dirt_counts": self.dirt_counts,
            "dirt_rows": self.dirt_rows,
        }


@dataclass(frozen=True)
class SimulatedShop:
    """The raw tables by name, in the contract's columns and types, and the truth behind them.

    Where rows are dirty, events.event_time is text: some of it is no time.
    """

    tables: dict[str, pl.DataFrame]
    truth: Truth

    @property
    def events(self) -> pl.DataFrame:
        """The events, sorted by time; dirty rows stand where their clean row would."""
        return self.tables["events"]

    def row_counts(self) -> dict[str, int]:
        """Rows per raw table."""
        return {name: table.height for name, table in self.tables.items()}


# ---------------------------------------------------------------------------------------------------------------------
# Vocabulary
# ---------------------------------------------------------------------------------------------------------------------

EVENT_TYPES = (
    *("view", "cart", "remove_from_cart", "purchase", "refund"),
    *("review", "share", "search", "wishlist", "support"),
)
VIEW, CART, REMOVE, PURCHASE, REFUND, REVIEW, SHARE, SEARCH, WISHLIST, SUPPORT = range(len(EVENT_TYPES))

USER_TYPES = ("regular", "prospect", "bot", "reseller", "visitor")
REGULAR, PROSPECT, BOT, RESELLER, VISITOR = range(len(USER_TYPES))

CHANNELS = ("web", "app")
DEVICES = ("desktop", "mobile", "tablet")
CURRENCIES = ("USD", "EUR", "GBP")
LIST_RATES = np.array([1.0, 1.08, 1.27])  # USD per unit, at which prices are set
COUNTRIES = ("US", "CN", "DE", "FR", "GB", "CA")
COUNTRY_SHARES = (0.40, 0.16, 0.14, 0.10, 0.14, 0.06)
COUNTRY_CURRENCY = np.array([0, 0, 1, 1, 2, 0])
CHINA = COUNTRIES.index("CN")
ACQUISITION = ("organic", "paid_search", "social", "referral", "affiliate")
PAID_SEARCH = ACQUISITION.index("paid_search")
GENDERS = ("female", "male", "other")
INCOME_BANDS = ("under 25k", "25-50k", "50-100k", "over 100k")
MARITAL_STATUSES = ("single", "married", "divorced")
HOUSEHOLD_SIZES = ("1", "2", "3", "4", "5+")
HOME_OWNERSHIPS = ("owner", "renter")
CAMPAIGN_KINDS = (
    ("discount", 1.0, "email", "0.05"),
    ("newsletter", 0.4, "push", "0.01"),
    ("winback", 0.7, "mail", "0.60"),
)

CATEGORIES = (
    ("Running Shoes", "跑鞋", "Sports"),
    ("Yoga", "瑜伽", "Sports"),
    ("Camping", "露营", "Sports"),
    ("Headphones", "耳机", "Electronics"),
    ("Phones", "手机", "Electronics"),
    ("Keyboards", "键盘", "Electronics"),
    ("Skin Care", "护肤", "Beauty"),
    ("Make-up", "彩妆", "Beauty"),
    ("Hair Care", "洗护", "Beauty"),
    ("Kitchen", "厨房", "Home"),
    ("Bedding", "床品", "Home"),
    ("Lighting", "灯具", "Home"),
)
BRANDS = ("Alder", "Borealis", "Cove", "Dune", "Ember")
PRODUCTS_PER_BRAND = 10
LANGUAGES = ("en", "zh")

REVIEW_PARTS = {
    "en": (
        ("Awful.", "Disappointing.", "It is okay.", "Good.", "Excellent!"),
        (
            ("Broke after two days.", "Nothing like the pictures.", "I want my money back."),
            ("The quality is poor for the price.", "The size runs small.", "It arrived late and scratched."),
            ("Does what it should, nothing more.", "Neither good nor bad.", "Fine for the price."),
            ("Works well, would buy again.", "Solid quality and quick delivery.", "My family likes it."),
            ("Better than I hoped.", "I use it every day and love it.", "Perfect, bought a second one."),
        ),
    ),
    "zh": (
        ("太差了。", "有点失望。", "一般般。", "不错。", "非常好！"),
        (
            ("用了两天就坏了。", "和图片完全不一样。", "我要退款。"),
            ("这个价格质量不行。", "尺码偏小。", "到货晚而且有划痕。"),
            ("能用，没什么特别。", "不好也不坏。", "对得起价格。"),
            ("很好用，会再买。", "质量好，送货快。", "家人都喜欢。"),
            ("比想象的还好。", "每天都用，很喜欢。", "完美，又买了一个。"),
        ),
    ),
}

TICKET_OPENINGS = {"en": ("Hello, ", "Hi team, ", "", "Good day. "), "zh": ("你好，", "客服您好，", "", "请问，")}
TICKET_CLOSINGS = {
    "en": (" Please help.", " Thanks!", "", " I have been waiting for days."),
    "zh": ("请帮忙处理。", "谢谢！", "", "已经等了好几天。"),
}
TICKET_BODIES = {
    "delivery": (
        ("my parcel has not arrived yet.", "where is my order?", "the tracking number does not work."),
        ("我的包裹还没有到。", "我的订单在哪里？", "物流单号查不到。"),
    ),
    "refund": (
        ("I sent the item back and got no money.", "I would like to return this.", "how long does a refund take?"),
        ("我退了货还没收到退款。", "我想退货。", "退款要多久？"),
    ),
    "payment": (
        ("I was charged twice.", "my card is declined at checkout.", "which ways to pay are there?"),
        ("我被重复扣款了。", "结账时银行卡被拒。", "支持哪些付款方式？"),
    ),
    "account": (
        ("I cannot log in.", "how do I change my address?", "please delete my account."),
        ("我无法登录。", "怎么修改收货地址？", "请注销我的账户。"),
    ),
    "product": (
        ("does this fit size 42?", "the item arrived broken.", "is there a warranty on this?"),
        ("这个有42码吗？", "商品到货时坏了。", "这个有保修吗？"),
    ),
}
INTENTS = tuple(TICKET_BODIES)
KB_ARTICLES = {
    "delivery": (
        (
            "Where is my parcel?",
            "Open Orders, choose the order and follow its tracking link. Parcels take 2 to 5 days.",
        ),
        ("我的包裹在哪里？", "打开“订单”，选择订单并点击物流链接。包裹需要2到5天送达。"),
    ),
    "refund": (
        ("Returns and refunds", "Send the item back within 30 days. The money is back 5 days after we have the item."),
        ("退货和退款", "请在30天内寄回商品。我们收到商品后5天内退款。"),
    ),
    "payment": (
        ("Payment problems", "We take cards and wallets. A double charge is returned by your bank within 3 days."),
        ("付款问题", "我们支持银行卡和电子钱包。重复扣款会在3天内由银行退回。"),
    ),
    "account": (
        ("Log in and change your data", "Use Forgot password to log in again. Address and account are under Settings."),
        ("登录和修改资料", "请用“忘记密码”重新登录。地址和账户在“设置”中。"),
    ),
    "product": (
        ("Sizes, damage and warranty", "Each product page has a size table. Everything has a warranty of two years."),
        ("尺码、破损和保修", "每个商品页都有尺码表。所有商品保修两年。"),
    ),
}


def _review_texts() -> list[str]:
    """Texts of reviews by (language, rating, opening, body), flattened."""
    return [
        (opening + (" " if language == "en" else "") + body).strip()
        for language in LANGUAGES
        for rating in range(5)
        for opening, body in combinations(("", REVIEW_PARTS[language][0][rating]), REVIEW_PARTS[language][1][rating])
    ]


def _search_texts() -> list[str]:
    """Texts of searches by (language, category, variant), flattened."""
    return [
        text
        for language in range(len(LANGUAGES))
        for names in CATEGORIES
        for text in (
            names[language].lower(),
            f"{BRANDS[0]} {names[language]}",
            f"{names[language]} {('sale', '优惠')[language]}",
        )
    ]


def _ticket_texts() -> list[str]:
    """Texts of tickets by (language, intent, variant), flattened."""
    return [
        opening + body + closing
        for number, language in enumerate(LANGUAGES)
        for intent in INTENTS
        for opening, body, closing in combinations(
            TICKET_OPENINGS[language], TICKET_BODIES[intent][number], TICKET_CLOSINGS[language]
        )
    ]


_REVIEWS, _SEARCHES, _TICKETS = _review_texts(), _search_texts(), _ticket_texts()
_TEXTS = pl.Series(_REVIEWS + _SEARCHES + _TICKETS)
_REVIEW_VARIANTS = len(_REVIEWS) // (len(LANGUAGES) * 5)
_SEARCH_VARIANTS = len(_SEARCHES) // (len(LANGUAGES) * len(CATEGORIES))
_TICKET_VARIANTS = len(_TICKETS) // (len(LANGUAGES) * len(INTENTS))


# ---------------------------------------------------------------------------------------------------------------------
# What all users share: products, campaigns, exchange rates, the rhythm of the week
# ---------------------------------------------------------------------------------------------------------------------


class _Catalogue(NamedTuple):
    products: pl.DataFrame
    product_at: Array  # (categories, brands, rank by price) -> row of products
    cents: Array  # price by row of products, in US cents


def _draw_catalogue(rng: np.random.Generator) -> _Catalogue:
    shape = (len(CATEGORIES), len(BRANDS), PRODUCTS_PER_BRAND)
    product_at = rng.permutation(np.prod(shape)).reshape(shape)
    level = np.exp(rng.normal(3.2, 0.6, (len(CATEGORIES), 1, 1)))
    cents = np.sort(np.round(100 * level * np.exp(rng.normal(0, 0.5, shape))), axis=2).clip(99).astype(np.int64)
    category, brand, rank = (axis.ravel() for axis in np.indices(shape))
    products = (
        pl.DataFrame({"row": product_at.ravel(), "cents": cents.ravel(), "category": category, "brand": brand})
        .with_columns(
            _text("row", "P", 5).alias("product_id"),
            pl.Series("category", [CATEGORIES[k][0] for k in category]),
            pl.Series("department", [CATEGORIES[k][2] for k in category]),
            pl.Series("brand", [BRANDS[k] for k in brand]),
            _money("cents").alias("price"),
            pl.Series(
                "title",
                [f"{BRANDS[b]} {CATEGORIES[c][0]} {n + 1}" for c, b, n in zip(category, brand, rank, strict=True)],
            ),
        )
        .sort("row")
    )
    return _Catalogue(_to_contract(products, "products"), product_at, products["cents"].to_numpy())


class _Campaigns(NamedTuple):
    table: pl.DataFrame
    starts: Array  # days
    lift: Array  # what the kind multiplies a user's effect by


CAMPAIGN_DAYS = 3


def _plan_campaigns(config: SimulationConfig) -> _Campaigns:
    """Campaigns at a fixed distance, all so early that their effect lies within the history."""
    every = config.parameters.campaign_every
    last = config.days - EFFECT_DAYS - CAMPAIGN_DAYS
    starts = np.arange(every / 2, last, every) if every else np.empty(0)
    kinds = [CAMPAIGN_KINDS[k % len(CAMPAIGN_KINDS)] for k in range(len(starts))]
    begin = datetime.combine(config.start_date, datetime.min.time())
    table = pl.DataFrame(
        {
            "campaign_id": [f"C{k + 1:03d}" for k in range(len(starts))],
            "channel": [kind[2] for kind in kinds],
            "kind": [kind[0] for kind in kinds],
            "starts_at": [begin + timedelta(days=float(day)) for day in starts],
            "ends_at": [begin + timedelta(days=float(day) + CAMPAIGN_DAYS) for day in starts],
            "cost_per_contact": [kind[3] for kind in kinds],
        }
    )
    return _Campaigns(_to_contract(table, "campaigns"), starts, np.array([kind[1] for kind in kinds]))


def _draw_rates(rng: np.random.Generator, config: SimulationConfig) -> pl.DataFrame:
    """One rate per month and currency, from the month before the history on."""
    if not config.parameters.local_currencies:
        return _to_contract(pl.DataFrame(), "currency_rates")
    first = (config.start_date.replace(day=1) - timedelta(days=1)).replace(day=1)
    months = pl.date_range(first, config.end_date, "1mo", eager=True)
    drift = np.exp(np.cumsum(rng.normal(0, 0.01, (len(months), 2)), axis=0))
    frames = [
        pl.DataFrame(
            {"currency": CURRENCIES[k + 1], "valid_from": months, "rate": np.round(LIST_RATES[k + 1] * drift[:, k], 6)}
        )
        for k in range(2)
    ]
    return _to_contract(pl.concat(frames), "currency_rates")


def _kb_articles(config: SimulationConfig) -> pl.DataFrame:
    if not config.parameters.ticket_share:
        return _to_contract(pl.DataFrame(), "kb_articles")
    rows = [
        {"article_id": f"KB-{intent}-{language}", "intent": intent, "title": title, "body": body}
        for intent, versions in KB_ARTICLES.items()
        for language, (title, body) in zip(LANGUAGES, versions, strict=True)
    ]
    return _to_contract(pl.DataFrame(rows), "kb_articles")


_WEEKDAY_WEIGHTS = np.array([1.0, 0.95, 0.95, 1.0, 1.1, 1.35, 1.4])
_HABIT_HOURS = ((12, 3.0), (20, 2.5), (22, 2.0), (16, 5.0))  # peak hour and spread of each habit
_GRID = 2017


class _Week:
    """Turns steady time into the shop's time, where some hours of the week are busier than others.

    It is a strictly increasing map of each week onto itself (weeks counted back from the end of the history), so the
    order of purchases and their number per week stay as the purchase process drew them.
    """

    def __init__(self, config: SimulationConfig) -> None:
        self._days = config.days
        self._flat = not config.parameters.weekly_habits
        hours = np.arange(24)
        distance = np.stack([(hours - peak + 12) % 24 - 12 for peak, _ in _HABIT_HOURS])
        spread = np.array([[spread] for _, spread in _HABIT_HOURS])
        by_hour = 0.03 + np.exp(-0.5 * (distance / spread) ** 2) / spread
        by_weekday = np.roll(_WEEKDAY_WEIGHTS, -config.end_date.weekday())
        weights = (by_weekday[None, :, None] * by_hour[:, None, :]).reshape(len(_HABIT_HOURS), -1)
        share = np.concatenate([np.zeros((len(weights), 1)), weights.cumsum(axis=1)], axis=1)
        share /= share[:, -1:]
        grid = np.linspace(0, 1, _GRID)
        self._inverse = np.stack([np.interp(grid, row, np.linspace(0, 1, row.size)) for row in share])

    def real(self, steady: Array, habit: Array) -> Array:
        """Steady times (days) as the shop's times, for users with these habits (codes). Same shape."""
        if self._flat:
            return steady
        begin = self._days + 7 * np.floor((steady - self._days) / 7)
        position = (steady - begin) / 7 * (_GRID - 1)
        left = position.astype(np.int64).clip(0, _GRID - 2)
        low = self._inverse[habit, left]
        warped = begin + 7 * (low + (position - left) * (self._inverse[habit, left + 1] - low))
        # The first week may be cut by the start of the history; there time stays as it is.
        return np.where(begin >= 0, warped, steady)


# ---------------------------------------------------------------------------------------------------------------------
# People and the purchase process
# ---------------------------------------------------------------------------------------------------------------------


class RepeatPurchases(NamedTuple):
    """Repeat purchases of n users: `owner` and `time` have one entry per purchase, ordered; the rest one per user."""

    owner: Array
    time: Array  # since the first purchase, within (0, exposure)
    died: Array  # dropped out within the exposure, at the last purchase
    death: Array  # when the user drops out, within the exposure or after it
    next_gap: Array  # from the end of the exposure to the next purchase; infinite for who died


def draw_repeat_purchases(rng: np.random.Generator, rate: Array, dropout: Array, exposure: Array) -> RepeatPurchases:
    """Draw BG/NBD repeat purchases exactly, without a loop.

    A user who never dropped out would purchase Poisson(rate * exposure) times, and drops out with repeat purchase
    number Geometric(dropout). Given their count, the times of a Poisson process are ordered uniforms, which are
    sums of exponentials over their total (Devroye 1986, Non-Uniform Random Variate Generation, V.3): only the
    purchases that happen are drawn, the gaps after them enter as one Gamma.

    Args:
        rng: the random stream.
        rate: purchases per unit of time and user, > 0, shape (n,).
        dropout: drop-out probability after each repeat purchase, in (0, 1], shape (n,).
        exposure: time from the first purchase to the end of the observation, > 0, shape (n,).
    """
    would_be = rng.poisson(rate * exposure)
    until_dropout = rng.geometric(np.maximum(dropout, 1e-9))
    died = until_dropout <= would_be
    count = np.minimum(until_dropout, would_be)
    owner = np.repeat(np.arange(len(rate)), count)
    total = np.cumsum(rng.standard_exponential(len(owner)))
    before = np.concatenate([[0.0], total])[np.cumsum(count) - count]
    through = np.concatenate([[0.0], total])[np.cumsum(count)] - before
    everything = through + rng.standard_gamma(would_be + 1 - count)
    time = (exposure / everything)[owner] * (total - before[owner])
    next_gap = np.where(died, np.inf, rng.standard_exponential(len(rate)) / rate)
    left = np.maximum(until_dropout - would_be - 1, 0)
    later = exposure + next_gap + rng.standard_gamma(left) / rate
    return RepeatPurchases(owner, time, died, np.where(died, exposure * through / everything, later), next_gap)


@dataclass(frozen=True)
class _People:
    """One entry per person of a chunk: its users, then visitors who never sign up. Times in days, steady."""

    person: Array  # number over all chunks; visitors come after all users
    kind: Array
    start: Array
    country: Array
    currency: Array
    acquisition: Array
    consent: Array
    age: Array
    gender: Array
    rate: Array
    dropout: Array
    habit: Array
    device: Array
    uses_app: Array
    category: Array
    second_category: Array
    drift_category: Array
    drift_at: Array  # infinite: never
    brand: Array
    price_taste: Array  # exponent: above 1 cheap products, below 1 dear ones
    deal_seeker: Array
    discounted: Array  # share of lines bought at a discount, where the shop gives any
    basket: Array  # mean extra lines
    conversion: Array  # share of visits that end in an order
    known_later: Array
    effect: Array  # extra orders that a full-strength touch brings, in expectation
    archetype: Array  # code of the preset's archetypes; -1: none

    def __len__(self) -> int:
        return len(self.person)


def _draw_people(rng: np.random.Generator, config: SimulationConfig, first: int, last: int) -> _People:
    preset = config.parameters
    visitors = np.arange(int(preset.visitor_share * first), int(preset.visitor_share * last))
    person = np.concatenate([np.arange(first, last), config.users + visitors])
    n = len(person)
    rare = (preset.prospect_share, preset.bot_share, preset.reseller_share)
    kind = rng.choice(4, n, p=[1 - sum(rare), *rare])
    kind[last - first :] = VISITOR
    age = rng.choice(len(AGE_BANDS), n, p=[0.14, 0.26, 0.22, 0.17, 0.12, 0.09])
    rate = rng.gamma(preset.purchases.r, 1 / preset.purchases.alpha, n)
    if config.sensitive_effect:
        rate *= AGE_EFFECT[age]
    country = rng.choice(len(COUNTRIES), n, p=COUNTRY_SHARES)
    acquisition = rng.choice(len(ACQUISITION), n, p=[0.4, 0.25, 0.2, 0.1, 0.05])
    deal_seeker = rng.random(n) < 0.3
    device = rng.choice(len(DEVICES), n, p=[0.4, 0.5, 0.1])
    uses_app = (device > 0) & (rng.random(n) < 0.55)
    drifts = rng.random(n) < preset.drift_share
    effect = 0.02 + 0.15 * deal_seeker + 0.06 * (acquisition == PAID_SEARCH) + 0.05 * uses_app + rng.normal(0, 0.02, n)
    people = _People(
        person=person,
        kind=kind,
        start=config.days * rng.random(n) ** preset.sign_up_skew,
        country=country,
        currency=COUNTRY_CURRENCY[country] * preset.local_currencies,
        acquisition=acquisition,
        consent=rng.random(n) < 0.75,
        age=age,
        gender=rng.choice(len(GENDERS), n, p=[0.5, 0.47, 0.03]),
        rate=np.maximum(rate, 1e-9),
        dropout=rng.beta(preset.purchases.a, preset.purchases.b, n),
        habit=rng.integers(len(_HABIT_HOURS), size=n),
        device=device,
        uses_app=uses_app,
        category=_popular_category(rng, n),
        second_category=_popular_category(rng, n),
        drift_category=rng.integers(len(CATEGORIES), size=n),
        drift_at=np.where(drifts, config.days * rng.random(n), np.inf),
        brand=rng.integers(len(BRANDS), size=n),
        price_taste=rng.choice([2.5, 1.0, 0.4], n, p=[0.35, 0.5, 0.15]),
        deal_seeker=deal_seeker,
        discounted=np.where(deal_seeker, 0.5, 0.1),
        basket=preset.extra_lines * rng.gamma(2, 0.5, n),
        conversion=rng.beta(4, 4, n),
        known_later=rng.random(n) < preset.known_later_share,
        effect=effect.clip(0, 0.5),
        archetype=np.full(n, -1),
    )
    return _of_types(rng, preset.archetypes, people) if preset.archetypes else people


def _of_types(rng: np.random.Generator, archetypes: tuple[Archetype, ...], people: _People) -> _People:
    """The same people, but for what their archetype decides; bots, resellers and visitors have none."""
    n = len(people)
    regular = people.kind == REGULAR
    code = rng.choice(len(archetypes), n, p=[each.share for each in archetypes])

    def own(name: str) -> Array:
        return np.array([getattr(each, name) for each in archetypes], dtype=float)[code]

    buys = own("gap_days") > 0
    # Each user's own rate and basket vary by a third around the mean; shares, as 12 trials would tell them.
    rate = rng.gamma(9, 1 / 9, n) / np.maximum(own("gap_days"), 1.0)

    def around(mean: Array) -> Array:
        return rng.beta(12 * mean.clip(1e-6), 12 * (1 - mean))

    discounted = around(own("discounted"))
    drawn = {
        "rate": np.maximum(rate, 1e-9),
        "dropout": around(own("dropout")),
        "conversion": around(own("conversion")).clip(0.01),
        "basket": own("extra_lines") * rng.gamma(9, 1 / 9, n),
        "price_taste": own("price_taste"),
        "deal_seeker": discounted > 0.3,
        "discounted": discounted,
        "kind": np.where(buys, REGULAR, PROSPECT),
        "archetype": code,
    }
    return replace(people, **{name: np.where(regular, new, getattr(people, name)) for name, new in drawn.items()})


def _popular_category(rng: np.random.Generator, n: int) -> Array:
    """Codes of categories; the first are the most popular."""
    return (len(CATEGORIES) * rng.random(n) ** 1.6).astype(np.int64)


class _Skeleton(NamedTuple):
    """The purchase process of a chunk, in the shop's time (days). Orders are sorted by owner and time."""

    order_owner: Array
    order_time: Array
    signed_up: Array  # per person, as all below
    first_purchase: Array  # infinite: none in the history
    died: Array
    death: Array  # when behaviour ends, in the history or after it
    next_gap: Array


def _draw_skeleton(rng: np.random.Generator, config: SimulationConfig, people: _People, week: _Week) -> _Skeleton:
    n = len(people)
    delay = config.parameters.first_purchase_delay * rng.standard_exponential(n)
    first = people.start + delay
    buys = np.isin(people.kind, (REGULAR, RESELLER)) & (first < config.days)
    buyer = np.flatnonzero(buys)
    repeat = draw_repeat_purchases(rng, people.rate[buyer], people.dropout[buyer], config.days - first[buyer])
    owner = np.concatenate([buyer, buyer[repeat.owner]])
    time = np.concatenate([first[buyer], first[buyer[repeat.owner]] + repeat.time])
    # Each user's first purchase is in front of the others already: a stable sort by owner is all it takes.
    order = np.argsort(owner, kind="stable")
    interest = {PROSPECT: config.parameters.prospect_days, VISITOR: 0.5}
    death = np.full(n, np.inf)
    for kind, mean in interest.items():
        of_kind = np.flatnonzero(people.kind == kind)
        death[of_kind] = people.start[of_kind] + mean * rng.standard_exponential(len(of_kind))
    death[buyer] = first[buyer] + repeat.death
    died, next_gap = np.zeros(n, bool), np.full(n, np.inf)
    died[buyer], next_gap[buyer] = repeat.died, repeat.next_gap
    finite = np.isfinite(death)
    death[finite] = week.real(death[finite], people.habit[finite])
    return _Skeleton(
        order_owner=owner[order],
        order_time=week.real(time[order], people.habit[owner[order]]),
        signed_up=week.real(people.start, people.habit),
        first_purchase=np.where(buys, week.real(first, people.habit), np.inf),
        died=died,
        death=death,
        next_gap=next_gap,
    )


# ---------------------------------------------------------------------------------------------------------------------
# Campaigns
# ---------------------------------------------------------------------------------------------------------------------


class _Touches(NamedTuple):
    frame: pl.DataFrame  # campaign, person, touched, treated, responded, effect, extra
    order_owner: Array
    order_time: Array


def _touch(
    rng: np.random.Generator, config: SimulationConfig, people: _People, skeleton: _Skeleton, campaigns: _Campaigns
) -> _Touches:
    """Touch half of those who may be contacted, with arms at random, and draw the orders that it brings.

    A treated user gets one extra order within EFFECT_DAYS with the probability `effect`; it is zero for who never
    purchased or has dropped out, and larger for who has not purchased for three weeks.
    """
    campaign, owner = np.nonzero(rng.random((len(campaigns.starts), len(people))) < 0.5)
    touched = campaigns.starts[campaign] + CAMPAIGN_DAYS * rng.random(len(owner))
    keep = (skeleton.signed_up[owner] < touched) & people.consent[owner] & (people.kind[owner] != VISITOR)
    campaign, owner, touched = campaign[keep], owner[keep], touched[keep]
    treated = rng.random(len(owner)) < 0.5
    customer = (skeleton.first_purchase[owner] < touched) & (skeleton.death[owner] > touched)
    lapsing = _days_since_order(skeleton, config.days, owner, touched) >= 21
    strength = people.effect[owner] * campaigns.lift[campaign] * (1 + 0.8 * lapsing)
    effect = np.where(customer, strength.clip(0, 0.9), 0.0)
    extra = treated & (rng.random(len(owner)) < effect)
    until = np.minimum(touched + EFFECT_DAYS, skeleton.death[owner])
    order_time = touched + (until - touched) * rng.random(len(owner))
    clicked = treated & customer & (rng.random(len(owner)) < 0.08)
    clicked_at = touched + 2 * rng.random(len(owner))
    responded = np.where(extra, order_time, np.where(clicked, clicked_at, np.nan))
    frame = pl.DataFrame(
        {
            "campaign": campaign.astype(np.int32),
            "person": people.person[owner].astype(np.int64),
            "touched": _seconds(config, touched),
            "treated": treated,
            "responded": pl.Series(_seconds(config, np.nan_to_num(responded))).set(
                pl.Series(np.isnan(responded)), None
            ),
            "effect": effect,
            "extra": extra.astype(np.int8),
        }
    )
    return _Touches(frame, owner[extra], order_time[extra])


def _days_since_order(skeleton: _Skeleton, days: int, owner: Array, time: Array) -> Array:
    """Days since each owner's last order of the skeleton before `time`; large where there is none."""
    # One sorted key for (owner, time): owners lie further apart than the history is long.
    width = 2.0 * days
    orders = skeleton.order_owner * width + skeleton.order_time
    position = np.searchsorted(orders, owner * width + time) - 1
    since = owner * width + time - np.append(orders, -np.inf)[position]
    return np.where(since < days, since, np.inf)


# ---------------------------------------------------------------------------------------------------------------------
# Events
# ---------------------------------------------------------------------------------------------------------------------

_COMPACT: dict[str, Any] = {
    "time": pl.Int64,
    "kind": pl.UInt8,
    "visit": pl.Int64,
    "order": pl.Int64,
    "product": pl.Int32,
    "quantity": pl.Int32,
    "price": pl.Int64,
    "amount": pl.Int64,
    "discount": pl.Int64,
    "rating": pl.UInt8,
    "text": pl.Int32,
}
"""Events while they are made: codes and cents instead of text, which takes a tenth of the memory."""


@dataclass
class _Visits:
    """Who made each visit; events name a visit by its number."""

    owners: list[Array] = field(default_factory=list)
    anonymous: list[Array] = field(default_factory=list)
    count: int = 0

    def add(self, owner: Array, anonymous: Array | None = None) -> Array:
        """Number one new visit per owner."""
        numbers = np.arange(self.count, self.count + len(owner))
        self.owners.append(owner)
        self.anonymous.append(np.zeros(len(owner), bool) if anonymous is None else anonymous)
        self.count += len(owner)
        return numbers


class _Lines(NamedTuple):
    """Order lines: one entry per line. Money in cents of the user's currency."""

    order: Array
    owner: Array
    time: Array  # seconds
    product: Array
    quantity: Array
    price: Array
    discount: Array

    @property
    def amount(self) -> Array:
        """What the user paid for each line, in cents."""
        return self.quantity * self.price - self.discount

    def take(self, rows: Array) -> "_Lines":
        """Some of the lines, by number or by mask."""
        return _Lines(*(column[rows] for column in self))


def _block(kind: int | Array, visit: Array, time: Array, **columns: Array) -> pl.DataFrame:
    """Events of one kind, with nulls in all columns not given."""
    data = {"time": time, "kind": np.broadcast_to(np.asarray(kind, np.uint8), time.shape), "visit": visit, **columns}
    frame = pl.DataFrame({name: pl.Series(values).cast(_COMPACT[name]) for name, values in data.items()})
    missing = [pl.lit(None, dtype).alias(name) for name, dtype in _COMPACT.items() if name not in data]
    return frame.with_columns(missing).select(_COMPACT.keys())


def _choose_products(
    rng: np.random.Generator, people: _People, catalogue: _Catalogue, owner: Array, days: Array
) -> Array:
    """A product per owner and time (days): preferred category, brand and price level, each most of the time."""
    n = len(owner)
    preferred = np.where(days >= people.drift_at[owner], people.drift_category[owner], people.category[owner])
    luck = rng.random(n)
    other = np.where(luck < 0.85, people.second_category[owner], _popular_category(rng, n))
    category = np.where(luck < 0.6, preferred, other)
    brand = np.where(rng.random(n) < 0.6, people.brand[owner], rng.integers(len(BRANDS), size=n))
    rank = (PRODUCTS_PER_BRAND * rng.random(n) ** people.price_taste[owner]).astype(np.int64)
    product: Array = catalogue.product_at[category, brand, rank.clip(0, PRODUCTS_PER_BRAND - 1)]
    return product


def _draw_lines(
    rng: np.random.Generator,
    config: SimulationConfig,
    people: _People,
    catalogue: _Catalogue,
    owner: Array,
    time: Array,
) -> _Lines:
    """The lines of orders with these owners and times (days); a product stands in an order once."""
    preset = config.parameters
    order = np.repeat(np.arange(len(owner)), 1 + np.minimum(rng.poisson(people.basket[owner]), 9))
    product = _choose_products(rng, people, catalogue, owner[order], time[order])
    _, kept = np.unique(order * catalogue.products.height + product, return_index=True)
    order, product = order[kept], product[kept]
    who = owner[order]
    n = len(order)
    quantity = 1 + (rng.random(n) < preset.extra_units) * rng.geometric(0.6, n)
    quantity = np.where(people.kind[who] == RESELLER, quantity * rng.integers(40, 150, n), quantity)
    price = np.round(catalogue.cents[product] / LIST_RATES[people.currency[who]]).astype(np.int64)
    discounted = preset.discounts & (rng.random(n) < people.discounted[who])
    percent = np.where(discounted, rng.choice([10, 15, 20, 30], n), 0)
    discount = quantity * price * percent // 100
    return _Lines(order, who, _seconds(config, time)[order], product, quantity, price, discount)


def _order_events(
    rng: np.random.Generator,
    config: SimulationConfig,
    people: _People,
    catalogue: _Catalogue,
    visits: _Visits,
    lines: _Lines,
) -> list[pl.DataFrame]:
    """Purchases, what led to each in the same visit, and nothing after them."""
    preset = config.parameters
    orders = int(lines.order[-1]) + 1 if len(lines.order) else 0
    owner_of, time_of = np.zeros(orders, np.int64), np.zeros(orders, np.int64)
    owner_of[lines.order], time_of[lines.order] = lines.owner, lines.time
    visit_of = visits.add(owner_of)
    visit = visit_of[lines.order]
    money = {"quantity": lines.quantity, "price": lines.price, "amount": lines.amount}
    bought = _block(
        PURCHASE, visit, lines.time, order=lines.order, product=lines.product, discount=lines.discount, **money
    )
    via_cart = rng.random(len(visit)) < preset.cart_share
    of_cart, cart_visit = lines.take(via_cart), visit[via_cart]
    place = _place_in_run(of_cart.order)
    carted = of_cart.time - 20 - 5 * place - rng.integers(0, 5, len(place))
    viewed = of_cart.time - 80 - 15 * place - rng.integers(0, 15, len(place))
    further = np.repeat(np.arange(orders), rng.poisson(preset.extra_views, orders))
    looked = time_of[further] - 300 - 20 * _place_in_run(further) - rng.integers(0, 20, len(further))
    looked_at = _choose_products(rng, people, catalogue, owner_of[further], _days(config, looked))
    return [
        bought,
        _block(CART, cart_visit, carted, product=of_cart.product, quantity=of_cart.quantity, price=of_cart.price),
        _block(VIEW, cart_visit, viewed, product=of_cart.product),
        _block(VIEW, visit_of[further], looked, product=looked_at),
    ]


def _place_in_run(values: Array) -> Array:
    """0, 1, 2 ... within each run of equal values. Same shape."""
    if not len(values):
        return np.empty(0, np.int64)
    starts = np.flatnonzero(np.append(True, values[1:] != values[:-1]))
    lengths = np.diff(np.append(starts, len(values)))
    return np.arange(len(values)) - np.repeat(starts, lengths)


def _line_followups(
    rng: np.random.Generator,
    config: SimulationConfig,
    people: _People,
    skeleton: _Skeleton,
    visits: _Visits,
    lines: _Lines,
) -> list[pl.DataFrame]:
    """Reviews and refunds of order lines, some days later, by users who are still there."""
    preset = config.parameters
    end = _seconds(config, np.minimum(skeleton.death, config.days))

    def later(share: float, least: float, most: float) -> tuple[_Lines, Array]:
        some = lines.take(rng.random(len(lines.order)) < share)
        time = some.time + (SECONDS_PER_DAY * rng.uniform(least, most, len(some.order))).astype(np.int64)
        in_time = time < end[some.owner]
        return some.take(in_time), time[in_time]

    reviewed, time = later(preset.review_share, 3, 20)
    unhappy = _nearing(config, skeleton, reviewed.owner, time)
    rating = np.round(rng.normal(4.3, 0.9, len(time)) - 1.5 * unhappy).clip(1, 5).astype(np.int64)
    language = (people.country[reviewed.owner] == CHINA).astype(np.int64)
    variant = rng.integers(_REVIEW_VARIANTS, size=len(time))
    text = (language * 5 + rating - 1) * _REVIEW_VARIANTS + variant
    reviews = _block(REVIEW, visits.add(reviewed.owner), time, product=reviewed.product, rating=rating, text=text)

    back, time = later(preset.refund_share, 2, 14)
    # Half of the shops' systems say refund, half a purchase of minus so many.
    kind = np.where(rng.random(len(time)) < 0.5, REFUND, PURCHASE)
    money = {"quantity": -back.quantity, "price": back.price, "amount": -back.amount}
    refunds = _block(kind, visits.add(back.owner), time, order=back.order, product=back.product, **money)
    return [reviews, refunds]


def _nearing(config: SimulationConfig, skeleton: _Skeleton, owner: Array, time: Array) -> Array:
    """How near the end of its behaviour each owner is at `time` (seconds): 0 for two months or more, up to 1."""
    return (1 - (skeleton.death[owner] - _days(config, time)) / 60).clip(0, 1)


def _browse_starts(
    rng: np.random.Generator, config: SimulationConfig, people: _People, skeleton: _Skeleton, week: _Week
) -> tuple[Array, Array]:
    """Owners and times (days) of visits without an order: steady ones, and bursts before orders."""
    preset = config.parameters
    rate = people.rate * (1 - people.conversion) / people.conversion
    rate = np.where(people.kind == PROSPECT, 0.12, np.where(people.kind == BOT, 0.15, rate.clip(0.01, 0.4)))
    until = np.minimum(skeleton.death, config.days)
    count = rng.poisson(preset.browsing * rate * np.maximum(until - skeleton.signed_up, 0))
    count += (people.kind == VISITOR) + 15 * (people.kind == BOT)
    steady_owner = np.repeat(np.arange(len(people)), count)
    span = (until - people.start).clip(0)
    steady = people.start[steady_owner] + span[steady_owner] * rng.random(len(steady_owner))
    burst = np.repeat(np.arange(len(skeleton.order_owner)), rng.poisson(preset.burst_visits, len(skeleton.order_owner)))
    # Whole days earlier, give or take an hour: a habit keeps its hour.
    earlier = 1 + np.floor(rng.exponential(1.5, len(burst))) + rng.uniform(-1, 1, len(burst)) / 24
    owner = np.concatenate([steady_owner, skeleton.order_owner[burst]])
    time = np.concatenate([week.real(steady, people.habit[steady_owner]), skeleton.order_time[burst] - earlier])
    # Engaged users come less often as their end nears, which is what behaviour features can see.
    nearing = (1 - (skeleton.death[owner] - time) / 75).clip(0, 1)
    fades = np.isin(people.kind[owner], (REGULAR, RESELLER)) & (rng.random(len(owner)) < 0.85 * nearing)
    keep = ~fades & (time >= skeleton.signed_up[owner]) & (time < until[owner])
    return owner[keep], time[keep]


def _browsing(
    rng: np.random.Generator,
    config: SimulationConfig,
    people: _People,
    skeleton: _Skeleton,
    week: _Week,
    catalogue: _Catalogue,
    visits: _Visits,
) -> list[pl.DataFrame]:
    """Visits without an order: views, and in some a search, a wishlist entry, a share, a cart left behind."""
    owner, time = _browse_starts(rng, config, people, skeleton, week)
    early = np.flatnonzero(people.known_later & (people.kind != BOT))
    early = np.repeat(early, 1 + rng.poisson(1.0, len(early)))
    owner = np.concatenate([owner, early])
    time = np.concatenate([time, skeleton.signed_up[early] - 14 * rng.random(len(early))])
    anonymous = (np.arange(len(owner)) >= len(owner) - len(early)) | (people.kind[owner] == VISITOR)
    visit = visits.add(owner, anonymous)
    start = _seconds(config, time)
    is_bot = people.kind[owner] == BOT
    count = 1 + rng.poisson(np.where(is_bot, 45, 1.6))
    block, viewed = _views(rng, config, people, catalogue, owner, visit, start, count)
    first = viewed[np.cumsum(count) - count]
    blocks = [block]

    def some(kind: int, share: float, after: int, among: Array, **columns: Array) -> Array:
        chosen = among & (rng.random(len(owner)) < share)
        at = start + after + rng.integers(0, 60, len(owner))
        given = {name: values[chosen] for name, values in columns.items()}
        blocks.append(_block(kind, visit[chosen], at[chosen], **given))
        return chosen

    price = np.round(catalogue.cents[first] / LIST_RATES[people.currency[owner]]).astype(np.int64)
    language = people.country[owner] == CHINA
    words = (language * len(CATEGORIES) + people.category[owner]) * _SEARCH_VARIANTS
    words = len(_REVIEWS) + words + rng.integers(_SEARCH_VARIANTS, size=len(owner))
    alive = ~is_bot & (time < skeleton.death[owner] - 0.05)  # so that nothing but views comes after a drop-out
    some(SEARCH, 0.25, -65, alive, text=words)
    some(WISHLIST, 0.08, 1200, alive, product=first)
    some(SHARE, 0.03, 1300, alive, product=first)
    carts = some(CART, 0.15, 1400, alive, product=first, quantity=np.ones(len(owner), np.int64), price=price)
    some(REMOVE, 0.4, 1500, carts, product=first)
    return blocks


def _views(
    rng: np.random.Generator,
    config: SimulationConfig,
    people: _People,
    catalogue: _Catalogue,
    owner: Array,
    visit: Array,
    start: Array,
    count: Array,
) -> tuple[pl.DataFrame, Array]:
    """`count` views in each visit, one after the other; the events and the product of each."""
    run = np.repeat(np.arange(len(visit)), count)
    time = start[run] + 20 * _place_in_run(run) + rng.integers(0, 20, len(run))
    product = _choose_products(rng, people, catalogue, owner[run], _days(config, time))
    return _block(VIEW, visit[run], time, product=product), product


def _trickle(
    rng: np.random.Generator,
    config: SimulationConfig,
    people: _People,
    skeleton: _Skeleton,
    catalogue: _Catalogue,
    visits: _Visits,
) -> list[pl.DataFrame]:
    """The few views of some who have dropped out."""
    lookers = np.flatnonzero(skeleton.died & (rng.random(len(people)) < config.parameters.trickle_share))
    left = config.days - skeleton.death[lookers]
    owner = np.repeat(lookers, rng.poisson(0.02 * left))
    time = skeleton.death[owner] + (config.days - skeleton.death[owner]) * rng.random(len(owner))
    count = 1 + rng.poisson(0.6, len(owner))
    return [_views(rng, config, people, catalogue, owner, visits.add(owner), _seconds(config, time), count)[0]]


def _support(
    rng: np.random.Generator,
    config: SimulationConfig,
    people: _People,
    skeleton: _Skeleton,
    visits: _Visits,
    orders: tuple[Array, Array],
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Support events some days after orders, more of them as a user's end nears, and the tickets (compact)."""
    owner, time = orders
    nearing = _nearing(config, skeleton, owner, _seconds(config, time))
    asks = rng.random(len(owner)) < config.parameters.ticket_share * (1 + 1.5 * nearing)
    owner, created = owner[asks], time[asks] + rng.uniform(0.1, 6, int(asks.sum()))
    in_time = created < np.minimum(skeleton.death, config.days)[owner]
    owner, created = owner[in_time], created[in_time]
    n = len(owner)
    intent = rng.choice(len(INTENTS), n, p=[0.35, 0.2, 0.15, 0.1, 0.2])
    language = people.country[owner] == CHINA
    text = (language * len(INTENTS) + intent) * _TICKET_VARIANTS + rng.integers(_TICKET_VARIANTS, size=n)
    resolved = created + rng.exponential(1.5, n)
    tickets = pl.DataFrame(
        {
            "person": people.person[owner].astype(np.int64),
            "created": _seconds(config, created),
            "resolved": _seconds(config, resolved),
            "intent": intent.astype(np.int32),
            "text": (len(_REVIEWS) + len(_SEARCHES) + text).astype(np.int32),
            "labelled": rng.random(n) < 0.7,
        }
    )
    return _block(SUPPORT, visits.add(owner), _seconds(config, created)), tickets


# ---------------------------------------------------------------------------------------------------------------------
# One chunk of users
# ---------------------------------------------------------------------------------------------------------------------


class _Chunk(NamedTuple):
    people: pl.DataFrame
    events: pl.DataFrame
    touches: pl.DataFrame
    tickets: pl.DataFrame
    identities: pl.DataFrame
    visits: int
    orders: int


class _Shop(NamedTuple):
    catalogue: _Catalogue
    campaigns: _Campaigns
    week: _Week


def _simulate_chunk(rng: np.random.Generator, config: SimulationConfig, shop: _Shop, first: int, last: int) -> _Chunk:
    """Users `first` to `last` (exclusive), and the visitors that come along with them."""
    people = _draw_people(rng, config, first, last)
    skeleton = _draw_skeleton(rng, config, people, shop.week)
    touches = _touch(rng, config, people, skeleton, shop.campaigns)
    orders = (
        np.concatenate([skeleton.order_owner, touches.order_owner]),
        np.concatenate([skeleton.order_time, touches.order_time]),
    )
    visits = _Visits()
    lines = _draw_lines(rng, config, people, shop.catalogue, *orders)
    support, tickets = _support(rng, config, people, skeleton, visits, orders)
    blocks = [
        *_order_events(rng, config, people, shop.catalogue, visits, lines),
        *_line_followups(rng, config, people, skeleton, visits, lines),
        *_browsing(rng, config, people, skeleton, shop.week, shop.catalogue, visits),
        *_trickle(rng, config, people, skeleton, shop.catalogue, visits),
        support,
    ]
    events = _with_visits(rng, pl.concat(blocks), people, visits)
    in_history = pl.col("time").is_between(config.start_second, config.end_second, closed="left")
    events = events.filter(in_history)
    anonymous = events.filter(pl.col("anonymous"))["person"].unique().sort()
    linked = anonymous.filter(anonymous < config.users).to_numpy()
    identities = pl.DataFrame(
        {"person": linked, "linked": _seconds(config, skeleton.signed_up[linked - first])},
        schema_overrides={"person": pl.Int64},
    )
    table = _people_table(rng, config, people, skeleton).head(last - first)
    return _Chunk(table, events, touches.frame, tickets, identities, visits.count, len(orders[0]))


def _with_visits(rng: np.random.Generator, events: pl.DataFrame, people: _People, visits: _Visits) -> pl.DataFrame:
    """Events with who made them, from where, and in which currency."""
    owner = np.concatenate(visits.owners)
    # One visit in six is not on the user's usual device.
    usual = rng.random(len(owner)) < 5 / 6
    device = np.where(usual, people.device[owner], rng.integers(len(DEVICES), size=len(owner)))
    visit = events["visit"].to_numpy()
    who = owner[visit]
    return events.with_columns(
        pl.Series("person", people.person[who].astype(np.int64)),
        pl.Series("anonymous", np.concatenate(visits.anonymous)[visit]),
        pl.Series("channel", ((device > 0) & people.uses_app[owner]).astype(np.uint8)[visit]),
        pl.Series("device", device.astype(np.uint8)[visit]),
        pl.Series("currency", people.currency.astype(np.uint8)[who]),
    )


def _people_table(
    rng: np.random.Generator, config: SimulationConfig, people: _People, skeleton: _Skeleton
) -> pl.DataFrame:
    """Attributes and truth of the chunk's people, as codes (attributes) and values (truth)."""
    n = len(people)
    purchased = np.isfinite(skeleton.first_purchase)
    alive = purchased & ~skeleton.died
    drifted = people.drift_at < config.days
    stage = np.where(skeleton.died, "dead", np.where(alive, "alive", "prospect"))
    churn = np.where(skeleton.died, 1.0, np.exp(-LABEL_DAYS * people.rate))

    def where(mask: Array, values: Array) -> pl.Series:
        return pl.Series(values).set(pl.Series(~mask), None)

    purchases = np.bincount(skeleton.order_owner, minlength=n)
    return pl.DataFrame(
        {
            "person": people.person.astype(np.int64),
            "signed_up": _seconds(config, skeleton.signed_up),
            "country": people.country,
            "acquisition_channel": people.acquisition,
            "marketing_consent": people.consent,
            "age_band": people.age,
            "gender": people.gender,
            "income_band": rng.integers(len(INCOME_BANDS), size=n),
            "marital_status": rng.integers(len(MARITAL_STATUSES), size=n),
            "household_size": rng.integers(len(HOUSEHOLD_SIZES), size=n),
            "home_ownership": rng.integers(len(HOME_OWNERSHIPS), size=n),
            "user_type": np.array(USER_TYPES)[people.kind],
            "stage": stage,
            "is_bot": people.kind == BOT,
            "is_reseller": people.kind == RESELLER,
            "purchase_rate": people.rate,
            "dropout_probability": people.dropout,
            "first_purchase": where(purchased, _seconds(config, np.where(purchased, skeleton.first_purchase, 0))),
            "died": where(skeleton.died, _seconds(config, np.where(skeleton.died, skeleton.death, 0))),
            "purchases": purchases,
            "treatment_effect": np.where(alive, people.effect, 0.0),
            "preferred_category": people.category,
            "drift_category": where(drifted, people.drift_category),
            "drifted": where(drifted, _seconds(config, np.where(drifted, people.drift_at, 0))),
            "churn_probability": where(purchased, churn),
            "is_churned": where(purchased, skeleton.next_gap > LABEL_DAYS),
            "archetype": where(people.archetype >= 0, people.archetype),
        }
    )


# ---------------------------------------------------------------------------------------------------------------------
# Dirt
# ---------------------------------------------------------------------------------------------------------------------


class DirtKind(NamedTuple):
    """One way for a row to be dirty.

    `adds` rows are damaged copies beside their clean row, which stays: with them quarantined, nothing is missing.
    The others are damaged in place. `rule` is the quarantine rule they break under default settings, null for none.
    """

    name: str
    on: Literal["any", "view", "money"]
    adds: bool
    rule: str | None


DIRT = (
    DirtKind("negative_price", "money", True, "negative_price"),
    DirtKind("impossible_quantity", "money", True, "impossible_quantity"),
    DirtKind("unknown_currency", "money", True, "unknown_currency"),
    DirtKind("missing_amount_computable", "money", False, None),
    DirtKind("missing_amount", "money", False, None),
    DirtKind("unknown_product_id", "view", False, None),
    DirtKind("mixed_case_user_id", "view", False, None),
    DirtKind("padded_user_id", "any", False, None),
    DirtKind("duplicate_event_id", "any", True, "duplicate_event_id"),
    DirtKind("duplicate_content", "any", True, None),
    DirtKind("unreadable_event_time", "any", True, "unreadable_event_time"),
    DirtKind("event_time_in_past", "any", True, "event_time_before_floor"),
    DirtKind("event_time_in_future", "any", True, "event_time_in_future"),
    DirtKind("unknown_event_type", "any", True, "unknown_event_type"),
    DirtKind("missing_user_id", "any", True, "missing_user_id"),
)


def _choose_dirt(rng: np.random.Generator, events: pl.DataFrame, share: float) -> tuple[Array, Array]:
    """Which event each row of the file comes from, in order, and its kind of dirt (-1: clean).

    No event is used twice, so that a row has one defect. Where events run out, a kind has fewer rows.
    """
    n = events.height
    wanted = max(1, round(share * n / len(DIRT))) if share > 0 else 0
    is_view = (events["kind"] == VIEW).to_numpy()
    masks = {
        "any": np.ones(n, bool),
        # Where a file has no views, as in `plain`, their dirt falls on its purchases.
        "view": is_view if is_view.any() else np.ones(n, bool),
        # Refunds have no discount at all, so that this leaves purchases alone.
        "money": (events["discount"] == 0).fill_null(False).to_numpy(),
    }
    free = np.ones(n, bool)
    changed = np.full(n, -1)
    added_from, added_kind = [], []
    for number, kind in enumerate(DIRT):
        candidates = np.flatnonzero(free & masks[kind.on])
        chosen = rng.choice(candidates, min(wanted, len(candidates)), replace=False, shuffle=False)
        free[chosen] = False
        if kind.adds:
            added_from.append(chosen)
            added_kind.append(np.full(len(chosen), number))
        else:
            changed[chosen] = number
    source = np.concatenate([np.arange(n), *added_from])
    order = np.argsort(source, kind="stable")
    return source[order], np.concatenate([changed, *added_kind])[order]


def _event_numbers(source: Array, dirt: Array) -> Array:
    """The number in each row's event_id: its own place, but for an exact copy that of its original, just before it."""
    names = [kind.name for kind in DIRT]
    number: Array = np.arange(1, len(source) + 1) - (dirt == names.index("duplicate_event_id"))
    return number


_UNREADABLE_TIMES = ("31/31/2025", "yesterday", "2025-02-30 25:61:00", "n/a")


def _soil(events: pl.DataFrame) -> pl.DataFrame:
    """Damage finished events as their column `dirt` (a number in DIRT) says; event_time becomes text."""
    row = pl.int_range(pl.len())
    time = pl.col("event_time").dt.to_string("%Y-%m-%d %H:%M:%S")
    bad_time = pl.lit(pl.Series(_UNREADABLE_TIMES)).implode().list.get(row % len(_UNREADABLE_TIMES))
    damage: dict[str, dict[str, pl.Expr]] = {
        "event_time": {
            "unreadable_event_time": bad_time,
            "event_time_in_past": pl.lit("1970-01-01 00:00:00"),
            "event_time_in_future": pl.lit("2100-01-01 00:00:00"),
        },
        "event_type": {"unknown_event_type": pl.lit("teleport")},
        "user_id": {
            "missing_user_id": pl.lit(None, pl.String),
            "mixed_case_user_id": pl.col("user_id").str.to_lowercase(),
            "padded_user_id": pl.concat_str(pl.lit("  "), "user_id", pl.lit(" ")),
        },
        "unit_price": {"negative_price": -pl.col("unit_price"), "missing_amount": pl.lit(None, _MONEY)},
        "quantity": {"impossible_quantity": pl.lit(10**9).cast(pl.Decimal(18, 3))},
        "product_id": {"unknown_product_id": pl.lit("P99999X")},
        "currency": {"unknown_currency": pl.lit("XXX")},
        "amount": {
            "missing_amount": pl.lit(None, _MONEY),
            "missing_amount_computable": pl.lit(None, _MONEY),
        },
    }
    number = {kind.name: k for k, kind in enumerate(DIRT)}
    columns = []
    for column, cases in damage.items():
        value = time if column == "event_time" else pl.col(column)
        for name, damaged in cases.items():
            value = pl.when(pl.col("dirt") == number[name]).then(damaged).otherwise(value)
        columns.append(value.alias(column))
    return events.with_columns(columns)


def _dirt_counts(dirt: Array) -> pl.DataFrame:
    counts = np.bincount(dirt[dirt >= 0], minlength=len(DIRT))
    return pl.DataFrame(
        {
            "kind": [kind.name for kind in DIRT],
            "rows": counts,
            "is_added": [kind.adds for kind in DIRT],
            "rule": [kind.rule for kind in DIRT],
        },
        schema_overrides={"rows": pl.Int64, "rule": pl.String},
    )


# ---------------------------------------------------------------------------------------------------------------------
# From codes to the contract
# ---------------------------------------------------------------------------------------------------------------------


def _seconds(config: SimulationConfig, days: Array) -> Array:
    """Days since the start of the history as whole seconds since 1970."""
    seconds: Array = config.start_second + np.floor(days * SECONDS_PER_DAY).astype(np.int64)
    return seconds


def _days(config: SimulationConfig, seconds: Array) -> Array:
    return (seconds - config.start_second) / SECONDS_PER_DAY


def _text(column: str, prefix: str, digits: int) -> pl.Expr:
    return pl.concat_str(pl.lit(prefix), pl.col(column).cast(pl.String).str.zfill(digits))


def _scattered(column: str, prefix: str) -> pl.Expr:
    """Ids that say nothing about the order in which they were drawn: an odd multiplier permutes 0 .. 2^32 - 1."""
    return _text_of((pl.col(column) * 2_654_435_761) % 2**32, prefix)


def _text_of(number: pl.Expr, prefix: str) -> pl.Expr:
    return pl.concat_str(pl.lit(prefix), number.cast(pl.String).str.zfill(10))


def _moment(column: str) -> pl.Expr:
    return pl.from_epoch(column, time_unit="s").cast(_TIME)


def _money(column: str) -> pl.Expr:
    return (pl.col(column) / 100).cast(_MONEY)


def _label(column: str, labels: tuple[str, ...]) -> pl.Expr:
    return pl.lit(pl.Series(labels)).gather(pl.col(column)).alias(column)


def _user_id(config: SimulationConfig, column: str = "person") -> pl.Expr:
    return _text(column, "U", max(5, len(str(config.users)))).alias("user_id")


def _to_contract(frame: pl.DataFrame, table: str) -> pl.DataFrame:
    """The contract's columns in its order and types; those the frame lacks are null."""
    columns = CONTRACT[table]
    if not frame.columns:
        return pl.DataFrame(schema=columns)
    missing = [pl.lit(None, dtype).alias(name) for name, dtype in columns.items() if name not in frame.columns]
    return frame.with_columns(missing).select(pl.col(name).cast(dtype) for name, dtype in columns.items())


def _finish_events(config: SimulationConfig, events: pl.DataFrame, numbers: Array, dirt: Array) -> pl.DataFrame:
    """Clean events in the contract's columns and types, and `dirt` for the damage still to be done."""
    visitor = _scattered("person", "A")
    who = pl.when("anonymous").then(visitor).otherwise(_user_id(config))
    has_money = pl.col("amount").is_not_null() | pl.col("price").is_not_null()
    # A refund is booked by the shop, not in a visit.
    in_visit = pl.col("amount").is_null() | (pl.col("amount") >= 0)
    return events.with_columns(pl.Series("number", numbers), pl.Series("dirt", dirt)).select(
        "dirt",
        _text("number", "E", 10).alias("event_id"),
        who.alias("user_id"),
        _moment("time").alias("event_time"),
        _label("kind", EVENT_TYPES).alias("event_type"),
        pl.when(in_visit).then(_scattered("visit", "S")).alias("session_id"),
        _scattered("order", "O").alias("order_id"),
        _text("product", "P", 5).alias("product_id"),
        pl.col("quantity").cast(pl.Decimal(18, 3)),
        _money("price").alias("unit_price"),
        _money("amount"),
        pl.when(has_money).then(_label("currency", CURRENCIES)).alias("currency"),
        pl.when(pl.col("discount") > 0).then(_money("discount")).alias("discount"),
        pl.col("rating").cast(pl.Float64),
        pl.lit(_TEXTS).gather(pl.col("text")).alias("text"),
        _label("channel", CHANNELS),
        _label("device", DEVICES),
    )


def _finish_users(config: SimulationConfig, people: pl.DataFrame) -> pl.DataFrame:
    labels = {
        "country": COUNTRIES,
        "acquisition_channel": ACQUISITION,
        "age_band": AGE_BANDS,
        "gender": GENDERS,
        "income_band": INCOME_BANDS,
        "marital_status": MARITAL_STATUSES,
        "household_size": HOUSEHOLD_SIZES,
        "home_ownership": HOME_OWNERSHIPS,
    }
    named = people.with_columns(
        _user_id(config),
        _moment("signed_up").alias("signed_up_at"),
        *(_label(column, values) for column, values in labels.items()),
    )
    return _to_contract(named, "users")


def _finish_truth_users(config: SimulationConfig, people: pl.DataFrame) -> pl.DataFrame:
    names = tuple(names[0] for names in CATEGORIES)
    return people.select(
        _user_id(config),
        "user_type",
        "stage",
        "is_bot",
        "is_reseller",
        "purchase_rate",
        "dropout_probability",
        _moment("first_purchase").alias("first_purchase_at"),
        _moment("died").alias("died_at"),
        "purchases",
        "treatment_effect",
        _label("preferred_category", names),
        _label("drift_category", names),
        _moment("drifted").alias("drifted_at"),
        "churn_probability",
        "is_churned",
        pl.lit(pl.Series([each.name for each in config.parameters.archetypes], dtype=pl.String))
        .gather("archetype")
        .alias("archetype")
        if config.parameters.archetypes
        else pl.lit(None, pl.String).alias("archetype"),
    )


def _finish_touches(config: SimulationConfig, touches: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The touches as the shop knows them, and their truth."""
    named = touches.sort("touched", "person").with_columns(
        pl.concat_str(pl.lit("C"), (pl.col("campaign") + 1).cast(pl.String).str.zfill(3)).alias("campaign_id"),
        _user_id(config),
        _moment("touched").alias("touched_at"),
        _moment("responded").alias("responded_at"),
        pl.when("treated").then(pl.lit("treatment")).otherwise(pl.lit("control")).alias("arm"),
        pl.col("effect").alias("treatment_effect"),
        pl.col("extra").alias("extra_orders"),
    )
    keys = ["campaign_id", "user_id", "touched_at", "arm"]
    return _to_contract(named, "campaign_touches"), named.select(*keys, "treatment_effect", "extra_orders")


def _finish_tickets(config: SimulationConfig, tickets: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The tickets as the shop knows them, three in ten without a labelled intent, and their truth."""
    named = (
        tickets.sort("created", "person")
        .with_row_index("number", offset=1)
        .with_columns(
            _text("number", "T", 7).alias("ticket_id"),
            _user_id(config),
            _moment("created").alias("created_at"),
            pl.when(pl.col("resolved") < config.end_second).then(_moment("resolved")).alias("resolved_at"),
            pl.lit(_TEXTS).gather(pl.col("text")).alias("text"),
            _label("intent", INTENTS),
        )
    )
    known = named.with_columns(pl.when("labelled").then("intent").alias("intent"))
    return _to_contract(known, "support_tickets"), named.select("ticket_id", "intent")


def _finish_identities(config: SimulationConfig, identities: pl.DataFrame) -> pl.DataFrame:
    named = identities.sort("linked", "person").with_columns(
        _scattered("person", "A").alias("anonymous_id"), _user_id(config), _moment("linked").alias("linked_at")
    )
    return _to_contract(named, "identities")


# ---------------------------------------------------------------------------------------------------------------------
# The public functions
# ---------------------------------------------------------------------------------------------------------------------


def simulate(config: SimulationConfig, progress: Progress | None = None) -> SimulatedShop:
    """Simulate a shop. The same configuration gives the same frames, whatever the number of threads.

    Args:
        config: what to simulate.
        progress: called with what is under way and the share done, 0 to 1.
    """
    tell = progress or _tell_nobody
    streams = np.random.SeedSequence(config.seed).spawn(2 + -(-config.users // CHUNK_USERS))
    rng = np.random.default_rng(streams[0])
    shop = _Shop(_draw_catalogue(rng), _plan_campaigns(config), _Week(config))
    rates = _draw_rates(rng, config)
    chunks = []
    for stream, first in zip(streams[2:], range(0, config.users, CHUNK_USERS), strict=True):
        tell("users", 0.6 * first / config.users)
        last = min(first + CHUNK_USERS, config.users)
        chunks.append(_simulate_chunk(np.random.default_rng(stream), config, shop, first, last))
    events = _gather_events(chunks)
    people = pl.concat([chunk.people for chunk in chunks])
    touches, truth_touches = _finish_touches(config, pl.concat([chunk.touches for chunk in chunks]))
    tickets, truth_tickets = _finish_tickets(config, pl.concat([chunk.tickets for chunk in chunks]))
    identities = _finish_identities(config, pl.concat([chunk.identities for chunk in chunks]))
    source, dirt = _choose_dirt(np.random.default_rng(streams[1]), events, config.dirty_share)
    numbers = _event_numbers(source, dirt)
    slices = []
    for begin in range(0, max(len(source), 1), SLICE_ROWS):
        tell("events", 0.6 + 0.4 * begin / max(len(source), 1))
        rows = slice(begin, begin + SLICE_ROWS)
        finished = _finish_events(config, events[source[rows]], numbers[rows], dirt[rows])
        slices.append(_soil(finished) if (dirt >= 0).any() else finished)
    finished = pl.concat(slices).drop("dirt")
    tell("done", 1.0)
    tables = {
        "events": finished,
        "users": _finish_users(config, people),
        "products": shop.catalogue.products,
        "campaigns": shop.campaigns.table,
        "campaign_touches": touches,
        "support_tickets": tickets,
        "kb_articles": _kb_articles(config),
        "identities": identities,
        "currency_rates": rates,
    }
    soiled = np.flatnonzero(dirt >= 0)
    dirt_rows = finished.select("event_id")[soiled].with_columns(
        pl.Series("kind", [DIRT[k].name for k in dirt[soiled]], dtype=pl.String)
    )
    parameters = {**asdict(config), "preset_parameters": asdict(config.parameters), "dirty_share": config.dirty_share}
    truth = Truth(
        users=_finish_truth_users(config, people),
        touches=truth_touches,
        tickets=truth_tickets,
        dirt_counts=_dirt_counts(dirt),
        dirt_rows=dirt_rows,
        parameters=parameters,
    )
    return SimulatedShop(tables, truth)


def _tell_nobody(what: str, share: float) -> None:
    """Stands in for a progress callback."""


def _gather_events(chunks: list[_Chunk]) -> pl.DataFrame:
    """The events of all chunks by time, their visits and orders numbered through."""
    frames = []
    visits = orders = 0
    for chunk in chunks:
        frames.append(chunk.events.with_columns(pl.col("visit") + visits, pl.col("order") + orders))
        visits += chunk.visits
        orders += chunk.orders
    return pl.concat(frames).sort("time", maintain_order=True)


def write(shop: SimulatedShop, out_dir: Path, file_format: FileFormat = "parquet") -> dict[str, Path]:
    """Write a shop's tables to `out_dir`, one file each, and the truth to `out_dir`/truth.

    Returns the paths of the data files by table name. Files that are there already are replaced.

    Raises:
        ValueError: file_format is neither parquet nor csv.
        OSError: a file cannot be written.
    """
    if file_format not in ("parquet", "csv"):
        raise ValueError(f"file_format must be parquet or csv, not {file_format!r}")
    truth_dir = out_dir / "truth"
    truth_dir.mkdir(parents=True, exist_ok=True)
    paths = {name: out_dir / f"{name}.{file_format}" for name in shop.tables}
    for name, table in shop.tables.items():
        if file_format == "parquet":
            table.write_parquet(paths[name])
        else:
            _as_text(table).write_csv(paths[name])
    for name, frame in shop.truth.frames().items():
        frame.write_parquet(truth_dir / f"{name}.parquet")
    parameters = json.dumps(shop.truth.parameters, default=str, indent=2)
    (truth_dir / "truth_parameters.json").write_text(parameters + "\n", encoding="utf-8")
    return paths


def _as_text(table: pl.DataFrame) -> pl.DataFrame:
    """Every column as a CSV file shows it: decimals without trailing zeros, times to the second."""
    decimals = [name for name, dtype in table.schema.items() if isinstance(dtype, pl.Decimal)]
    times = [name for name, dtype in table.schema.items() if isinstance(dtype, pl.Datetime)]
    return table.with_columns(
        pl.col(decimals).cast(pl.String).str.strip_chars_end("0").str.strip_chars_end("."),
        pl.col(times).dt.to_string("%Y-%m-%d %H:%M:%S"),
    )


SAMPLE = SimulationConfig(users=300, days=250, seed=5, dirty=0.012)
"""The shop of the sample seeds."""


def write_sample(seeds_dir: Path) -> dict[str, Path]:
    """Write the sample seeds of the dbt project, sample_<table>.csv, and no truth. Returns their paths by table."""
    seeds_dir.mkdir(parents=True, exist_ok=True)
    paths = {}
    for name, table in simulate(SAMPLE).tables.items():
        paths[name] = seeds_dir / f"sample_{name}.csv"
        _as_text(table).write_csv(paths[name])
    return paths


def _main() -> None:
    parser = argparse.ArgumentParser(description="Write the sample seeds again.")
    parser.add_argument("--sample", type=Path, required=True, metavar="DIR", help="folder of the seeds")
    for path in write_sample(parser.parse_args().sample).values():
        print(path)


if __name__ == "__main__":
    _main()
