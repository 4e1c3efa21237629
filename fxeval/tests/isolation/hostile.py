"""Explainers that behave badly in a process of their own, each in one way."""

import os
import random
import threading
import time

import numpy as np
import torch

from fxeval.contracts import ExplainerTraits, SaliencyMaps
from fxeval.tests.isolation import ways
from fxeval.tests.isolation.ways import endless
from fxeval.tests.subjects import ConvNet
from fxeval.tests.toy_world import Occlusion, model

HERE = "fxeval.tests.isolation.hostile"


class Quiet:
    """Maps that depend on every source of numbers: images, network, all generators."""

    traits = ExplainerTraits(needs={"gradients", "contrast", "gallery"}, source="nowhere")

    def explain(self, model, probes, references, *, contrast=None, generator, gallery=None):
        images = probes.clone().requires_grad_()
        whole = torch.cosine_similarity(model.module(images), model.embed(references))
        (found,) = torch.autograd.grad(whole.sum(), images)
        maps = found.sum(1) + torch.rand(probes.shape[-2:]) + np.random.rand() + random.random()  # noqa: NPY002
        maps = maps + torch.from_numpy(generator.random(tuple(probes.shape[-2:])))
        maps = maps + gallery.embeddings.sum() + gallery.probe_identity.sum() + contrast.mean(1)
        facts = torch.arange(len(probes))
        return SaliencyMaps(maps.float(), -maps.float(), diagnostics={"facts": facts})


class Ramp:
    """Says little and depends on nothing but the images."""

    def explain(self, model, probes, references, *, contrast=None, generator):
        return self.maps(probes)

    def maps(self, probes):
        ramp = torch.arange(probes.shape[-1], dtype=torch.float32)
        return probes.mean((1, 2, 3))[:, None, None] + ramp.expand(len(probes), *probes.shape[-2:])


class Bad(Ramp):
    """Does one bad thing, then answers; some things leave nothing to answer with."""

    def __init__(self, way):
        self.way = way

    def explain(self, model, probes, references, *, contrast=None, generator):
        found = WAYS[self.way](model, probes)
        return self.maps(probes) if found is None else found


def weights(model):
    with torch.no_grad():
        model.module.fc.weight.mul_(0)


def later(model):
    def change():
        time.sleep(0.05)
        weights(model)

    threading.Thread(target=change, daemon=True).start()
    time.sleep(0.2)


def patch():
    torch.cosine_similarity = None
    torch.Tensor.mean = lambda self, *_: torch.zeros(())
    os.environ.clear()
    np.random.seed(0)  # noqa: NPY002
    torch.set_default_dtype(torch.float64)
    torch.nn.Conv2d.forward = lambda self, x: x


def allocate():
    kept = []
    while True:
        kept.append(torch.ones(1 << 28))


WAYS = {name: (lambda m, p, way=way: way()) for name, way in ways.WAYS.items()} | {
    "allocate": lambda m, p: allocate(),
    "patch": lambda m, p: patch(),
    "weights": lambda m, p: weights(m),
    "later": lambda m, p: later(m),
    "huge": lambda m, p: torch.zeros(len(p), 3000, 3000),
    "nothing": lambda m, p: "no maps",
    "states": lambda m, p: SaliencyMaps(p.mean(1), None, ("great",) * len(p)),
}


def fixture_model():
    return model()


def hanging_model():
    endless()


def another_model():
    return model(seed=3)


def network():
    return ConvNet(0, side=16)


def no_explainer():
    return 7


def failing():
    raise RuntimeError("no licence for Ann Lee")


def honest():
    return Occlusion()


class Never(Ramp):
    def unsupported(self, model):
        return "it has a beard"


class Turns(Ramp):
    """Does for each pair what its first pixel says, and else answers."""

    def __init__(self, ways):
        self.ways = ways

    def explain(self, model, probes, references, *, contrast=None, generator):
        found = None
        for probe in probes:
            number = round(float(probe[0, 0, 0]) * 255)
            if number < len(self.ways) and self.ways[number]:
                found = WAYS[self.ways[number]](model, probes)
        good = isinstance(found, str | torch.Tensor | SaliencyMaps)
        return found if good else self.maps(probes)
