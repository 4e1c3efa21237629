"""ONNX files that must not reach a runtime."""

import contextlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from fxeval.errors import ModelContractError  # noqa: E402
from fxeval.models.files import onnx_bounds, onnx_file  # noqa: E402
from fxeval.models.files.onnx_bounds import printable  # noqa: E402
from fxeval.models.files.onnx_file import read_onnx  # noqa: E402
from fxeval.models.files.onnx_layout import ImageInput  # noqa: E402
from fxeval.models.files.onnx_loading import load_onnx  # noqa: E402
from fxeval.tests.effort import at_most_bytes, at_most_calls  # noqa: E402
from fxeval.tests.onnx_subjects import facts, small, weight  # noqa: E402

SMALL = small().SerializeToString()


def refusal(edit) -> str:
    data = edit if isinstance(edit, bytes) else small(edit).SerializeToString()
    with pytest.raises(ModelContractError) as caught:
        load_onnx(data, "net.onnx", facts())
    message = str(caught.value)
    assert message.startswith("net.onnx: ")
    assert message.isprintable()
    assert len(message) < 600
    assert not any(bug in message for bug in ("NameError", "AttributeError"))  # of fxeval itself
    return message


def stored(proto, name):
    return next(one for one in proto.graph.initializer if one.name == name)


def node(proto, kind):
    return next(one for one in proto.graph.node if one.op_type == kind)


def put(proto, *nodes):
    """Put nodes before all others."""
    rest = list(proto.graph.node)
    copies = [type(one).FromString(one.SerializeToString()) for one in rest]
    proto.graph.ClearField("node")
    proto.graph.node.extend([*nodes, *copies])


def test_the_small_graph_is_read():
    found = read_onnx(SMALL, "net.onnx", facts().expected)
    assert (found.output, found.batch, found.opset, found.alone) == ("e", None, 13, "")
    assert found.images == ImageInput("x", channels_last=False, dtype="float32", batch=None)
    assert len(found.proto.graph.node) == 11
    assert found.proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "n"


def test_what_a_graph_does_not_need_for_the_wanted_output_is_dropped():
    def two(proto):
        proto.graph.output.add().CopyFrom(
            helper.make_tensor_value_info("r", TensorProto.FLOAT, ["n", 32])
        )

    data = small(two).SerializeToString()
    kept = read_onnx(data, "net.onnx", facts(output="r").expected)
    assert [one.name for one in kept.proto.graph.output] == ["r"]
    assert [one.op_type for one in kept.proto.graph.node][-1] == "Reshape"
    with pytest.raises(ModelContractError) as caught:
        read_onnx(data, "net.onnx", facts().expected)
    assert str(caught.value) == (
        'net.onnx: the network has 2 outputs: "e" (?, 5), "r" (?, 32). Say in the card which of '
        "them holds the embeddings: 'output: \"e\"' or 'output: \"r\"'."
    )
    with pytest.raises(
        ModelContractError, match=r'no output "norm"; it has "e" .*Correct \'output'
    ):
        read_onnx(data, "net.onnx", facts(output="norm").expected)


@pytest.mark.parametrize("data", [b"", b"\x00", b"not a network", b"{}", b"\x3a\xff\xff\xff\x7f"])
def test_bytes_that_are_no_graph_are_refused(data: bytes):
    refusal(data)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(share: float):
    assert "truncated or damaged" in refusal(SMALL[: int(len(SMALL) * share)])


def test_tensors_in_other_files_are_refused_by_name_wherever_they_are():
    def outside(tensor, name="passwd"):
        tensor.name = name
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="/etc/passwd")

    def of_graph(proto):
        outside(stored(proto, "w2"), "w2")

    def of_constant(proto):
        value = weight("c", 2)
        outside(value)
        put(proto, helper.make_node("Constant", [], ["c"], value=value))

    def of_branch(proto):
        value = weight("c", 2)
        outside(value)
        inner = helper.make_graph([], "inner", [], [], [value])
        put(proto, helper.make_node("If", ["x"], ["c"], then_branch=inner, else_branch=inner))

    def half_said(proto):
        stored(proto, "b1").external_data.add(key="location", value="b1.bin")

    def nowhere(proto):
        stored(proto, "b1").data_location = TensorProto.EXTERNAL

    assert "tensor 'b1' is stored in another file" in refusal(nowhere)
    assert "tensor 'w2' is stored in another file" in refusal(of_graph)
    assert "tensor 'passwd' is stored in another file" in refusal(of_constant)
    assert "tensor 'passwd' is stored in another file" in refusal(of_branch)
    assert "tensor 'b1' is stored in another file" in refusal(half_said)


def test_fields_that_nobody_checked_reach_no_runtime():
    unknown = b"\xc0\x3e\x01"  # field 1000, the number 1
    found = read_onnx(SMALL + unknown, "net.onnx", facts().expected).proto.SerializeToString()
    assert found == read_onnx(SMALL, "net.onnx", facts().expected).proto.SerializeToString()


def test_operators_that_are_not_onnx_s_own_are_refused_by_name():
    def custom(proto):
        node(proto, "Clip").domain = "com.microsoft"
        proto.opset_import.add(domain="com.microsoft", version=1)

    message = refusal(custom)
    assert "'Clip' of 'com.microsoft'" in message
    assert "QuantFormat.QDQ" in message


@pytest.mark.parametrize("kind", ["Loop", "Scan", "SequenceMap"])
def test_a_graph_that_may_never_end_is_refused(kind: str):
    assert f"'{kind}'" in refusal(lambda proto: put(proto, helper.make_node(kind, [""], ["c"])))


def test_the_long_name_of_onnx_s_own_operators_is_theirs_too():
    def spelt_out(proto):
        for one in (*proto.graph.node, *proto.opset_import):
            one.domain = "ai.onnx"

    found = load_onnx(small(spelt_out).SerializeToString(), "net.onnx", facts())
    assert found.traits.runtime.startswith("onnxruntime ")


def functions(proto, bodies):
    """Turn node ``Clip`` into a call of ``f0``, and let ``f<i>`` call the functions in its body."""
    clip = node(proto, "Clip")
    clip.op_type, clip.domain = "f0", "mine"
    del clip.input[1:]
    proto.opset_import.add(domain="mine", version=1)
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("mine", 1)]
    for i, calls in enumerate(bodies):
        nodes, last = [], "in"
        for k, call in enumerate(calls):
            domain = "" if call == "Relu" else "mine"
            nodes.append(helper.make_node(call, [last], [f"t{k}"], domain=domain))
            last = f"t{k}"
        proto.functions.append(helper.make_function("mine", f"f{i}", ["in"], [last], nodes, opsets))


def test_functions_of_the_file_are_written_out():
    data = small(lambda proto: functions(proto, [["f1", "f1"], ["Relu"]])).SerializeToString()
    found = read_onnx(data, "net.onnx", facts().expected)
    assert [one.op_type for one in found.proto.graph.node].count("Relu") == 2
    assert not found.proto.functions
    load_onnx(data, "net.onnx", facts())


CALLS = 500_000  # normal files of this size need far fewer; the bombs would need billions
BYTES = 100 << 20


def test_functions_that_grow_beyond_bounds_are_refused_at_once():
    doubling = [[f"f{i + 1}"] * 2 for i in range(25)] + [["Relu"]]
    deep = [[f"f{i + 1}"] for i in range(200)] + [["Relu"]]
    with at_most_calls(CALLS):
        assert "at most 100000 nodes" in refusal(lambda proto: functions(proto, doubling))
        assert "more than 30 deep" in refusal(lambda proto: functions(proto, deep))
        assert "calls itself" in refusal(lambda proto: functions(proto, [["f1"], ["f0"]]))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", [np.float32, np.float16, np.float64])
def test_weights_that_are_not_finite_are_counted_and_named(value: float, kind: type):
    def spoil(proto):
        values = numpy_helper.to_array(stored(proto, "w2")).astype(kind)
        values[1, :3] = value
        stored(proto, "w2").CopyFrom(numpy_helper.from_array(values, "w2"))

    assert "3 of 160 values of tensor 'w2' are NaN or infinite" in refusal(spoil)


def test_a_bound_may_be_infinite_but_not_nan():
    def bound(value):
        def edit(proto):
            stored(proto, "high").CopyFrom(numpy_helper.from_array(np.float32(value), "high"))

        return edit

    load_onnx(small(bound(np.inf)).SerializeToString(), "net.onnx", facts())
    assert "tensor 'high'" in refusal(bound(np.nan))


def test_large_doubles_and_small_floats_are_finite():
    def other(kind):
        def edit(proto):
            values = np.array([1e300 if kind == TensorProto.DOUBLE else 2.0] * 3)
            proto.graph.initializer.append(helper.make_tensor("other", kind, [3], values))

        return edit

    for kind in (TensorProto.DOUBLE, TensorProto.BFLOAT16, TensorProto.FLOAT8E4M3FN):
        read_onnx(small(other(kind)).SerializeToString(), "net.onnx", facts().expected)


def test_nan_in_bfloat16_is_found():
    def edit(proto):
        values = np.array([1.0, np.nan, 2.0])
        tensor = helper.make_tensor("other", TensorProto.BFLOAT16, [3], values)
        proto.graph.initializer.append(tensor)

    assert "1 of 3 values of tensor 'other'" in refusal(edit)


def test_sparse_tensors_are_refused():
    def sparse(proto):
        one = proto.graph.sparse_initializer.add(dims=[1 << 20, 1 << 20])
        one.values.CopyFrom(weight("huge", 1))
        one.indices.CopyFrom(numpy_helper.from_array(np.array([0]), "at"))

    assert "sparse" in refusal(sparse)


@pytest.mark.parametrize(
    ("dims", "kind", "words"),
    [
        (
            [3, 16, 16],
            1,
            "images (N, 3, H, W) as float32, float16, float64 or uint8, got float32 (3",
        ),
        (["n", 3, 16, 16], 3, "got int8 (?, 3, 16, 16)"),
        (["n", 3, 16, 16], 16, "got bfloat16"),
        (["n", 1, 16, 16], 1, "takes 1 channel, and the colour RGB gives 3. Write 'colour: grey' "),
        (["n", 5, 16, 16], 1, "expected images of one or three channels, got 5 in float32"),
        (["n", 16, 16, 1], 1, "takes 1 channel, and the colour RGB gives 3"),
        (["n", 3, 112, 112], 1, "the crop's 16 x 16 pixels, got float32 (?, 3, 112, 112)"),
        (["n", 112, 112, 3], 1, "the crop's 16 x 16 pixels, got float32 (?, 112, 112, 3)"),
    ],
)
def test_an_input_that_is_not_the_images_is_refused(dims, kind, words: str):
    def other(proto):
        proto.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", kind, dims))

    assert words in refusal(other)


def test_a_second_input_is_refused_by_name():
    def second(proto):
        proto.graph.input.add().CopyFrom(
            helper.make_tensor_value_info("age", TensorProto.FLOAT, [1])
        )

    assert "got 2 (x, age)" in refusal(second)


def test_weights_that_are_listed_as_inputs_are_none():
    def old(proto):
        for one in proto.graph.initializer:
            proto.graph.input.add().CopyFrom(
                helper.make_tensor_value_info(one.name, one.data_type, list(one.dims))
            )

    load_onnx(small(old).SerializeToString(), "net.onnx", facts())


def test_a_file_must_say_its_operators_version():
    assert "(opset), got []" in refusal(lambda proto: proto.ClearField("opset_import"))
    assert "(opset), got [13, 14]" in refusal(
        lambda proto: proto.opset_import.add(domain="ai.onnx", version=14)
    )


def test_few_bytes_that_mean_terabytes_are_refused_before_anything_is_made():
    def constant(proto):
        shape = numpy_helper.from_array(np.array([1 << 28, 1, 1, 1]), "big")
        proto.graph.initializer.append(shape)
        put(proto, helper.make_node("ConstantOfShape", ["big"], ["c"]))
        node(proto, "Mul").input[1] = "c"

    def padding(proto):
        values = np.array([0, 0, 1 << 40, 0, 0, 0, 1, 1])
        stored(proto, "pads").CopyFrom(numpy_helper.from_array(values, "pads"))

    def announced(proto):
        stored(proto, "w2").dims[0] = 1 << 40

    def doubling(proto):
        proto.graph.initializer.append(numpy_helper.from_array(np.ones(2, np.int64), "d0"))
        chain = [
            helper.make_node("Concat", [f"d{i}"] * 2, [f"d{i + 1}"], axis=0) for i in range(40)
        ]
        put(proto, *chain)
        node(proto, "Reshape").input[1] = "d40"

    with at_most_calls(CALLS), at_most_bytes(BYTES):
        for bomb in (constant, padding, doubling):
            assert "numbers in the intermediate tensors" in refusal(bomb)
        assert "reshape" in refusal(announced)


def test_small_files_that_would_parse_into_large_ones_are_refused_before_parsing(monkeypatch):
    empty_nodes = b"\x0a\x00" * (onnx_bounds.MAX_FIELDS + 1)
    length, size = len(empty_nodes), []
    while length:
        size.append(length & 127 | 128)
        length >>= 7
    size[-1] &= 127
    with at_most_calls(5 * onnx_bounds.MAX_FIELDS), at_most_bytes(BYTES):
        assert "at most 500000 fields" in refusal(b"\x3a" + bytes(size) + empty_nodes)
    monkeypatch.setattr(onnx_file, "MAX_BYTES", 100)
    assert "at most 100 bytes" in refusal(SMALL)
    monkeypatch.setattr(onnx_file, "MAX_BYTES", 1 << 20)
    monkeypatch.setattr(onnx_bounds, "MAX_LOOSE_BYTES", 10)
    assert "10 bytes besides its tensors" in refusal(SMALL)


def test_what_the_checker_or_the_runtime_says_is_passed_on_short_and_printable():
    def unknown(proto):
        node(proto, "Clip").op_type = "Clap\x1b[31m" + "p" * 3000

    assert "No Op registered for Clap" in refusal(unknown)
    assert printable("a\x1b[31m\n\tb" + "c" * 100) == "a [31m b" + "c" * 49 + "..."


def test_an_old_library_is_refused(monkeypatch):
    monkeypatch.setattr(onnx, "__version__", "1.20.9")
    with pytest.raises(ModelContractError, match=r"expected onnx 1\.21 or newer, got 1\.20\.9"):
        load_onnx(SMALL, "net.onnx", facts())


@pytest.mark.parametrize("library", ["onnx", "onnxruntime"])
def test_a_missing_library_is_named_with_what_to_install(monkeypatch, library: str):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ModelContractError, match=rf"'{library}'.*pip install fxeval\[onnx\]"):
        load_onnx(SMALL, "net.onnx", facts())


def check(data: bytes) -> bool:
    """Return whether a damaged file still loads; a refusal is the only allowed error."""
    with contextlib.suppress(ModelContractError):
        load_onnx(data, "net.onnx", facts())
        return True
    return False


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_damaged_bytes_load_or_are_refused(data):
    content = bytearray(SMALL)
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(content) - 1))
        end = at + data.draw(st.integers(0, 3))
        content[at:end] = data.draw(st.binary(min_size=0, max_size=3))
    check(bytes(content))


def mutants(first: int, count: int) -> subprocess.CompletedProcess:
    """Load mutants in a separate process, because a crash of the runtime would end pytest."""
    script = (
        "import warnings; warnings.simplefilter('error')\n"
        "from fxeval.tests.onnx_subjects import mutated\n"
        "from fxeval.tests.models.test_onnx_file import check\n"
        f"print(sum(check(mutated(seed)) for seed in range({first}, {first + count})))"
    )
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=600, check=False
    )


def test_files_with_changed_fields_load_or_are_refused_and_crash_nothing():
    done = mutants(0, 200)
    assert done.returncode == 0, done.stderr
    assert 0 < int(done.stdout) < 100  # both happen
    assert done.stderr == ""


@pytest.mark.slow
def test_many_files_with_changed_fields_load_or_are_refused_and_crash_nothing():
    done = mutants(200, 2000)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
