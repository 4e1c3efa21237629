"""How ONNX graphs take their images: layout, channels, type, batch; by what they are run."""

import re

import numpy as np
import pytest
import torch

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from fxeval.errors import ModelContractError  # noqa: E402
from fxeval.models.files.onnx_loading import load_onnx  # noqa: E402
from fxeval.models.preprocessing import LUMA, Preprocessing  # noqa: E402
from fxeval.tests.onnx_subjects import RAW, SIZE, facts, small  # noqa: E402
from fxeval.tests.rounding import assert_rounded  # noqa: E402

TERMS = 27 + 9 + 6 + 32  # of the convolution, the poolings and the last layer of the small graph
FULL = f"onnxruntime {onnxruntime.__version__}"


def load(edit=lambda proto: None, **changes):
    return load_onnx(small(edit).SerializeToString(), "net.onnx", facts(**changes))


def noise(n: int = 3) -> torch.Tensor:
    return torch.rand(n, 3, *SIZE, generator=torch.Generator().manual_seed(0))


def images_of(proto, dims, kind=TensorProto.FLOAT) -> None:
    proto.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", kind, dims))


def before_the_rest(proto, *nodes) -> None:
    """Put nodes in front; the first takes the images, the last makes ``ready``."""
    rest = [type(one).FromString(one.SerializeToString()) for one in proto.graph.node]
    rest[0].input[0] = "ready"
    proto.graph.ClearField("node")
    proto.graph.node.extend([*nodes, *rest])


def last(*dims, before=()):
    """A graph whose images are channels last, of the declared shape."""

    def edit(proto):
        images_of(proto, dims)
        start = before[-1].output[0] if before else "x"
        turned = helper.make_node("Transpose", [start], ["ready"], perm=[0, 3, 1, 2])
        before_the_rest(proto, *before, turned)

    return edit


@pytest.mark.parametrize(
    "dims", [("n", 16, 16, 3), ("n", "h", "w", 3), ("n", "h", "w", "c"), (1, None, None, None)]
)
def test_images_with_channels_last_are_told_by_shape_or_by_the_first_operators(dims):
    assert torch.equal(load(last(*dims)).embed(noise()), load().embed(noise()))


def test_the_layout_is_found_behind_operators_of_each_pixel():
    scaled = helper.make_node("Mul", ["x", "low"], ["mirrored"])
    typed = helper.make_node("Cast", ["mirrored"], ["typed"], to=TensorProto.FLOAT)
    found = load(last("n", "h", "w", "c", before=(scaled, typed)))
    assert found.images.channels_last

    def first(proto):
        images_of(proto, ("n", "c", "h", "w"))

    assert not load(first).images.channels_last


def test_a_layout_that_nothing_tells_is_asked_for():
    def unclear(proto):
        images_of(proto, ("n", "a", "b", "c"))
        before_the_rest(proto, helper.make_node("Abs", ["x"], ["ready"]))

    with pytest.raises(ModelContractError) as caught:
        load(unclear)
    assert str(caught.value) == (
        "net.onnx: neither the shape nor the first operators say where the channels are, got "
        "float32 (?, ?, ?, ?) in 'x'. Write 'layout: NCHW' (channels first) or 'layout: NHWC' "
        "(channels last) into the card."
    )
    assert torch.equal(load(unclear, layout="NCHW").embed(noise()), load().embed(noise()))
    with pytest.raises(ModelContractError, match=r"a usable ONNX model|cannot embed"):
        load(unclear, layout="NHWC")
    with pytest.raises(ModelContractError, match="says 'layout: NHWC', and the shape says NCHW"):
        load(layout="NHWC")


# channels and types


def test_a_grey_graph_sees_the_luma():
    def kernel(proto, change):
        stored = next(one for one in proto.graph.initializer if one.name == "w1")
        values = change(numpy_helper.to_array(stored)[:, :1])
        stored.CopyFrom(numpy_helper.from_array(values.astype(np.float32), "w1"))

    def grey(proto):
        kernel(proto, lambda one: one)
        images_of(proto, ("n", 1, *SIZE))

    def weighted(proto):
        kernel(proto, lambda one: one * np.array(LUMA).reshape(1, 3, 1, 1))

    unit = Preprocessing("grey", (0.0,), (255.0,))
    found = load(grey, preprocessing=unit).embed(noise())
    assert_rounded(found, load(weighted).embed(noise()), terms=2 * TERMS)
    with pytest.raises(ModelContractError, match="takes 1 channel, and the colour RGB gives 3"):
        load(grey)
    with pytest.raises(ModelContractError, match=r"takes 3 channels, and the colour grey gives 1"):
        load(preprocessing=unit)

    def unsaid(proto):  # only the first convolution says it
        grey(proto)
        images_of(proto, ("n", "c", "h", "w"))

    with pytest.raises(ModelContractError, match="takes 1 channel, and the colour RGB gives 3"):
        load(unsaid)
    assert torch.equal(load(unsaid, preprocessing=unit).embed(noise()), found)


def typed(kind: int, dims=("n", 3, *SIZE)):
    def edit(proto):
        images_of(proto, dims, kind)
        before_the_rest(proto, helper.make_node("Cast", ["x"], ["ready"], to=TensorProto.FLOAT))

    return edit


def test_images_in_half_and_double_precision_are_taken():
    double = load(typed(TensorProto.DOUBLE)).embed(noise())
    assert torch.equal(double, load().embed(noise()))
    half = load(typed(TensorProto.FLOAT16)).embed(noise())
    assert torch.equal(half, load().embed(noise().half().float()))


def test_whole_pixels_are_rounded_and_not_normalised():
    whole = load(typed(TensorProto.UINT8), preprocessing=RAW)
    pixels = torch.randint(0, 256, (3, 3, *SIZE), generator=torch.Generator().manual_seed(0))
    expected = load(preprocessing=RAW).embed(pixels / 255)
    assert_rounded(whole.embed(pixels / 255), expected, terms=2 * TERMS)
    assert torch.equal(whole.embed((pixels + 0.4) / 255), whole.embed(pixels / 255))
    with pytest.raises(
        ModelContractError, match=r"whole numbers from 0 to 255.*Write 'mean: 0' an"
    ):
        load(typed(TensorProto.UINT8))


def test_weights_in_half_precision_are_said():
    def half(proto):
        stored = next(one for one in proto.graph.initializer if one.name == "w1")
        values = numpy_helper.to_array(stored).astype(np.float16)
        stored.CopyFrom(numpy_helper.from_array(values, "half"))
        cast = helper.make_node("Cast", ["half"], ["w1"], to=TensorProto.FLOAT)
        copies = [type(one).FromString(one.SerializeToString()) for one in proto.graph.node]
        proto.graph.ClearField("node")
        proto.graph.node.extend([cast, *copies])

    expected = f"{FULL}; the weights are stored in float16 and float32"
    assert load(half).traits.runtime == expected
    assert load().traits.runtime == FULL


# batches


@pytest.mark.parametrize("batch", [1, 4])
def test_a_graph_for_a_fixed_batch_is_given_such_batches(batch: int):
    def fixed(proto):
        images_of(proto, (batch, 3, *SIZE))
        proto.graph.output[0].type.tensor_type.shape.dim[0].dim_value = batch

    for n in (1, 4, 6):
        assert_rounded(load(fixed).embed(noise(n)), load().embed(noise(n)), terms=TERMS)


def quantised(proto):
    """Images quantised by the range of the whole batch, as dynamic quantisation does."""
    proto.graph.value_info.clear()
    scaled = helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"])
    back = helper.make_node("DequantizeLinear", ["q", "s", "z"], ["ready"])
    before_the_rest(proto, scaled, back)


def by_hand(proto):
    """The same of other operators."""
    highest = helper.make_node("ReduceMax", ["x"], ["most"], keepdims=1)
    before_the_rest(proto, highest, helper.make_node("Div", ["x", "most"], ["ready"]))


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (quantised, "DynamicQuantizeLinear takes its scale from the whole batch"),
        (by_hand, "the embedding of an image depends on the other images in its batch"),
    ],
)
def test_a_graph_that_mixes_its_batch_is_given_one_image_at_a_time_and_says_so(edit, why: str):
    model = load(edit)
    assert model.traits.runtime == f"{FULL}; one image at a time, because {why}"
    images = noise(4) * torch.tensor([1, 0.5, 0.1, 0.8]).reshape(4, 1, 1, 1)
    alone = torch.cat([model.embed(one) for one in images.split(1)])
    assert torch.equal(model.embed(images), alone)
    assert torch.equal(model.embed(images.flip(0)), alone.flip(0))


def test_a_graph_in_training_mode_is_refused():
    def training(proto):
        node = next(one for one in proto.graph.node if one.op_type == "BatchNormalization")
        node.attribute.append(helper.make_attribute("training_mode", 1))
        node.output.extend(["running_mean", "running_var"])
        proto.opset_import[0].version = 15

    with pytest.raises(ModelContractError, match=r"in training mode, .* Call network\.eval\(\)"):
        load(training)


# what runs it


def test_operators_of_onnx_runtime_s_own_are_refused_with_the_way_out():
    def own(proto):
        proto.graph.node[-1].domain = "com.microsoft"
        proto.graph.node[-1].op_type = "QGemm"
        proto.opset_import.add(domain="com.microsoft", version=1)

    with pytest.raises(ModelContractError, match=r"'QGemm' of 'com\.microsoft'.*QuantFormat\.QDQ"):
        load(own)


def test_a_black_box_by_default_says_why_it_is_one():
    model = load(typed(TensorProto.UINT8), preprocessing=RAW, runtime="auto")
    reason = r"; without gradients, because the graph takes whole numbers \(uint8\)"
    assert re.search(reason, model.traits.runtime)
    assert load(preprocessing=RAW).traits.runtime == FULL  # it was asked for
