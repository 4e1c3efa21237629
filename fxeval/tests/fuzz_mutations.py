"""Ways to damage a valid file: its bytes, its lines, its fields, or what is packed in it."""

import copy
import io
import json
import pickletools
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

Draw: TypeAlias = Callable[[SearchStrategy[Any]], Any]

WORDS = (
    "", "0", "1", "-1", "2", "00001", "1e5", "0x10", "1_000", "9" * 30, "9" * 5000, "1e999", "nan",
    "inf", ".inf", "~", "true", "1.5", "\u0663", "\u00b2", "\U0001d7cf", "../../etc/passwd",
    "/etc/passwd", "a/../b", "a\\b", "C:x", ".", "Ann_0001.jpg", "Ann", "\0", "\x1b[31m", "\x85",
    "\u2028", "\u202e", "\ud800", "\ufeff", "e\u0301", "\uffff", "A" * 300, "A" * 5000, '"', "'",
    "#", "%s", "{0}", "=1+1", ",", ",,,", "<script>alert(1)</script>", "{{7*7}}",
    "&a [*a]", "*a", "&a", "!!python/object/apply:os.system [true]", "<<: {a: 1}", "? ", "- ",
    "[" * 50, "{" * 50, "[" * 50_000, "{a: " * 2000, "|", ">", "%YAML 1.1", "---", "...", "12:30",
    "@", "`", "a: b: c", "\t", "null",
)  # fmt: skip
NUMBERS = (
    0,
    1,
    2,
    3,
    127,
    128,
    255,
    2**15,
    2**16 - 1,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63,
    2**64 - 1,
)
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 0.5, -0.0, 1e308, -1e308, 5e-324, float("nan"), float("inf"),
    10**9, 10**30, 10**400, "@digits", "@nest50", "@nest900", "@nest100000", "", "0", "1", [], {},
    [[]], [1, 2], [0] * 1000, {"": None}, *WORDS[21:45],
)  # fmt: skip
SMALL = st.integers(0, 3)


@st.composite
def damaged(draw: Draw, examples: Sequence[bytes]) -> bytes:
    """Bytes flipped, cut, moved, repeated, overwritten and spliced."""
    data = bytearray(draw(st.sampled_from(examples)))
    for _ in range(draw(st.sampled_from((0, 1, 1, 1, 2, 4)))):
        damage(draw, data, examples)
    return bytes(data)


def damage(draw: Draw, data: bytearray, examples: Sequence[bytes] = (b"",)) -> None:
    """Change some bytes in place."""
    kind, at = draw(st.integers(0, 8)), draw(st.integers(0, len(data)))
    length = draw(st.integers(1, 16))
    if kind == 0 and at < len(data):
        data[at] ^= 1 << draw(st.integers(0, 7))
    elif kind == 1:
        data[at : at + length] = draw(st.binary(max_size=16))
    elif kind in (2, 3):
        width = draw(st.sampled_from((1, 2, 4, 8)))
        number = draw(st.sampled_from(NUMBERS)) % 256**width
        data[at : at + width] = number.to_bytes(width, draw(st.sampled_from(("little", "big"))))
    elif kind == 4:
        del data[at:]
    elif kind == 5:
        del data[at : at + length * draw(st.sampled_from((1, 16)))]
    elif kind == 6:
        data[at:at] = data[at : at + length] * draw(st.sampled_from((1, 2, 500)))
    elif kind == 7:
        other = draw(st.sampled_from(examples))
        data[at:] = other[draw(st.integers(0, len(other))) :]
    else:
        to = draw(st.integers(0, len(data)))
        data[at : at + length], data[to : to + length] = (
            data[to : to + length],
            data[at : at + length],
        )


def garbage(*starts: bytes) -> SearchStrategy[bytes]:
    """Random bytes, behind a magic number if there is one."""
    return st.builds(bytes.__add__, st.sampled_from((b"", *starts)), st.binary(max_size=300))


@st.composite
def reworded(draw: Draw, examples: Sequence[str]) -> bytes:
    """Lines dropped, repeated, swapped; words replaced; in odd encodings."""
    lines = draw(st.sampled_from(examples)).split("\n")
    for _ in range(draw(st.sampled_from((0, 1, 1, 1, 2, 3)))):
        kind, row = draw(st.integers(0, 9)), draw(st.integers(0, max(0, len(lines) - 1)))
        other = draw(st.integers(0, max(0, len(lines) - 1)))
        if not lines:
            lines = [draw(st.text(max_size=30))]
        elif kind == 0:
            del lines[row]
        elif kind == 1:
            lines.insert(other, lines[row])
        elif kind == 2:
            lines[row], lines[other] = lines[other], lines[row]
        elif kind == 3:
            lines[row:row] = [lines[row]] * draw(st.sampled_from((2, 3000)))
        elif kind == 4:
            lines[row] = lines[row][: draw(st.integers(0, len(lines[row])))]
        elif kind == 5:
            lines[row] += draw(st.sampled_from(WORDS))
        else:
            lines[row] = _reworded(draw, lines[row], lines[other])
    text = draw(st.sampled_from(("\n", "\n", "\n", "\n", "\r\n", "\r", "\x0b"))).join(lines)
    encoding = draw(st.sampled_from(("utf-8",) * 9 + ("utf-8-sig", "utf-16", "latin-1")))
    return text.encode(encoding, "replace" if encoding == "latin-1" else "surrogatepass")


def _reworded(draw: Draw, line: str, other: str) -> str:
    separator = draw(
        st.sampled_from([one for one in ("\t", ",", " ", ":", "_") if one in line] or [" "])
    )
    words, others = line.split(separator), other.split(separator)
    word = st.one_of(st.sampled_from(WORDS), st.sampled_from(others), st.text(max_size=8))
    at, kind = draw(st.integers(0, len(words) - 1)), draw(SMALL)
    if kind == 0:
        words.insert(at, draw(word))
    elif kind == 1:
        del words[at]
    else:
        words[at] = draw(word)
    return separator.join(words)


@st.composite
def retyped(draw: Draw, trees: Sequence[Any]) -> bytes:
    """JSON with fields removed, moved, renamed, repeated or changed."""
    tree = copy.deepcopy(draw(st.sampled_from(trees)))
    for _ in range(draw(st.sampled_from((0, 1, 1, 1, 2, 3)))):
        _retype(draw, tree)
    # Lone surrogates stay escapes, and so go through.
    text = json.dumps(tree).replace('"@digits"', "1" * 5000).replace("@twice ", "")
    for depth in (50, 900, 100_000):
        text = text.replace(f'"@nest{depth}"', "[" * depth + "]" * depth)
    return text.encode()


def _retype(draw: Draw, tree: Any) -> None:
    at = tree
    while isinstance(at, dict | list) and at:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        key = draw(st.sampled_from(keys))
        if isinstance(at[key], dict | list) and at[key] and draw(SMALL):
            at = at[key]
            continue
        kind = draw(st.integers(0, 6))
        value = draw(st.sampled_from(VALUES))
        if kind == 0:
            del at[key]
        elif kind == 1 and isinstance(at, dict):
            at[f"@twice {key}"] = value
        elif kind == 2 and isinstance(at, dict):
            at[draw(st.sampled_from(WORDS))] = at.pop(key)
        elif kind == 3:
            other = draw(st.sampled_from(keys))
            at[key], at[other] = at[other], at[key]
        elif kind == 4:
            at[key] = [at[key]] * draw(st.sampled_from((0, 1, 2, 300)))
        else:
            at[key] = copy.deepcopy(value)
        return


@st.composite
def rezipped(draw: Draw, examples: Sequence[bytes]) -> bytes:
    """Archives with other members and right checksums, and with wrong headers."""
    with zipfile.ZipFile(io.BytesIO(draw(st.sampled_from(examples)))) as archive:
        members = [[info.filename, bytearray(archive.read(info))] for info in archive.infolist()]
    for _ in range(draw(st.sampled_from((0, 1, 1, 1, 2, 3)))):
        at, kind = draw(st.integers(0, len(members) - 1)), draw(st.integers(0, 9))
        other = draw(st.integers(0, len(members) - 1))
        if kind == 0 and len(members) > 1:
            del members[at]
        elif kind == 1:
            members.append(copy.deepcopy(members[at]))
        elif kind == 2:
            members[at][0] = draw(st.sampled_from(("", "../x", "/x", "a" * 400, "\u202e", "\n")))
        elif kind == 3:
            members[at][0], members[other][0] = members[other][0], members[at][0]
        elif kind == 4:
            members[at][1] += bytes(draw(st.sampled_from((1, 1000, 3_000_000))))
        elif kind == 5 and members[at][1][:1] == b"\x80":
            members[at][1] = bytearray(reordered(draw, members[at][1]))
        else:
            damage(draw, members[at][1], [bytes(content) for _, content in members])
    made, method = io.BytesIO(), draw(st.sampled_from((0, 0, 8, 12, 14)))
    with warnings.catch_warnings(), zipfile.ZipFile(made, "w", method) as archive:
        warnings.simplefilter("ignore")
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), bytes(content), method)
    data = bytearray(made.getvalue())
    if draw(SMALL) == 0:
        start = data.find(draw(st.sampled_from((b"PK\1\2", b"PK\3\4", b"PK\5\6"))))
        at = start + draw(st.integers(4, 44))
        width = draw(st.sampled_from((1, 2, 4)))
        number = draw(st.sampled_from((*NUMBERS, 99))) % 256**width
        data[at : at + width] = number.to_bytes(width, "little")
    return bytes(data)


def reordered(draw: Draw, data: bytes) -> bytes:
    """A pickle with its instructions removed, repeated, moved or changed."""
    try:
        starts = [at for _, _, at in pickletools.genops(bytes(data)) if at is not None]
    except Exception:  # damaged already
        return bytes(data)
    pieces = [bytes(data[a:b]) for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]
    return b"".join(_moved(draw, pieces))


def _moved(draw: Draw, pieces: list[bytes]) -> list[bytes]:
    for _ in range(draw(st.sampled_from((1, 1, 2, 3)))):
        if not pieces:
            break
        at, kind = draw(st.integers(0, len(pieces) - 1)), draw(SMALL)
        to = draw(st.integers(0, len(pieces) - 1))
        if kind == 0:
            del pieces[at]
        elif kind == 1:
            pieces[to:to] = [pieces[at]] * draw(st.sampled_from((1, 2, 200)))
        elif kind == 2:
            pieces[at], pieces[to] = pieces[to], pieces[at]
        else:
            piece = bytearray(pieces[at])
            damage(draw, piece)
            pieces[at] = bytes(piece)
    return pieces


@st.composite
def repickled(draw: Draw, examples: Sequence[bytes]) -> bytes:
    """Pickles of other instructions."""
    return reordered(draw, draw(st.sampled_from(examples)))


@st.composite
def repainted(draw: Draw, examples: Sequence[bytes]) -> bytes:
    """PNGs and JPEGs with other chunks, whose lengths and checksums are mostly right."""
    data = draw(st.sampled_from(examples))
    return _png(draw, data) if data[:1] == b"\x89" else _jpeg(draw, data)


def _png(draw: Draw, data: bytes) -> bytes:
    at, chunks = 8, []
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        chunks.append(data[at + 4 : at + 8 + length])
        at += 12 + length
    out = bytearray(data[:8])
    for chunk in _moved(draw, chunks):
        out += max(0, len(chunk) - 4).to_bytes(4, "big") + chunk
        out += zlib.crc32(chunk).to_bytes(4, "big")
    return bytes(out)


def _jpeg(draw: Draw, data: bytes) -> bytes:
    at, segments = 2, []
    while data[at] == 0xFF and data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        segments.append(data[at:end])
        at = end
    return data[:2] + b"".join(_moved(draw, [*segments, data[at:]]))
