"""Pickles of plain data: stand-ins for a few names, all others refused, in bounds."""

import functools
import io
import os
import pickle
import struct
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxeval.datasets.restricted_pickle import Content, _Array, load, received, send, unpickled
from fxeval.errors import DataContractError
from fxeval.strict.sandbox import SandboxError

PROTOCOLS = range(6)
BLOB = bytes(range(256)) * 3
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.binary(max_size=600)
    | st.text(st.characters(max_codepoint=255), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner) | st.tuples(inner, inner)
    | st.tuples(inner, inner, inner) | st.tuples(inner, inner, inner, inner),
    max_leaves=12,
)  # fmt: skip


def read(data: bytes, where: str = "x", most: int = 1000) -> Content:
    """What ``load`` returns, without a process of its own: for inputs that are not greedy."""
    answer = io.BytesIO()
    send(io.BytesIO(data), answer, most)
    answer.seek(0)
    return received(answer, where)


def plain(data: bytes):
    """The value, its arrays as bytes."""
    return bare(unpickled(io.BytesIO(data)))


def bare(value):
    if isinstance(value, _Array):
        return bytes(value.data)
    return type(value)(map(bare, value)) if isinstance(value, list | tuple) else value


@settings(deadline=None)
@given(PLAIN, st.sampled_from(PROTOCOLS))
def test_plain_values_are_read_as_pickle_reads_them(value, protocol):
    if b"" not in _leaves(value):
        assert plain(pickle.dumps(value, protocol)) == value


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
    data = pickle.dumps(([array, array[..., :1]], [True]), protocol)
    assert read(data).images == [array.tobytes(), array[..., :1].tobytes()]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_truth_values_of_numpy_are_truth_values(protocol):
    labels = [np.True_, np.False_, True, np.uint8(7)]
    assert read(pickle.dumps(([], labels), protocol)).labels == [True, False, True, "int"]
    assert read(pickle.dumps(([], np.array([True, False])), protocol)).labels == [True, False]


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
    assert read(data) == (blobs, labels, 3, 2)


def test_an_array_of_python_2_is_read():
    state = b"(K\x01K\x03\x85cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xff"
    state += b"J\xff\xff\xff\xffK\x00tb\x89U\x03abct"
    data = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    data += state + b"b."
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert pickle.loads(data, encoding="bytes").tobytes() == b"abc"
    assert plain(data) == b"abc"


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
        read(data, "faces.bin")
    assert not marker.exists()
    assert "faces.bin: expected a pickle of lists" in str(error.value)
    assert any(word in str(error.value) for word in NAMED[name])


def test_an_attack_is_refused_by_name_from_the_process_that_reads(tmp_path: Path):
    marker = tmp_path / "created"
    data = pickle.dumps(([BLOB, Call(os.system, f"touch '{marker}'")], [True]))
    with pytest.raises(DataContractError, match=r"f\.bin: .*: it asks for '(posix|nt)\.system'\. "):
        load(data, "f.bin", 10)
    assert not marker.exists()


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
        (b"cos\nsystem\n.", "it asks for 'os.system'"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "asks for 'os.system'"),
        (b"cnumpy\ndtype.__class__\n.", "numpy.dtype.__class__"),
        (b"cbuiltins\ngetattr\n.", "builtins.getattr"),
        (b"c\x1b[31m\n\xc3\xbf\n.", r"asks for '\\x1b\[31m.\\xff'"),
        (b"(cnumpy\nndarray\no.", "a call of 'ndarray'"),
        (b"cnumpy\nndarray\n)\x81.", "NEWOBJ class argument must be a type"),
        (b"cnumpy\nndarray\n)}\x92.", "NEWOBJ_EX class argument must be a type"),
        (b"Pabc\n.", "an object outside the file"),
        (b"NQ.", "an object outside the file"),
        (b"\x82\x01.", "unregistered extension code"),
        (b"\x97.", "out-of-band data"),
        (b"}.", "got something else"),
        (b"G\x00\x00\x00\x00\x00\x00\x00\x00.", "got something else"),
        (b"N2.", "got something else"),
        (b"c_codecs\nencode\n(Vabc\nVrot13\ntR.", "a call of 'encode' with other arguments"),
        (b"c_codecs\nencode\n(Vabc\ntR.", "a call of 'encode' with other"),
        (b"cnumpy\ndtype\n(VO8\ntR.", "an array of 'O8'"),
        (b"cnumpy\ndtype\n(Vf8\ntR.", "an array of 'f8'"),
        (b"cnumpy\ndtype\n(]tR.", "an array of 'list'"),
        (b"cnumpy\nndarray\n(K\x02tR.", "a call of 'ndarray'"),
        (b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\n)Vb\ntR.", "a call of 'array'"),
        (b"cnumpy\nndarray\n)b.", "a state of 'ndarray'"),
        (b"cos\nsystem\n)b.", "asks for 'os.system'"),
        (b"]]b.", "cut or damaged"),
        (b"cnumpy\ndtype\n(Vu1\ntR(K\x03V|\nNVab\nNtb.", "another state of a type of arrays"),
        (b"N)R.", "object is not callable"),
        (b"cnumpy\nndarray\n]R.", "cut or damaged"),
    ],
)
def test_whatever_is_no_plain_data_is_refused_by_name(data, message):
    with pytest.raises(DataContractError, match=message):
        read(data)


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
    with pytest.raises(DataContractError, match="flat ones"):
        read(ARRAY + state + b".")


def test_an_array_gets_its_content_once():
    state = b"(K\x01(K\x01t" + TYPE + b"\x89C\x01atb"
    assert plain(ARRAY + state + b".") == b"a"
    with pytest.raises(DataContractError, match="another state of an array"):
        read(ARRAY + state + state + b".")


@pytest.mark.parametrize(
    "data",
    [b"", b"]", b".", b"(.", b"a.", b"NNa.", b"e.", b"\x85.", b"h\x07.", b"g7\n.", b"gx\n.", b"I1",
     b"Iten\n.", b"I" + b"9" * 5000 + b"\n.", b"\xfe.", b"\x80\x09.", b"Sabc\n.", b"S'a\\'\n.",
     b"S'a\"\n.", b"X\x01\x00\x00\x00\xff.", b"\x8b\xff\xff\xff\xff.", b"\x93.", b"NN\x93.",
     b"\x80\x04\x95" + struct.pack("<Q", 1000) + b"N.", b"C\x05abcd"],
)  # fmt: skip
def test_a_damaged_pickle_says_so(data):
    said = r"^x: is cut or damaged \(.*\)\. Fetch it again\.$"
    with pytest.raises(DataContractError, match=said) as error:
        read(data)
    assert str(error.value).isprintable()
    assert error.value.public == "x: is cut or damaged"


def test_a_file_that_is_cut_anywhere_is_refused():
    whole = pickle.dumps(([BLOB, np.frombuffer(BLOB, np.uint8)], [True, np.False_]), 4)
    for end in range(len(whole)):
        with pytest.raises(DataContractError, match="cut or damaged"):
            read(whole[:end])


def test_what_follows_the_end_is_not_looked_at():
    assert load(pickle.dumps(([], [])) + b"cos\nsystem\n" * 9**5, "x", 10) == ([], [], 0, 0)


def test_what_is_no_image_or_label_is_named_by_its_type():
    data = pickle.dumps(([BLOB, "a", None, [], {}, 1.5], ["True", 1, None, False]))
    images, labels, *_ = read(data)
    assert images == [BLOB, "str", "NoneType", "list", "dict", "float"]
    assert labels == ["str", "int", "NoneType", False]


def test_only_so_many_are_returned_and_all_are_counted():
    data = pickle.dumps(([BLOB, b"b", b"c"], [True] * 5))
    assert read(data, most=2) == ([BLOB, b"b"], [True, True], 3, 5)


def test_images_of_one_object_are_one_object():
    array = np.frombuffer(BLOB, np.uint8)
    images = load(pickle.dumps(([array] * 500 + [BLOB] * 500, [])), "x", 1000).images
    assert len({id(image) for image in images}) == 2
    assert {*images} == {BLOB}


def test_shared_lists_of_a_billion_leaves_cost_what_they_weigh():
    laughs = b"]" + b"".join(b"q\x01(h\x01h\x01h\x01l" for _ in range(200))
    assert read(b"](" + laughs + b"e]\x86.").images == ["list"] * 201


def test_deep_nesting_ends():
    nested = b"]" + b"\x85" * 200_000
    assert load(b"](" + nested + b"e]\x86.", "x", 10).images == ["tuple"]


TEXT = b"X" + struct.pack("<I", 10**6) + b"a" * 10**6 + b"q\x01"


@pytest.mark.parametrize(
    "data",
    [
        b"]r\xff\xff\xff\xff.",  # a note of a number for which the reader makes room
        b"\x8e" + struct.pack("<Q", 2**40) + b".",
        b"\x96" + struct.pack("<Q", 2**32) + b".",
        b"\x8d" + struct.pack("<Q", 2**40) + b".",
        b"]" * 10_000_000 + b".",
        TEXT + b"c_codecs\nencode\nq\x02Vlatin1\nq\x03" + b"h\x02h\x01h\x03\x86R" * 1000 + b".",
    ],
    ids=["note", "bytes", "bytearray", "text", "lists", "encoded"],
)
@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux only")
def test_a_pickle_that_asks_for_much_memory_is_refused(data):
    with pytest.raises(DataContractError, match=r"^x: .*\. Is it a \.bin of a verification set\?$"):
        load(data, "x", 10)


@pytest.mark.parametrize(
    "answer", [b"", b"[]", b"{}", b"\xff", b'{"sizes": [], "images": [3]}', b'{"sizes": 3}']
)
def test_an_answer_that_no_reader_gives_is_an_error(answer):
    with pytest.raises(SandboxError, match="ended with silence"):
        received(io.BytesIO(answer), "x")


def test_the_process_that_reads_loads_no_torch():
    code = "import sys, fxeval.datasets.restricted_pickle; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
