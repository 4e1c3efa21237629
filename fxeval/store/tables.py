"""The tables of the index.

One row of ``run`` is one record: a run of two suites has two, with one id. The other tables point
to it, and their rows go with it. Cells and estimates are numbered in the order of the record.
``cell`` repeats the suite, the hardware class and the start of its run, so that one index of the
database answers what a metric was in which run.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

VERSION = 1
"""Of the tables; an index of another version must be rebuilt."""

METADATA = MetaData()

_TEXT = Text().with_variant(Text(collation="C"), "postgresql")
"""Text that both databases sort by its code points."""


def _text(name: str, *, is_known: bool = True) -> Column[str]:
    return Column(name, _TEXT, nullable=not is_known)


def _number(name: str) -> Column[float]:
    return Column(name, Float(53), nullable=True)


def _count(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False)


def _key(name: str) -> Column[int]:
    return Column(name, Integer, primary_key=True, autoincrement=False)


def _of_run(*, is_key: bool = True) -> Column[int]:
    return Column(
        "run", Integer, ForeignKey("run.key", ondelete="CASCADE"), primary_key=is_key,
        nullable=False, autoincrement=False,
    )  # fmt: skip


def _of_cell() -> tuple[Column[int], Column[int], ForeignKeyConstraint]:
    constraint = ForeignKeyConstraint(
        ["run", "cell"], ["cell.run", "cell.number"], ondelete="CASCADE"
    )
    return _key("run"), _key("cell"), constraint


STORE = Table("fxeval_store", METADATA, Column("version", Integer, nullable=False))

RUN = Table(
    "run", METADATA,
    Column("key", Integer, primary_key=True),
    _text("id"), _text("record"), _text("suite"), _text("title"), _text("suite_digest"),
    _text("started"), _text("finished"), _number("seconds"),
    Column("complete", Boolean, nullable=False),
    _text("commit", is_known=False), Column("dirty", Boolean, nullable=True),
    _text("fxeval"), _text("hardware_class"), _text("environment"),
    _text("outcome"), _text("reason"), _text("folder"),
    UniqueConstraint("id", "record", name="run_record"),
    Index("run_suite", "suite", "started"),
    Index("run_started", "started"),
)  # fmt: skip

SUBJECT = Table(
    "subject", METADATA,
    _of_run(), Column("role", _TEXT, primary_key=True), Column("name", _TEXT, primary_key=True),
    _text("digest", is_known=False), _text("class", is_known=False), _text("parameters"),
    Index("subject_digest", "digest"),
)  # fmt: skip

CELL = Table(
    "cell", METADATA,
    _of_run(), _key("number"),
    _text("id"), _text("check"), _text("kind"), _text("model"), _text("explainer"), _text("pairs"),
    _text("outcome"), _text("reason"), _count("attempt"), _number("seconds"),
    _count("n_pairs"), _count("n_identities"), _text("parameters"), _text("question"),
    _text("suite"), _text("hardware_class"), _text("started"),
    Index(
        "cell_suite", "suite", "check", "model", "explainer", "pairs", "hardware_class", "started",
    ),
    Index("cell_id", "suite", "id"),
    Index("cell_check", "check", "model", "explainer", "pairs", "hardware_class", "started"),
    Index("cell_model", "model", "explainer", "hardware_class", "started"),
    Index("cell_explainer", "explainer", "hardware_class", "started"),
    Index("cell_hardware", "hardware_class", "started"),
)  # fmt: skip

ESTIMATE = Table(
    "estimate", METADATA,
    *_of_cell(), _key("number"),
    _text("metric"), _text("title"), _text("unit"), _text("better"), _text("map"), _text("under"),
    _number("value"), _number("low"), _number("high"), _number("confidence"),
    _count("n_pairs"), _count("n_identities"), _text("method"), _number("seed_sd"),
    Index("estimate_metric", "metric", "map"),
)  # fmt: skip

LIMIT = Table(
    "limit", METADATA,
    *_of_cell(), _key("number"),
    _text("metric"), _text("text"), _text("form"), _text("against", is_known=False),
    _text("severity"), _text("over"), _text("under"), _number("line"), _text("outcome"),
    _text("reason"), _number("value"), _number("low"), _number("high"), _number("p_value"),
)  # fmt: skip

ARTEFACT = Table(
    "artefact", METADATA,
    _of_run(), Column("path", _TEXT, primary_key=True),
    _text("kind"), _text("digest"), _count("bytes"),
)  # fmt: skip
