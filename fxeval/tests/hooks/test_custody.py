"""Every change of a lent module is reported, and undone to the last bit."""

import functools

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from fxeval.hooks import custody as custody_module
from fxeval.hooks.custody import Custody

BATCH = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(5))


class Net(nn.Module):
    """Keeps state everywhere that PyTorch registers it, and in some other places."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(4, 5)
        self.register_buffer("mean", torch.full((1, 3, 1, 1), 0.4), persistent=False)
        self.register_buffer("wide", torch.full((1,), 2.0).expand(5), persistent=False)
        self.gain = torch.ones(5)  # not registered
        self.scale = 1.5
        self.options = {"shift": 0.25}
        self.activation = torch.tanh
        self.cache = None
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)

    def forward(self, images):
        x = self.relu(self.norm(self.conv(images - self.mean))).mean((2, 3))
        self.cache = x
        return self.activation(self.fc(x) * self.gain * self.scale + self.options["shift"])


def owners_hook(module, inputs, output):
    return output * 1.25


@pytest.fixture
def net():
    net = Net().eval()
    net.conv.register_forward_hook(owners_hook)
    net.fc.weight.requires_grad_(False)
    net(BATCH).sum().backward()  # the owner left gradients, and wants them back
    return net


def set_(path, value):
    def vandal(net):
        *parents, name = path.split(".")
        setattr(functools.reduce(getattr, parents, net), name, value)

    return vandal


def in_place(function):
    def vandal(net):
        with torch.no_grad():
            function(net)

    return vandal


def attach_gradient(net):
    net.mean.mul_(net.conv.weight.sum())


def another_shape(net):
    net.fc.weight.data = torch.ones(2, 4)
    net.fc.bias.data = torch.ones(2)


def another_parameter(net):
    net.fc.weight = nn.Parameter(torch.ones(5, 4))


def drop_hook(net):
    net.conv._forward_hooks.clear()


def no_memory(net):
    net.__dict__.clear()


def double_in_inference_mode(net):
    with torch.inference_mode():
        net.double()


def accumulate(net):
    net(BATCH).sum().backward()


WEIGHTS = "its weights or buffers were changed"
HOOKS = "hooks were left on its modules or taken from them"
GRADIENTS = "gradients were left on its parameters or taken from them"
VANDALS = {
    "instance forward": (set_("forward", lambda x: x), "its attribute forward was changed"),
    "part's forward": (set_("relu.forward", torch.tanh), "its attribute relu.forward was changed"),
    "inner method": (
        set_("conv._conv_forward", lambda x, *_: x), "its attribute conv._conv_forward was changed",
    ),
    "non-persistent buffer": (in_place(lambda net: net.mean.add_(0.1)), WEIGHTS),
    "replaced buffer": (set_("mean", torch.zeros(1, 3, 1, 1)), WEIGHTS),
    "expanded buffer": (in_place(lambda net: net.wide[:1].add_(1)), WEIGHTS),
    "buffer with a graph": (attach_gradient, "requires_grad was changed"),
    "minus zero": (in_place(lambda net: net.norm.running_mean.mul_(-1)), WEIGHTS),
    "NaN": (in_place(lambda net: net.fc.weight.fill_(torch.nan)), WEIGHTS),
    "plain tensor": (in_place(lambda net: net.gain.add_(1)), WEIGHTS),
    "stride": (set_("conv.stride", (2, 2)), "its attribute conv.stride was changed"),
    "padding": (set_("conv.padding", "same"), "its attribute conv.padding was changed"),
    "eps": (set_("norm.eps", 0.5), "its attribute norm.eps was changed"),
    "number": (set_("scale", 1.0), "its attribute scale was changed"),
    "deleted number": (lambda net: delattr(net, "scale"), "its attribute scale was changed"),
    "function": (set_("activation", torch.sigmoid), "its attribute activation was changed"),
    "number in a dict": (
        lambda net: net.options.update(shift=1.0), "its attribute options was changed",
    ),
    "class": (set_("relu.__class__", nn.Tanh), "the class of its module 'relu' was changed"),
    "replaced part": (set_("relu", nn.Tanh()), "its submodules were replaced"),
    "deleted part": (lambda net: delattr(net, "relu"), "its submodules were replaced"),
    "added part": (set_("extra", nn.Linear(2, 2)), "its submodules were replaced"),
    "double": (lambda net: net.double(), WEIGHTS),
    "double in inference mode": (double_in_inference_mode, WEIGHTS),
    "half": (lambda net: net.half(), WEIGHTS),
    "weight norm": (lambda net: parametrizations.weight_norm(net.conv), WEIGHTS),
    "another shape": (another_shape, WEIGHTS),
    "another parameter": (another_parameter, WEIGHTS),
    "no parameter": (set_("fc.bias", None), WEIGHTS),
    "added buffer": (lambda net: net.register_buffer("late", torch.ones(1)), WEIGHTS),
    "training": (lambda net: net.norm.train(), "modules were switched between training"),
    "thawed": (lambda net: net.fc.weight.requires_grad_(True), "requires_grad was changed"),
    "dropped gradients": (lambda net: net.zero_grad(), GRADIENTS),
    "more gradients": (accumulate, GRADIENTS),
    "owner's hook": (drop_hook, HOOKS),
    "pre-hook": (lambda net: net.relu.register_forward_pre_hook(lambda *_: None), HOOKS),
    "parameter's hook": (lambda net: net.fc.bias.register_hook(torch.zeros_like), HOOKS),
    "nothing left": (no_memory, "its submodules were replaced"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:The .grad attribute")
@pytest.mark.parametrize("name", VANDALS)
def test_what_was_done_is_named_and_undone(net, name):
    vandal, words = VANDALS[name]
    before, objects = net(BATCH), list(net.state_dict(keep_vars=True).values())
    gradients = {key: p.grad.clone() for key, p in net.named_parameters() if p.grad is not None}
    custody = Custody(net)
    assert custody.changes() == []

    vandal(net)
    found = custody.changes()
    assert any(words in one for one in found)

    custody.restore()
    assert custody.changes() == []
    assert torch.equal(net(BATCH), before)
    now = list(net.state_dict(keep_vars=True).values())
    assert all(one is other for one, other in zip(objects, now, strict=True))
    assert gradients.keys() == {k for k, p in net.named_parameters() if p.grad is not None}
    for key, gradient in gradients.items():
        assert torch.equal(net.get_parameter(key).grad, gradient)
    assert not hasattr(net, "extra")


def test_using_a_module_is_no_change_and_its_cache_is_put_back(net):
    cache = net.cache
    custody = Custody(net)
    with torch.no_grad():
        net(BATCH[:1])
    net.note = "left by user code"
    assert custody.changes() == []
    custody.restore()
    assert net.cache is cache
    assert not hasattr(net, "note")


def test_values_are_compared_once_if_nothing_changed(net, monkeypatch):
    custody, compared, same = Custody(net), [], custody_module._same

    def counting(one, other):
        compared.append(other)
        return same(one, other)

    monkeypatch.setattr(custody_module, "_same", counting)
    assert custody.changes() == []
    n = len(compared)
    assert n >= len([*net.parameters(), *net.buffers()])
    custody.restore(is_same=True)
    assert len(compared) == n
    custody.restore()
    assert len(compared) == 2 * n


@pytest.mark.parametrize("swap", [torch.clone, lambda data: data.t().contiguous().t()])
def test_weights_in_other_memory_are_no_change_but_the_owners_memory_is_put_back(net, swap):
    before, owned = net(BATCH), net.fc.weight.data
    custody = Custody(net)
    net.fc.weight.data = swap(owned)
    owned.zero_()
    assert custody.changes() == []
    custody.restore(is_same=True)
    assert net.fc.weight.data_ptr() == owned.data_ptr()
    assert torch.equal(net(BATCH), before)


def test_a_method_that_is_replaced_on_a_class_is_named_and_put_back(net):
    class OwnReLU(nn.ReLU):
        def forward(self, x):
            return super().forward(x) * 2

    net.relu = OwnReLU()
    before = net(BATCH)
    custody = Custody(net)
    OwnReLU.forward = OwnReLU.__call__ = lambda self, x: x
    assert custody.changes() == [
        "fxeval.tests.hooks.test_custody.OwnReLU.forward was replaced",
        "fxeval.tests.hooks.test_custody.OwnReLU.__call__ was added",
    ]
    custody.restore()
    assert custody.changes() == []
    assert torch.equal(net(BATCH), before)


def test_a_hook_of_the_owner_can_still_be_removed_by_its_handle(net):
    handle = net.register_forward_pre_hook(lambda *_: None)
    custody = Custody(net)
    net._forward_pre_hooks.clear()
    custody.restore()
    assert len(net._forward_pre_hooks) == 1
    handle.remove()
    assert len(net._forward_pre_hooks) == 0


def test_tied_weights_stay_tied(net):
    net.twin = nn.Linear(4, 5)
    net.twin.weight = net.fc.weight
    custody = Custody(net)
    net.double()
    net.twin.weight = nn.Parameter(torch.ones(5, 4))
    custody.restore()
    assert net.twin.weight is net.fc.weight
    assert custody.changes() == []


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize("freeze", [False, True])
def test_a_script_module_gets_its_tensors_and_modes_back(freeze):
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    script = torch.jit.script(plain)
    if freeze:
        script = torch.jit.freeze(script)
    before = script(BATCH)
    custody = Custody(script)
    assert custody.changes() == []
    script.double()
    if not freeze:
        script.train()
        assert custody.changes() == ["modules were switched between training and evaluation",
                                     WEIGHTS]  # fmt: skip
        getattr(script, "0").weight = nn.Parameter(torch.zeros(4, 3, 3, 3))
    custody.restore()
    assert custody.changes() == []
    assert torch.equal(script(BATCH), before)


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.eye(3).to_sparse(),
        lambda: torch.ones(3, dtype=torch.complex64),
        lambda: torch.tensor([True, False]),
        lambda: torch.ones(3, dtype=torch.bfloat16),
        lambda: torch.tensor(7),
        lambda: torch.empty(0, 4),
    ],
)
def test_buffers_of_every_type_are_compared(make):
    module = nn.Module()
    module.register_buffer("odd", make())
    custody = Custody(module)
    assert custody.changes() == []
    module.odd = module.odd.clone()
    assert custody.changes() == []  # the same bits
    kept, module.odd = module.odd, torch.zeros(2, 2)
    assert custody.changes() == [WEIGHTS]
    custody.restore()
    assert custody.changes() == []
    assert module.odd.dtype == kept.dtype


def test_caches_of_fxeval_may_change_but_no_entry_may_become_another():
    from fxeval.explainers import mask_banks
    from fxeval.hooks.patches import Patches
    from fxeval.models import own_code

    before = Patches.now()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(mask_banks._banks, ("new",), "a bank")
        patch.setitem(own_code._SIBLINGS, "folder", {})
        assert before.changes() == []
    kept = dict(mask_banks._banks)
    try:
        mask_banks._banks[("one",)] = type("Bank", (), {"digest": "a"})()
        before = Patches.now()
        mask_banks._banks[("one",)] = type("Bank", (), {"digest": "a"})()  # drawn again
        assert before.changes() == []
        mask_banks._banks[("one",)] = type("Bank", (), {"digest": "b"})()
        assert before.changes() == ["fxeval.explainers.mask_banks._banks was changed"]
        before.restore()
        assert not mask_banks._banks  # none of it can be trusted
    finally:
        mask_banks._banks.clear()
        mask_banks._banks.update(kept)
