"""Models that are fit to be explained, and models that are not, whoever explains them."""

from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fxeval.contracts import Faces
from fxeval.datasets.lists.face_pack import FacePack
from fxeval.datasets.lists.lfw import LfwPairs
from fxeval.engine.selection import checked_images
from fxeval.errors import ExplainerContractError, ModelContractError
from fxeval.explainers.excitation_backprop import EBP
from fxeval.explainers.grad_cam import GradCAM
from fxeval.models.admission import Admission, admit
from fxeval.models.black_box import EmbeddingFunction
from fxeval.models.from_card import load_card
from fxeval.models.loading import TorchFaceModel, check_loaded
from fxeval.seeding import generator_of
from fxeval.suite.preflight import SHIPPED_CARDS
from fxeval.tests.subjects import CROP

CPU = torch.device("cpu")


def faces(n: int = 8, people: int | None = None) -> Faces:
    """Smooth images, one for each person unless there are fewer people."""
    coarse = torch.rand(n, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    images = (255 * F.interpolate(coarse, size=CROP.size, mode="bicubic").clamp(0, 1)).byte()
    return Faces("made up", images, tuple(map(str, range(n))), torch.arange(n) % (people or n))


class Net(nn.Module):
    """A small network, seeded, that may be wrapped into anything."""

    def __init__(self, channels: int = 3, dim: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 12, 3, 2, 1)
        self.conv2 = nn.Conv2d(12, 16, 3, 2, 1)
        self.norm = nn.BatchNorm2d(16)
        self.drop = nn.Dropout(0.3)
        self.fc = nn.Linear(16, dim)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for layer in (self.conv1, self.conv2, self.fc):
                for one in layer.parameters():
                    drawn = torch.rand(one.shape, generator=generator) * 2 - 1
                    one.copy_(drawn / layer.weight[0].numel() ** 0.5)

    def features(self, images: Tensor) -> Tensor:
        return self.norm(self.conv2(self.conv1(images * 2 - 1).relu()))

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.drop(self.features(images).relu().mean((2, 3))))


class Wrapped(nn.Module):
    def __init__(self, forward: Callable[[nn.Module, Tensor], object], **net: int) -> None:
        super().__init__()
        self.net, self.body = Net(**net), forward

    def forward(self, images: Tensor) -> object:
        return self.body(self.net, images)


def model_of(module: nn.Module, **also: object) -> TorchFaceModel:
    return TorchFaceModel("own", CROP, module, "cosine", 0.5, "0" * 64, **also)


def admitted(module: nn.Module, **also: object) -> Admission:
    model = model_of(module.eval(), **also)
    check_loaded(model)
    return admit(model, faces(), CPU)


def half_inside() -> nn.Module:
    wrapped = Wrapped(lambda net, x: net(x.half()).float())
    wrapped.net.half()
    return wrapped


def bf16(net: nn.Module, x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return net(x)


def weight_norm() -> nn.Module:
    network = Net()
    nn.utils.parametrizations.weight_norm(network.conv2)
    nn.utils.parametrizations.spectral_norm(network.conv1)
    network(torch.rand(2, 3, *CROP.size))
    return network


class Cached(Net):
    """Keeps a tensor of its first forward pass, as windows and position grids are kept."""

    grid = None

    def features(self, images: Tensor) -> Tensor:
        found = super().features(images)
        if self.grid is None:
            self.grid = torch.linspace(0.5, 1.5, found.shape[-1])[:, None] * torch.ones(4)
        return found * self.grid


class WithoutTruth(Net):
    """A network that has no length, no truth and no equal, as compiled ones have no length."""

    def __bool__(self) -> bool:
        raise TypeError("no truth")

    def __len__(self) -> int:
        raise TypeError("no length")

    def __eq__(self, other: object) -> bool:
        raise TypeError("no equal")

    __hash__ = nn.Module.__hash__


def own_hook() -> nn.Module:
    network = Net()
    network.seen = []
    network.conv2.register_forward_hook(lambda module, i, o: network.seen.append(o))
    return network


FIT = {
    "plain": Net,
    "in training mode before": lambda: Net().train(),
    "half precision inside": half_inside,
    "autocast": lambda: Wrapped(lambda net, x: bf16(net, x).float()),
    "bfloat16 out": lambda: Wrapped(bf16),
    "float64 inside": lambda: Wrapped(lambda net, x: net.double()(x.double()), dim=8),
    "parametrised weights": weight_norm,
    "a tensor kept from the first pass": Cached,
    "no truth, no length": WithoutTruth,
    "a hook of its own": own_hook,
    "many dimensions": lambda: Net(dim=2048),
    "checkpointed": lambda: Wrapped(
        lambda n, x: n.fc(checkpoint(n.features, x, use_reentrant=False).mean((2, 3)))
    ),
    "grey": lambda: Wrapped(lambda net, x: net(x.mean(1, keepdim=True)), channels=1),
    "multiplied": lambda: Wrapped(lambda net, x: net(x) * 900),
}


@pytest.mark.parametrize("make", FIT.values(), ids=FIT)
def test_a_network_is_admitted_however_it_is_made(make):
    found = admitted(make())
    assert found.no_gradient == ""
    assert found.noise == 0.0
    assert found.spread > 0.01
    assert found.n_faces == 8
    assert found.forwards == 3 * 8 + 2


class Counter(Net):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(images)


class PlainCounter(Net):
    calls = 0

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(images)


class Average(Net):
    """Keeps a moving average of its features, in evaluation too."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(16), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        found = self.features(images).mean((2, 3))
        self.mean = 0.9 * self.mean + 0.1 * found.mean(0).detach()
        return self.fc(found - self.mean)


def lazy() -> nn.Module:
    network = Net()
    network.fc = nn.LazyLinear(16)
    return network


def out_of_sight() -> nn.Module:
    hidden = Net()  # no part of what is switched to evaluation mode
    return Wrapped(lambda _, x: hidden(x))


def dynamic() -> nn.Module:
    """Rounds like dynamic quantisation: by the range of the whole batch."""
    return Wrapped(lambda net, x: (net(x) / (step := net(x).abs().max() / 15)).round() * step)


pair = namedtuple("pair", "length vector")


@dataclass
class Output:
    pooled: Tensor
    hidden: Tensor


UNFIT = {
    "the length first": (
        lambda: Wrapped(lambda net, x: (net(x).norm(dim=1), net(x))),
        r"got a tuple of 2 outputs: '0' \(2,\), '1' \(2, 16\)\. Pick it: .*output=1\)",
    ),
    "a mapping": (
        lambda: Wrapped(lambda net, x: {"embedding": net(x)}),
        r"got a dict of 1 output: 'embedding' \(2, 16\)\. Pick it: .*output='embedding'\)",
    ),
    "two candidates": (
        lambda: Wrapped(lambda net, x: [net(x), net(x)]),
        r"Pick the embeddings: TorchFaceModel\(\.\.\., output=\.\.\.\), one of 0, 1",
    ),
    "no candidate": (
        lambda: Wrapped(lambda net, x: (net(x)[:, 0], x)),
        r"None of them is \(2, D\)",
    ),
    "a map": (
        lambda: Wrapped(lambda net, x: net(x)[:, :, None, None]),
        r"got \(2, 16, 1, 1\)\. Flatten it",
    ),
    "one number": (
        lambda: Wrapped(lambda net, x: net(x)[:, :1]),
        "at least 2 numbers, got 1 number",
    ),
    "whole numbers": (lambda: Wrapped(lambda net, x: (net(x) * 100).int()), "must be float"),
    "complex numbers": (lambda: Wrapped(lambda net, x: net(x) + 1j), "must be float"),
    "half weights": (lambda: Net().half(), r"\. Its weights are float16 .* network\.float\(\)"),
    "double weights": (lambda: Net().double(), r"\. Its weights are float64"),
    "1 channel": (
        lambda: Net(channels=1),
        r"\. It expects images of 1 channel, .* network\(images\.mean\(1, keepdim=True\)\)",
    ),
    "channels last": (
        lambda: Wrapped(lambda net, x: net(x.permute(0, 3, 1, 2).reshape(len(x), 3, *CROP.size))
                        if x.shape[-1] == 3 else 1 / 0),
        r"It expects images \(N, H, W, 3\)",
    ),
    "one image": (
        lambda: Wrapped(lambda net, x: net(x) if len(x) == 1 else net(x).view(1, 16)),
        "It embeds one image, but not 2 at once",
    ),
    "overflow": (
        lambda: Wrapped(lambda net, x: (net(x) * 1e6).half()),
        "NaN or infinite .* half precision, which ends at 65504",
    ),
    "long": (
        lambda: Wrapped(lambda net, x: net(x) * 1e25),
        r"lengths from 1e-06 to 1e\+12, got .*e\+24 to",
    ),
    "short": (lambda: Wrapped(lambda net, x: net(x) * 1e-12), r"got .*e-13 to"),
    "very short": (lambda: Wrapped(lambda net, x: net(x) * 1e-25), r"got .*e-26 to"),
    "0 to 255": (
        lambda: Wrapped(lambda net, x: net(x / 255)),
        r"nearly the same: they differ by .* With its input times 255 they differ by .* 0 to 255",
    ),
    "bytes": (
        lambda: Wrapped(lambda net, x: net(x.to(torch.uint8).float() / 255)),
        "got the same",
    ),
    "saturated": (
        lambda: Wrapped(lambda net, x: 5 + 1e-3 * net(x)),
        "nearly the same.* The weights are missing or wrong",
    ),
    "a counter": (Counter, "changes the network: its 'calls'"),
    "a plain counter": (PlainCounter, "changes the network: its attribute calls"),
    "a moving average": (Average, "changes the network: its 'mean'"),
    "dropout of a part that is out of sight": (out_of_sight, "differ between two calls"),
    "dropout": (
        lambda: Wrapped(lambda net, x: F.dropout(net(x), 0.3)),
        "differ between two calls .* draws random numbers",
    ),
    "the range of the batch": (dynamic, r"on the other images in its batch: .* its forward"),
    "the first of the batch": (
        lambda: Wrapped(lambda net, x: net(x) - 0.5 * net(x[:1])),
        "depends on the other images",
    ),
    "lazy": (lazy, r"its 'fc\.weight' has no values yet: a lazy layer"),
    "meta": (lambda: Net().to("meta"), "on the meta device"),
    "writes": (lambda: Wrapped(lambda net, x: net(x.sub_(0.1))), "writes into the images"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "message"), UNFIT.values(), ids=UNFIT)
def test_a_model_with_a_fault_is_refused_by_its_name_with_what_to_do(make, message: str):
    with pytest.raises(ModelContractError, match=f"(?i)^model 'own': .*{message}"):
        admitted(make())


def test_a_network_that_was_refused_is_left_as_it_was():
    network = Counter().eval()
    check_loaded(model_of(network))
    before = network.calls.clone()
    with pytest.raises(ModelContractError, match="'calls'"):
        admit(model_of(network), faces(), CPU)
    assert torch.equal(network.calls, before)


def numpy_inside(net: nn.Module, x: Tensor) -> Tensor:
    return torch.from_numpy(net(x).detach().numpy())


def no_grad(net: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return net(x)


def made_in_inference_mode() -> nn.Module:
    with torch.inference_mode():
        return Net()


class CachedInInferenceMode(Cached):
    def features(self, images: Tensor) -> Tensor:
        with torch.inference_mode():
            self.grid = torch.linspace(0.5, 1.5, 4)
        return self.norm(self.conv2(self.conv1(images).relu()) * self.grid)


NO_GRADIENT = {
    "no_grad": (lambda: Wrapped(no_grad), "have no gradient"),
    "numpy": (lambda: Wrapped(numpy_inside), "have no gradient"),
    "detached": (
        lambda: Wrapped(lambda net, x: net.fc(net.features(x).detach().mean((2, 3)))),
        "no gradient with respect to the image",
    ),
    "rounds": (lambda: Wrapped(lambda net, x: net((x * 63).round() / 63)), "0 at every pixel"),
    "made in inference mode": (made_in_inference_mode, r"torch\.inference_mode"),
    "keeps a tensor of inference mode": (CachedInInferenceMode, r"torch\.inference_mode"),
    "NaN": (lambda: Wrapped(lambda net, x: net(x * (0 * x).sqrt().add(1))), "NaN or infinite"),
    "reentrant": (
        lambda: Wrapped(lambda n, x: n.fc(checkpoint(n.features, x, use_reentrant=True)
                                          .mean((2, 3)))),
        "autograd fails: RuntimeError",
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize(("make", "reason"), NO_GRADIENT.values(), ids=NO_GRADIENT)
def test_a_network_without_gradients_is_admitted_and_says_why(make, reason: str):
    found = admitted(make())
    assert reason.replace("\\", "") in found.no_gradient


@pytest.mark.parametrize(
    ("forward", "output"),
    [
        (lambda net, x: (net(x).norm(dim=1), net(x)), 1),
        (lambda net, x: {"length": net(x).norm(dim=1), "embedding": net(x)}, "embedding"),
        (lambda net, x: pair(net(x).norm(dim=1), net(x)), "vector"),
        (lambda net, x: pair(net(x).norm(dim=1), net(x)), 1),
        (lambda net, x: Output(net(x), net.features(x)), "pooled"),
    ],
)
def test_one_of_several_outputs_is_picked_by_name_or_place(forward, output):
    model = model_of(Wrapped(forward).eval(), output=output)
    images = torch.rand(2, 3, *CROP.size)
    assert torch.equal(model.embed(images), Net().eval()(images))
    assert torch.equal(model.module(images), Net().eval()(images))
    assert replace(model, name="other").module is model.module
    assert admitted(Wrapped(forward), output=output).no_gradient == ""


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("embeding", r"a dict of 2 outputs: 'length' \(2,\), 'embedding' \(2, 16\)\. Did you mean"),
        (2, "a dict of 2 outputs"),
        (-1, "a dict of 2 outputs"),
    ],
)
def test_an_output_that_is_not_there_is_told_with_those_that_are(output, message: str):
    network = Wrapped(lambda net, x: {"length": net(x).norm(dim=1), "embedding": net(x)})
    with pytest.raises(ModelContractError, match=message):
        check_loaded(model_of(network, output=output))
    with pytest.raises(ModelContractError, match=r"one output, a tensor .* leave 'output' out"):
        check_loaded(model_of(Net(), output=output))


def test_a_model_in_training_mode_is_told_to_leave_it():
    @dataclass
    class Own:
        """A model that never switches to evaluation mode."""

        module: nn.Module
        name = "own"
        crop, similarity, operating_threshold, digest = CROP, "cosine", None, "0"

        def embed(self, images: Tensor) -> Tensor:
            with torch.no_grad():
                return self.module(images)

    with pytest.raises(ModelContractError, match=r"network\.eval\(\)"):
        admit(Own(Net().train()), faces(), CPU)


def box(function, **also) -> EmbeddingFunction:
    return EmbeddingFunction("own", CROP, function, "cosine", "1", **also)


def means(images: Tensor) -> Tensor:
    return images.unflatten(2, (4, 4)).unflatten(4, (4, 4)).mean((3, 5)).flatten(1) - 0.5


def noisy(spread: float) -> Callable[[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(0)
    return lambda x: means(x) + spread * torch.randn(means(x).shape, generator=generator)


def test_the_noise_of_a_black_box_is_measured_and_bounded_by_what_tells_people_apart():
    assert admit(box(means), faces(), CPU).noise == 0.0
    found = admit(box(noisy(0.01)), faces(), CPU)
    assert 0.001 < found.noise < found.noise_allowed
    with pytest.raises(ModelContractError, match=r"embedded twice, .* differ by up to") as caught:
        admit(box(noisy(0.3)), faces(), CPU)
    assert "network" not in str(caught.value)


def test_a_black_box_is_never_told_to_switch_a_network():
    with pytest.raises(ModelContractError, match="batch_size=1") as caught:
        admit(box(lambda x: means(x) - means(x).mean(0)), faces(), CPU)
    assert "eval" not in str(caught.value)
    admit(box(lambda x: means(x) / means(x).abs().max(), batch_size=1), faces(), CPU)


def test_one_person_says_nothing_about_people_and_does_not_hurt():
    found = admit(model_of(Net().eval()), faces(4, people=1), CPU)
    assert np.isnan(found.spread)
    assert admit(model_of(Net().eval()), faces(1), CPU).n_faces == 2


def test_each_person_is_shown_once_before_one_is_shown_twice():
    seen = []

    def embed(images):
        seen.append(images)
        return means(images)

    shown = faces(12, people=3)
    found = admit(box(embed), shown, CPU, at_once=4)
    expected = shown.images[[0, 1, 2, 3]].float() / 255
    assert found.n_faces == 4
    assert torch.equal(seen[0], expected)


def test_layers_that_hooks_do_not_see_are_told_from_layers_that_are_too_small():
    def unseen(net, x):
        return F.conv2d(x, net.conv1.weight, stride=8).flatten(1)

    explainer, images = GradCAM(), torch.rand(2, 3, *CROP.size)
    with pytest.raises(ExplainerContractError, match=r"see no layer .* torch\.compile made"):
        explainer.explain(model_of(Wrapped(unseen)), images, images, generator=generator_of("x", 0))


def test_a_network_of_half_precision_is_named_where_shares_of_excitation_vanish():
    reason = EBP().unsupported(model_of(half_inside().eval()))
    assert reason == (
        "its weights are float16, in which the shares of excitation become 0. Convert the network "
        "with network.float()."
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED_CARDS)
def test_every_real_network_is_admitted_with_a_wide_margin(name: str, data_root: Path):
    card = SHIPPED_CARDS[name]
    own = card.with_suffix(".safetensors").exists()
    model = load_card(card, card.parent if own else data_root / "weights")
    rendered = FacePack(Path(str(files("fxeval.fixtures"))) / "data" / "rendered_faces")
    real = LfwPairs(data_root, errata_file=Path("pairs/lfw_errata.txt"))
    for source in (rendered, real):
        listing = source.listing()
        first = {who: one for one, who in zip(listing.probe, listing.probe_identity, strict=True)}
        images = checked_images(source, list(first.values())[:8], model.crop)
        found = admit(model, Faces("some", images, tuple(map(str, range(8))), torch.arange(8)), CPU)
        assert found.spread > 2 * 0.2
        assert found.no_gradient == ""
        assert found.noise == 0.0
        assert 0.1 < found.lengths[0] < found.lengths[1] < 1000
