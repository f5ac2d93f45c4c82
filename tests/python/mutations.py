"""Files of every raw table, mutated: the same number and seed give the same file, and rows are counted here anew.

Used by benchmarks/chaos/fuzz.py (thousands) and by the tests (a few dozen). What a file is made of is chosen from three
lists: mutations of the table (ROWS), of how it is written (CSV, JSON Lines, Parquet), and of the bytes (BYTES).
"""

import csv
import gzip
import io
import json
import os
import random
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

SEEDS = Path(__file__).resolve().parents[2] / "seeds" / "sample"
TABLES = ("events", "users", "products", "campaigns", "campaign_touches", "support_tickets", "kb_articles",
          "identities", "currency_rates")  # fmt: skip
LONG = 10_000_000
csv.field_size_limit(2**31 - 1)

# Text that some layer might take for something else: SQL, HTML, markup of terminals and of spreadsheets, paths.
HOSTILE = (
    "'; drop table raw.events; --", '" or 1=1 --', "';--", "a'b\"c`d", "{{ 7*7 }}", "${HOME}", "%s%n", "50%_",
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "\"><svg/onload=alert(1)>", "javascript:alert(1)",
    "</script><script>alert(1)</script>", "&lt;b&gt;&amp;", "[red]x[/red]", "[/]", "[link=http://x.invalid]y[/link]",
    ":smile:", "=cmd|'/c calc'!A1", "+1+1", "@SUM(A1)", "-2+3", "../../etc/passwd", "..\\..\\x", "/etc/passwd",
    "~/x", "a\nb", "a\r\nb", "a\tb", "\u202eevil\u202c", "\u200b", "\ufeff", "e\u0301", "\U0001f600", "中文",
    "\x1b[31mred",
    "\x1b]8;;http://x.invalid\x07y\x1b]8;;\x07", "\x07", "\x7f", "-rf", "--help", "null", "NULL", "NaN", "None",
    "\\", "\\N", "\\'", "$.*", "*", "#x", "c0", "a;b", "a,b", "a|b", " ", "",
)  # fmt: skip
NUMBERS = ("1e308", "-1e308", "1e999", "9" * 40, "-" + "9" * 30, "nan", "inf", "-Infinity", "0x10", "1,5",
           "1_000", "1e-30",
           "99999999999999", "12345678901234567890", "9e11", "-0", "+5", "٣", "", "true", "3.0000000001")  # fmt: skip
TIMES = (
    "infinity", "-infinity", "epoch", "290000-01-01", "9999-12-31 23:59:59.999999", "0001-01-01", "0044-03-15 (BC)",
    "0000-00-00", "2024-02-30", "2024-02-29T24:00:00", "2024-06-30T23:59:60Z", "2024-01-01T10:00:00+14:00",
    "2024-01-01T10:00:00+99:99", "2024-01-01T10:00:00.123456789Z", "20240101", "01/02/2024", "1.2.2024", "2024-W05",
    "1704067200", "1704067200000", "1704067200000000", "-1", "9999999999", "9999999999999", "now", "today", "10:00",
    "2024-01-01 10:00 PM", "2024-01-01T10:00:00[Europe/Berlin]", "Mon, 01 Jan 2024", "1969-12-31", "2093-01-01",
)  # fmt: skip
NAMES = ("lcm_source_row", "file_row", "file_row_number", "c0", "json", "rule", "original", "source_row", "load_id",
         "event_id_1", "", " ", "a b", 'q"uo\'te', "x; drop table raw.events; --", "名", "$.*", "*", "a/b~c", "a\nb",
         "[/]", "USER_ID", "filename", "select", "offset_event_time", "n\0ul", "x" * 500)  # fmt: skip
FILE_NAMES = ("it's", 'q"uote', "a;b", "-rf", "--help", "[/]", "[red]", "a*b?", "50%", "a b", "名前", "x\ny",
              "\u202eevil", "\x1b[31m", "$(x)", "user_id=evil/x", "event_type=purchase/y=1/z", "{{x}}", "~",
              "a'b/c\"d")  # fmt: skip


@dataclass
class Sheet:
    """A table on its way into a file: names may repeat."""

    table: str
    names: list[str]
    rows: list[list[Any]]


@dataclass(frozen=True)
class Mutated:
    """A mutated file, and what was done to it."""

    number: int
    table: str
    path: Path
    format: str
    done: tuple[str, ...]


@cache
def _sample(table: str) -> list[list[str]]:
    with (SEEDS / f"sample_{table}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def base(table: str, rng: random.Random) -> Sheet:
    """Some rows of the sample."""
    names, *rows = _sample(table)
    kept = [
        place for place, name in enumerate(names) if name not in ("load_id", "loaded_at", "source_file", "source_row")
    ]
    count = rng.randint(1, 40)
    start = rng.randrange(max(1, len(rows) - count))
    return Sheet(
        table, [names[place] for place in kept], [[row[place] for place in kept] for row in rows[start:][:count]]
    )


def _cells(sheet: Sheet, rng: random.Random, values: Any, share: float = 0.15) -> None:
    for row in sheet.rows:
        for place in range(len(row)):
            if rng.random() < share:
                row[place] = rng.choice(values)


def _column(sheet: Sheet, rng: random.Random, values: Any) -> None:
    place = rng.randrange(len(sheet.names))
    for row in sheet.rows:
        if rng.random() < 0.7:
            row[place] = rng.choice(values)


def _of_kind(sheet: Sheet, rng: random.Random, values: Any, kinds: tuple[str, ...]) -> None:
    places = [place for place, name in enumerate(sheet.names) if any(kind in name for kind in kinds)]
    for row in sheet.rows:
        for place in places:
            if rng.random() < 0.4:
                row[place] = rng.choice(values)


def _insert_column(sheet: Sheet, rng: random.Random, name: str) -> None:
    place = rng.randint(0, len(sheet.names))
    sheet.names.insert(place, name)
    for row in sheet.rows:
        row.insert(place, rng.choice(HOSTILE))


def _remove_column(sheet: Sheet, rng: random.Random) -> None:
    place = rng.randrange(len(sheet.names))
    for line in (sheet.names, *sheet.rows):
        del line[place]


def _repeat_column(sheet: Sheet, rng: random.Random) -> None:
    name = rng.choice(sheet.names)
    _insert_column(sheet, rng, rng.choice([name, name.upper(), name.title()]))


def _reorder(sheet: Sheet, rng: random.Random) -> None:
    order = rng.sample(range(len(sheet.names)), len(sheet.names))
    sheet.names = [sheet.names[place] for place in order]
    sheet.rows = [[row[place] for place in order] for row in sheet.rows]


def _case(sheet: Sheet, rng: random.Random) -> None:
    sheet.names = [rng.choice([name, name.upper(), name.title()]) for name in sheet.names]


def _rename(sheet: Sheet, rng: random.Random) -> None:
    sheet.names[rng.randrange(len(sheet.names))] = rng.choice(NAMES)


def _long(sheet: Sheet, rng: random.Random) -> None:
    if sheet.rows:
        rng.choice(sheet.rows)[rng.randrange(len(sheet.names))] = rng.choice("x'\"<é") * LONG


def _ragged(sheet: Sheet, rng: random.Random) -> None:
    row = rng.choice(sheet.rows or [[]])
    if rng.random() < 0.5:
        row.append("more")
    elif row:
        row.pop()


def _nuls(sheet: Sheet, rng: random.Random) -> None:
    _cells(sheet, rng, ("\0", "a\0b", "\0'"), 0.1)


ROWS: dict[str, Callable[[Sheet, random.Random], None]] = {
    "hostile text": lambda sheet, rng: _cells(sheet, rng, HOSTILE),
    "a hostile column": lambda sheet, rng: _column(sheet, rng, HOSTILE),
    "odd numbers": lambda sheet, rng: _of_kind(
        sheet, rng, NUMBERS, ("quantity", "price", "amount", "rat", "cost", "discount")
    ),
    "odd times": lambda sheet, rng: _of_kind(sheet, rng, TIMES, ("time", "_at", "_from")),
    "numbers anywhere": lambda sheet, rng: _cells(sheet, rng, NUMBERS),
    "times anywhere": lambda sheet, rng: _cells(sheet, rng, TIMES),
    "nothing anywhere": lambda sheet, rng: _cells(sheet, rng, ("", None)),
    "NULs": _nuls,
    "nested": lambda sheet, rng: _cells(
        sheet, rng, ('{"a": [1, {"b": null}]}', "[]", "[1, 2]", {"a": [1]}, [1, None], [])
    ),
    "column removed": _remove_column,
    "column repeated": _repeat_column,
    "column added": lambda sheet, rng: _insert_column(sheet, rng, rng.choice(NAMES)),
    "column renamed": _rename,
    "columns reordered": _reorder,
    "mixed case": _case,
    "rows repeated": lambda sheet, rng: sheet.rows.extend(
        [list(row) for row in rng.choices(sheet.rows or [[]], k=3) if row]
    ),
    "no rows": lambda sheet, rng: sheet.rows.clear(),
    "10 MB text": _long,
    "ragged": _ragged,
}
RARE = {"10 MB text": 0.1, "no rows": 0.3, "ragged": 0.5}


def _text(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


def write_csv(sheet: Sheet, rng: random.Random, done: list[str], plain: bool) -> tuple[bytes, str]:
    """Comma-separated or otherwise, in any encoding."""
    text = io.StringIO(newline="")
    writer = csv.writer(
        text,
        delimiter=rng.choice(",,,,;\t|"),
        quoting=rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
        lineterminator=rng.choice(["\n", "\n", "\r\n", "\r"]),
    )
    writer.writerow(sheet.names)
    writer.writerows([[_text(value) for value in row] for row in sheet.rows])
    encoding = (
        "utf-8" if plain else rng.choice(["utf-8"] * 12 + ["utf-8-sig", "utf-16", "utf-16-le", "latin-1", "gb18030"])
    )
    if encoding != "utf-8":
        done.append(encoding)
    return text.getvalue().encode(encoding, errors="replace"), rng.choice([".csv", ".csv", ".tsv", ".txt", ".CSV"])


def write_json(sheet: Sheet, rng: random.Random, done: list[str], plain: bool) -> tuple[bytes, str]:
    """A line for each object, an array, or objects one after another; keys may repeat."""
    typed = rng.random() < 0.5
    ascii_only = rng.random() < 0.5

    def value(item: Any) -> str:
        if typed and isinstance(item, str) and rng.random() < 0.8:
            try:
                return json.dumps(
                    json.loads(item)
                )  # numbers become numbers, NaN and Infinity stay as Python writes them
            except ValueError:
                pass
        return json.dumps(item, ensure_ascii=ascii_only)

    objects = []
    for row in sheet.rows:
        pairs = [
            f"{json.dumps(name, ensure_ascii=ascii_only)}: {value(item)}"
            for name, item in zip(sheet.names, row, strict=False)
        ]
        if rng.random() < 0.05:
            rng.shuffle(pairs)
        objects.append("{" + ", ".join(pairs) + "}")
    if not plain and rng.random() < 0.1:
        done.append("rows that are no objects")
        objects.insert(rng.randint(0, len(objects)), rng.choice(["[1, 2]", "5", '"x"', "null", "{}", "true"]))
    form = rng.choice(
        ["lines"] * 8 + ["array", "joined", "blank lines", "crlf", *([] if plain else ["bom", "utf-16", "latin-1"])]
    )
    if form != "lines":
        done.append(form)
    text = {
        "array": "[" + ",\n".join(objects) + "]",
        "joined": "".join(objects),
        "blank lines": "\n\n".join(objects),
    }.get(form, ("\r\n" if form == "crlf" else "\n").join([*objects, ""]))
    encoding = {"bom": "utf-8-sig", "utf-16": "utf-16", "latin-1": "latin-1"}.get(form, "utf-8")
    return text.encode(encoding, errors="replace"), rng.choice([".jsonl", ".jsonl", ".ndjson", ".json"])


KINDS: tuple[Any, ...] = (
    pa.large_string(), pa.binary(), pa.int64(), pa.int8(), pa.uint64(), pa.float64(), pa.float32(), pa.float16(),
    pa.decimal128(38, 10), pa.decimal256(50, 5), pa.bool_(), pa.date32(), pa.date64(), pa.time64("us"),
    pa.duration("us"),
    pa.timestamp("s"), pa.timestamp("ms"), pa.timestamp("us"), pa.timestamp("ns"), pa.timestamp("us", "Asia/Shanghai"),
    pa.timestamp("ns", "UTC"), pa.dictionary(pa.int8(), pa.string()), pa.list_(pa.string()), pa.list_(pa.int32()),
    pa.null(),
    pa.struct([("a", pa.string()), ("user_id", pa.string())]), pa.map_(pa.string(), pa.string()),
)  # fmt: skip


def _typed(values: list[str], kind: Any, rng: random.Random) -> Any:
    """The values as this type where that can be; else others of the type."""
    if pa.types.is_list(kind):
        return pa.array(
            [[], None, *([["1", "2"]] if kind.value_type == pa.string() else [[1, 2]]) * len(values)][: len(values)],
            kind,
        )
    if pa.types.is_struct(kind):
        return pa.array([{"a": value, "user_id": "inner"} for value in values], kind)
    if pa.types.is_map(kind):
        return pa.array([[("a", value)] for value in values], kind)
    if pa.types.is_dictionary(kind):
        return pa.array(values).dictionary_encode()
    if pa.types.is_binary(kind):
        return pa.array([value.encode() + rng.choice([b"", b"\xff\0"]) for value in values], kind)
    try:
        return pa.array([value or None for value in values], pa.string()).cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        pass
    if pa.types.is_floating(kind):
        numbers = [rng.choice([float("nan"), float("inf"), -0.0, 1.5, 1e30, None]) for _ in values]
        return pa.array(numbers, pa.float64()).cast(kind)
    if pa.types.is_boolean(kind):
        return pa.array([rng.choice([True, False, None]) for _ in values], kind)
    if pa.types.is_decimal(kind):
        return pa.array([rng.choice([None, 1, 10**20]) for _ in values], pa.decimal128(38, 0)).cast(kind)
    if pa.types.is_int8(kind) or pa.types.is_uint64(kind) or pa.types.is_null(kind):
        return pa.array([rng.choice([None, 1, 100]) if not pa.types.is_null(kind) else None for _ in values], kind)
    far = 2**50 if pa.types.is_timestamp(kind) and kind.unit == "s" else 2**62  # seconds are written as milliseconds
    whole = pa.array([rng.choice([0, 1704067200, 1704067200000, far, -far, None]) for _ in values], pa.int64())
    if pa.types.is_date32(kind):
        return pa.array([rng.choice([0, 19723, 2**30, -(2**30)]) for _ in values], pa.int32()).cast(kind)
    if pa.types.is_date64(kind) or pa.types.is_time(kind):
        return pa.array([rng.choice([0, 86400000]) for _ in values], pa.int64()).cast(kind, safe=False)
    return whole.cast(kind, safe=False)


def write_parquet(sheet: Sheet, rng: random.Random, done: list[str], plain: bool) -> tuple[bytes, str]:
    """Any codec and any type for a column."""
    names = list(sheet.names)
    columns: list[Any] = []
    for place, _ in enumerate(names):
        values = [_text(row[place]) if place < len(row) else "" for row in sheet.rows]
        if not plain and rng.random() < 0.15:
            kind = rng.choice(KINDS)
            done.append(f"type {str(kind).split('<')[0].split('[')[0]}")
            columns.append(_typed(values, kind, rng))
        else:
            columns.append(pa.array([value or None for value in values], pa.string()))
    nanoseconds = any(pa.types.is_timestamp(column.type) and column.type.unit == "ns" for column in columns)
    buffer = io.BytesIO()
    pq.write_table(
        pa.Table.from_arrays(columns, names=names),
        buffer,
        compression=rng.choice(["snappy", "snappy", "zstd", "gzip", "brotli", "lz4", "none"]),
        row_group_size=rng.choice([3, 1000]),
        data_page_version=rng.choice(["1.0", "2.0"]),
        version="2.6" if nanoseconds else rng.choice(["1.0", "2.4", "2.6"]),
        use_dictionary=rng.random() < 0.5,
    )
    return buffer.getvalue(), rng.choice([".parquet", ".parquet", ".pq"])


WRITERS = {"csv": write_csv, "json": write_json, "parquet": write_parquet}


def _flip(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 3, 20])):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _put(content: bytes, rng: random.Random, pieces: list[bytes]) -> bytes:
    for _ in range(rng.choice([1, 1, 4])):
        place = rng.randint(0, len(content))
        content = content[:place] + rng.choice(pieces) + content[place:]
    return content


def _slice(content: bytes, rng: random.Random, times: int) -> bytes:
    start = rng.randrange(len(content))
    end = rng.randint(start, min(len(content), start + 200))
    return content[:start] + content[start:end] * times + content[end:]


BYTES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "bytes flipped": _flip,
    "truncated": lambda content, rng: content[: rng.randrange(len(content))],
    "start cut": lambda content, rng: content[rng.randrange(min(len(content), 300)) :],
    "slice removed": lambda content, rng: _slice(content, rng, 0),
    "slice repeated": lambda content, rng: _slice(content, rng, 2),
    "quotes put in": lambda content, rng: _put(content, rng, [b'"']),
    "line ends put in": lambda content, rng: _put(content, rng, [b"\n", b"\r", b"\r\n"]),
    "NUL put in": lambda content, rng: _put(content, rng, [b"\0"]),
    "noise put in": lambda content, rng: _put(
        content, rng, [b"\xff\xfe", b"\xc3(", b"\x1a", b"{", b"}", b",", b"#", b"\\"]
    ),
    "notes before": lambda content, rng: (
        rng.choice([b"# made by x\n", b"Report\n\n", b"\n", b"\n\n\n", b";\n"]) + content
    ),
    "junk after": lambda content, rng: content + rng.choice([b"\0" * 20, b"total,5\n", b"}", b"PAR1", b"\n\n", b"]"]),
    "twice": lambda content, rng: content + content,
    "emptied": lambda content, rng: rng.choice([b"", b"\n", b" ", b"\0", b"\xef\xbb\xbf", b"PAR1", b"[]", b"{}"]),
    "footer swapped": lambda content, rng: content[:-8] + rng.randbytes(4) + content[-4:],
    "noise": lambda content, rng: rng.randbytes(len(content)),
}  # fmt: skip


def _compressed(content: bytes, rng: random.Random, done: list[str], plain: bool) -> bytes:
    packed = gzip.compress(content, mtime=0)
    how = rng.choice(
        ["gzip", "gzip", "two members", "gzip truncated", "gzip checksum", "gzip flipped", "not gzip", "zip"]
    )
    how = "gzip" if plain else how
    done.append(how)
    if how == "two members":
        half = len(content) // 2
        return gzip.compress(content[:half], mtime=0) + gzip.compress(content[half:], mtime=0)
    if how == "zip":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as file:
            file.writestr(zipfile.ZipInfo("a.csv"), content)
        return buffer.getvalue()
    if how == "gzip checksum":
        return packed[:-8] + bytes(byte ^ 255 for byte in packed[-8:-4]) + packed[-4:]
    return {
        "gzip truncated": packed[: rng.randrange(len(packed))],
        "gzip flipped": _flip(packed, rng),
        "not gzip": content,
    }.get(how, packed)


def mutate(number: int, seed: int, folder: Path) -> Mutated:
    """Write file `number` of a series into `folder`; every tenth is left as it is, but for how it is written."""
    rng = random.Random(f"{seed}/{number}")
    table = rng.choice((*TABLES, *["events"] * 6))
    sheet = base(table, rng)
    done: list[str] = []
    plain = number % 10 == 0
    if not plain:
        chosen = rng.choices(list(ROWS), [RARE.get(name, 1) for name in ROWS], k=rng.choice([0, 1, 1, 2]))
        for name in sorted(chosen, key="ragged".__eq__):  # last: the others expect as many values as names
            ROWS[name](sheet, rng)
            done.append(name)
    format_name = rng.choice(list(WRITERS))
    content, suffix = WRITERS[format_name](sheet, rng, done, plain)
    if not plain:
        for name in rng.sample(list(BYTES), k=rng.choice([0, 0, 1, 1, 2])):
            if content:
                content = BYTES[name](content, rng)
                done.append(name)
        if rng.random() < 0.02:
            suffix = rng.choice([".xlsx", ".csv.zip", ".parquet.gz", "", ".csv.bz2", ".parquet", ".csv", ".json"])
            done.append("another suffix")
    if format_name != "parquet" and rng.random() < 0.15:
        content, suffix = _compressed(content, rng, done, plain), f"{suffix}.{rng.choice(['gz', 'gz', 'GZ'])}"
    stem = f"f{number}"
    if rng.random() < 0.2:
        stem = f"{stem} {rng.choice(FILE_NAMES)}"
        done.append("odd file name")
    path = folder / f"{stem}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = rng.random()
    if plain or kind < 0.98:
        path.write_bytes(content)
    elif kind < 0.99:
        path.mkdir()
        done.append("a folder")
    else:
        os.mkfifo(path)
        done.append("a pipe")
    return Mutated(number, table, path, format_name, tuple(done))


def count_rows(path: Path) -> int | None:
    """The rows of a file as Python's own readers see them; None where they cannot read it."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    try:
        if suffixes[-1] in (".parquet", ".pq"):
            return int(pq.read_table(path.open("rb")).num_rows)
        content = path.read_bytes()
        if suffixes[-1] == ".gz":
            content = gzip.decompress(content)
            suffixes.pop()
        text = content.decode("utf-8-sig")
        return _count_json(text) if "json" in suffixes[-1] else _count_csv(text)
    except (OSError, EOFError, ValueError, csv.Error, pa.ArrowException, IndexError, zlib.error):
        return None


def _count_csv(text: str) -> int:
    header = text.splitlines()[0]
    separator = max(",;\t|", key=lambda each: sum(part.count(each) for part in header.split('"')[::2]))
    records = [
        record for record in csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True) if record
    ]
    return len(records) - 1


def _count_json(text: str) -> int:
    decoder, place, count = json.JSONDecoder(), 0, 0
    while place < len(text):
        if text[place].isspace():
            place += 1
            continue
        value, place = decoder.raw_decode(text, place)
        count += len(value) if isinstance(value, list) and text.lstrip()[0] == "[" else 1
    return count
