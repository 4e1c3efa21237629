"""Pickles of plain data, read by a machine that can import nothing."""

import functools
import os
import pickle
import struct
import subprocess
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxeval.datasets import restricted_pickle
from fxeval.datasets.restricted_pickle import PlainArray, load
from fxeval.errors import DataContractError
from fxeval.tests.effort import at_most_calls

PROTOCOLS = range(6)
BLOB = bytes(range(256)) * 3
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.binary(max_size=600)
    | st.text(st.characters(max_codepoint=255), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner) | st.tuples(inner, inner)
    | st.tuples(inner, inner, inner) | st.tuples(inner, inner, inner, inner),
    max_leaves=12,
)  # fmt: skip


def bare(value):
    """The value with its views and arrays of bytes as bytes."""
    if isinstance(value, PlainArray):
        return bytes(value.data)
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, list | tuple):
        return type(value)(map(bare, value))
    return value


@settings(deadline=None)
@given(PLAIN, st.sampled_from(PROTOCOLS))
def test_plain_values_are_read_as_pickle_reads_them(value, protocol):
    if b"" not in _leaves(value):
        assert bare(load(pickle.dumps(value, protocol), "x")) == value


def _leaves(value):
    if isinstance(value, list | tuple):
        return [leaf for one in value for leaf in _leaves(one)]
    return [value]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "array",
    [np.frombuffer(BLOB, np.uint8), np.frombuffer(BLOB, np.uint8).reshape(-1, 1),
     np.frombuffer(BLOB, np.uint8).reshape(1, -1), np.asfortranarray(np.zeros((1, 7), np.uint8)),
     np.array([True, False, True])],
)  # fmt: skip
def test_flat_arrays_are_read_at_every_protocol(array, protocol):
    first, second = load(pickle.dumps([array, array[..., :1]], protocol), "x")
    assert bytes(first.data) == array.tobytes()
    assert bytes(second.data) == array[..., :1].tobytes()
    assert first.kind == second.kind == {"uint8": "u1", "bool": "b1"}[array.dtype.name]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_truth_values_of_numpy_are_truth_values(protocol):
    labels = [np.True_, np.False_, True, np.uint8(7)]
    assert load(pickle.dumps(labels, protocol), "x") == [True, False, True, 7]


def python_2(blobs, labels, protocol: int) -> bytes:
    """What ``pickle.dumps((blobs, labels), protocol)`` writes in Python 2.7."""
    if protocol == 0:
        texts = [b"S" + repr(blob).encode()[1:] + b"\np2\na" for blob in blobs]
        flags = [b"I0%d\na" % label for label in labels]
        return b"((lp1\n" + b"".join(texts) + b"(lp3\n" + b"".join(flags) + b"tp0\n."
    flags = b"".join((b"I00\n", b"I01\n")[label] for label in labels)
    if protocol == 2:
        flags = b"".join((b"\x89", b"\x88")[label] for label in labels)
    body = b"".join(
        (b"U%c" % len(blob) if len(blob) < 256 else b"T" + struct.pack("<i", len(blob)))
        + blob + b"r" + struct.pack("<I", 300 + row)
        for row, blob in enumerate(blobs)
    )  # fmt: skip
    lists = b"]q\x01(" + body + b"e]q\x02(" + flags + b"e"
    return b"(" + lists + b"tq\x03." if protocol == 1 else b"\x80\x02" + lists + b"\x86q\x03."


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_pickles_of_python_2_are_read(protocol):
    blobs, labels = [BLOB, b"ab'\"\n\\x41", BLOB[::-1][:255]], [True, False]
    data = python_2(blobs, labels, protocol)
    assert pickle.loads(data, encoding="bytes") == (blobs, labels)  # the writer writes that
    assert bare(load(data, "x")) == (blobs, labels)


def test_an_array_of_python_2_is_read():
    state = b"(K\x01K\x03\x85cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xff"
    state += b"J\xff\xff\xff\xffK\x00tb\x89U\x03abct"
    data = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    data += state + b"b."
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert pickle.loads(data, encoding="bytes").tobytes() == b"abc"
    assert bytes(load(data, "x").data) == b"abc"


class Call:
    """Pickles as the call of a function."""

    def __init__(self, function, *arguments) -> None:
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced

    def __call__(self) -> None:
        """Called only once unpickled, as what it then is."""


class Traced:
    """An object whose state, when set, leaves a file behind."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __setstate__(self, state) -> None:
        Path(state["marker"]).touch()


def attacks(marker: str) -> dict[str, object]:
    """Objects that create a file when they are unpickled."""
    touch = f"touch '{marker}'"
    nested = np.empty(1, object)
    nested[0] = Call(os.system, touch)
    return {
        "system": Call(os.system, touch),
        "eval": Call(eval, f"open({marker!r}, 'w').close()"),
        "getattr": Call(Call(getattr, Path(marker), "touch")),
        "partial": Call(functools.partial(os.system, touch)),
        "state": Traced(marker),
        "objects": nested,
        "subprocess": Call(subprocess.call, ["touch", marker]),
    }


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", attacks(""))
def test_no_attack_is_run_and_each_is_refused_by_name(tmp_path: Path, name, protocol):
    marker = tmp_path / "created"
    thing = attacks(str(marker))[name]
    data = pickle.dumps(([BLOB, thing], [True]), protocol)
    pickle.loads(data)
    assert marker.exists()  # the attack works where it is let in
    marker.unlink()
    with pytest.raises(DataContractError, match="nothing of it was run") as error:
        load(data, "faces.bin")
    assert not marker.exists()
    assert "faces.bin: expected a pickle of lists" in str(error.value)
    assert any(word in str(error.value) for word in NAMED[name])


NAMED = {
    "system": ["'posix.system'", "'nt.system'"],
    "eval": ["builtin"],
    "getattr": ["getattr"],
    "partial": ["'functools.partial'"],
    "state": ["'copy_reg._reconstructor'", "'copyreg._reconstructor'", "Traced"],
    "objects": ["array of 'O8'", "'posix.system'"],
    "subprocess": ["'subprocess.call'", "'commands.call'"],
}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"(S'touch x'\nios\nsystem\n.", "asks for 'os.system'"),
        (b"cos\nsystem\n.", "at byte 0: it asks for 'os.system'"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "asks for 'os.system'"),
        (b"cnumpy\ndtype.__class__\n.", "numpy.dtype.__class__"),
        (b"cbuiltins\ngetattr\n.", "builtins.getattr"),
        (b"c\x1b[31m\n\xff\n.", r"asks for '\\x1b\[31m.\\xff'"),
        (b"(cnumpy\nndarray\no.", "the instruction OBJ"),
        (b"cnumpy\nndarray\n)\x81.", "the instruction NEWOBJ"),
        (b"cnumpy\nndarray\n)}\x92.", "the instruction EMPTY_DICT"),
        (b"Pabc\n.", "the instruction PERSID"),
        (b"NQ.", "the instruction BINPERSID"),
        (b"\x82\x01.", "the instruction EXT1"),
        (b"\x97.", "the instruction NEXT_BUFFER"),
        (b"}.", "the instruction EMPTY_DICT"),
        (b"G\x00\x00\x00\x00\x00\x00\x00\x00.", "the instruction BINFLOAT"),
        (b"N2.", "the instruction DUP"),
        (b"c_codecs\nencode\n(Vabc\nVrot13\ntR.", "a call of 'encode' with other arguments"),
        (b"c_codecs\nencode\n(Vabc\ntR.", "a call of 'encode' with other"),
        (b"cnumpy\ndtype\n(VO8\ntR.", "an array of 'O8'"),
        (b"cnumpy\ndtype\n(Vf8\ntR.", "an array of 'f8'"),
        (b"cnumpy\ndtype\n(]tR.", "an array of 'list'"),
        (b"cnumpy\nndarray\n(K\x02tR.", "a call of 'ndarray'"),
        (b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\n)Vb\ntR.", "a call of 'array'"),
        (b"cnumpy\nndarray\n)b.", "a state of what has none"),
        (b"]]b.", "a state of what has none"),
        (b"cnumpy\ndtype\n(Vu1\ntR(K\x03V|\nNVab\nNtb.", "a state of what has none, or another"),
        (b"N)R.", "a call of what cannot be called"),
        (b"cnumpy\nndarray\n]R.", "a call of what cannot be called"),
    ],
)
def test_whatever_is_no_plain_data_is_refused_by_name(data, message):
    with pytest.raises(DataContractError, match=message):
        load(data, "x")


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n)Vb\ntRp1\n"
TYPE = b"cnumpy\ndtype\n(Vu1\ntR"


@pytest.mark.parametrize(
    ("shape", "content"),
    [(b"(K\x02K\x02t", b"abcd"), (b"(K\x04t", b"abc"), (b"(J\xff\xff\xff\xfft", b"a"),
     (b"(J\xff\xff\xff\x7ft", b"a"), (b"(K\x01K\x01K\x01K\x01t", b"a"), (b"]", b"a"),
     (b"(\x88t", b"a"), (b"(J\xff\xff\xff\xffJ\xff\xff\xff\xfft", b"a")],
)  # fmt: skip
def test_an_array_that_is_not_flat_or_not_of_its_bytes_is_refused(shape, content):
    state = b"(K\x01" + shape + TYPE + b"\x89C%c" % len(content) + content + b"tb"
    with pytest.raises(DataContractError, match=r"flat ones|shape of an array"):
        load(ARRAY + state + b".", "x")


def test_an_array_gets_its_content_once():
    state = b"(K\x01(K\x01t" + TYPE + b"\x89C\x01atb"
    assert bytes(load(ARRAY + state + b".", "x").data) == b"a"
    with pytest.raises(DataContractError, match="a state of what has none, or another one"):
        load(ARRAY + state + state + b".", "x")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "1 more bytes expected, 0 are there"),
        (b"]", "1 more bytes"),
        (b".", "more from its stack"),
        (b"(.", "more from its stack"),
        (b"a.", "more from its stack"),
        (b"NNa.", "a list to append to"),
        (b"e.", "that never started"),
        (b"\x85.", "more from its stack"),
        (b"h\x07.", "recalls what it never noted"),
        (b"g7\n.", "recalls what it never noted"),
        (b"gx\n.", "a whole number"),
        (b"I1", "a line of at most"),
        (b"Iten\n.", "a whole number"),
        (b"I" + b"9" * 5000 + b"\n.", "a line of at most"),
        (b"\xfe.", "no instruction has the number 254"),
        (b"\x80\x09.", "protocol of at most"),
        (b"Sabc\n.", "quoted string"),
        (b"S'a\\'\n.", "quoted string"),
        (b"S'a\"\n.", "quoted string"),
        (b"S'\\u0041'\n.", "quoted string"),
        (b"S'\xff'\n.", "quoted string"),
        (b"X\x01\x00\x00\x00\xff.", "Latin letters"),
        (b"X\x04\x00\x00\x00\xf0\x9f\x98\x80.", "Latin letters"),
        (b"V\\u0141\n.", "Latin letters"),
        (b"\x8b" + struct.pack("<I", 2**31 - 1) + b".", "a number of at most 8 bytes"),
        (b"\x8a\xff" + b"1" * 255 + b".", "a number of at most 8 bytes"),
        (b"\x8e" + struct.pack("<Q", 2**63) + b".", f"{2**63} more bytes expected"),
        (b"\x96" + struct.pack("<Q", 2**40) + b".", "more bytes expected"),
        (b"\x8d" + struct.pack("<Q", 2**40) + b".", "more bytes expected"),
        (b"B\xff\xff\xff\xff.", "more bytes expected"),
        (b"\x93.", "more from its stack"),
        (b"NN\x93.", "a name expected"),
    ],
)
def test_a_damaged_pickle_says_where_and_what(data, message):
    with pytest.raises(DataContractError, match=rf"x: is cut or damaged at byte \d+ .*{message}"):
        load(data, "x")


def test_what_follows_the_end_is_not_looked_at():
    assert load(b"N.cos\nsystem\n", "x") is None


def test_a_note_of_a_high_number_takes_no_memory():
    assert _peak(b"]r\xff\xff\xff\xff.") < 1 << 20  # the usual reader makes room for all before


def test_a_frame_that_announces_gigabytes_takes_no_memory():
    assert _peak(b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"N.") < 1 << 20


def test_shared_lists_of_a_billion_leaves_cost_what_they_weigh():
    laughs = b"]" + b"".join(b"q\x01(h\x01h\x01h\x01l" for _ in range(200)) + b"."
    assert _peak(laughs) < 1 << 20
    assert len(load(laughs, "x")) == 3


def test_a_text_is_not_encoded_a_million_times():
    text = b"X" + struct.pack("<I", 10**6) + b"a" * 10**6 + b"q\x01"
    again = b"c_codecs\nencode\nq\x02Vlatin1\nq\x03" + b"h\x02h\x01h\x03\x86R" * 1000
    assert _peak(text + again + b".", match="more bytes than it has") < 8 << 20


def test_large_byte_strings_are_not_copied_out_of_the_file():
    assert _peak(b"B" + struct.pack("<I", 10**7) + b"a" * 10**7 + b".") < 1 << 20


def test_deep_nesting_ends():
    load(b"]" + b"\x85" * 200_000 + b".", "x")
    load(b"](" * 100_000 + b"e" * 100_000 + b".", "x")


def test_a_pickle_of_very_many_instructions_is_refused_in_bounded_memory(monkeypatch):
    monkeypatch.setattr(restricted_pickle, "MAX_STEPS", 20_000)
    for instruction in (b"N", b"]", b"(", b"U\0", b"]\x94", b"U\xff" + b"a" * 255):
        peak = _peak(instruction * 20_001, match="at most 20000 instructions")
        assert peak < 20_000 * 150 + len(instruction) * 22_000


def _peak(data: bytes, match: str | None = None) -> int:
    tracemalloc.start()
    try:
        if match:
            with pytest.raises(DataContractError, match=match):
                load(data, "x")
        else:
            load(data, "x")
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


INSTRUCTIONS = [
    b"N", b"]", b")", b"(", b"\x88", b"\x85", b"\x86", b"\x87", b"K\x05", b"U\x02ab", b"q\x01",
    b"h\x01", b"a", b"e", b"l", b"t", b"b", b"R", b"Vlatin1\n", b"Vu1\n", b"Vb\n", b"\x94",
    b"I01\n", b"cnumpy\ndtype\n", b"cnumpy\nndarray\n", b"c_codecs\nencode\n", b"\x8a\x01\x07",
    b"cnumpy.core.multiarray\n_reconstruct\n", b"cnumpy._core.multiarray\nscalar\n", b"\x93",
    b"C\x03abc", b"cnumpy.core.numeric\n_frombuffer\n", b"2", b"cos\nsystem\n",
]  # fmt: skip


@settings(deadline=None, max_examples=500)
@given(
    st.binary(max_size=60)
    | st.lists(st.sampled_from(INSTRUCTIONS), max_size=40).map(lambda all: b"".join(all) + b".")
)
def test_any_bytes_are_read_or_refused(data):
    _read_or_refused(data)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(PROTOCOLS), st.data())
def test_a_damaged_set_is_read_or_refused(protocol, data):
    whole = ([BLOB, np.frombuffer(BLOB, np.uint8)], [True, np.False_])
    damaged = bytearray(pickle.dumps(whole, protocol))
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    _read_or_refused(bytes(damaged[: data.draw(st.integers(0, len(damaged)))]))


def _read_or_refused(data: bytes) -> None:
    with at_most_calls(1000 + 100 * len(data)):
        try:
            load(data, "x")
        except DataContractError as error:
            assert str(error).startswith("x: ")  # noqa: PT017
            assert str(error).isprintable()  # noqa: PT017
