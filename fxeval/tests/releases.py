"""Releases of one explainer whose quality is a number in a file beside it.

The model looks at a window of the picture, so the truth is known: what each pixel of the window
adds to the similarity. A release gives a share of the pixels a value that knows nothing;
``noise.txt`` holds that share, from 0 (the truth) to 1 (nothing is known).
"""

from fxeval.tests.world import CONFTEST

WORLD = (
    CONFTEST
    + '''

class Window(torch.nn.Module):
    """The embedding is a window of the picture, a quarter of its pixels."""

    def forward(self, images):
        return (images[:, :, 4:12, 4:12] - 0.5).flatten(1)


@pytest.fixture(scope="session")
def model_tiny():
    return TorchFaceModel("tiny", CROP, Window(), "cosine", 0.5, "c" * 64)


class Release:
    """The truth, but for a share of the pixels; the same pictures always give the same map."""

    def __init__(self, share):
        self.share = share

    def explain(self, model, probes, references, *, contrast=None, generator):
        truth = torch.zeros_like(probes[:, 0])
        inside = (probes - 0.5) * (references - 0.5)
        truth[:, 4:12, 4:12] = inside[:, :, 4:12, 4:12].sum(1)
        texture = torch.frac(probes.sum(1) * 7919.0)  # as good as drawn
        is_lost = torch.frac(probes.sum(1) * 104729.0) < self.share
        return torch.where(is_lost, texture, truth)


@pytest.fixture
def explainer_ours():
    from pathlib import Path

    return Release(float((Path(__file__).parent / "noise.txt").read_text()))
'''
)

BASELINE = 0.0
"""Share of lost pixels in the release that all others are compared with."""

SHARES = {"equal": 0.0, "slightly worse": 0.02, "worse": 0.1}
"""Share of lost pixels in the later releases.

With 32 people, the area under the deletion curve gets worse by 0.022 [0.015, 0.030] at 0.02 and by
0.069 [0.062, 0.075] at 0.1, that under the insertion curve by 0.007 [0.006, 0.009] and by 0.033
[0.029, 0.037]. The margin lies between those, so that only the deletion fails at 0.1.
"""

MARGIN = 0.05


def suite(people=32, margin=MARGIN, other="baseline"):
    """Return the suite that every release is measured by."""
    checks = "".join(
        f"""\
  - id: {name}
    kind: faithfulness.deletion_insertion
    steps: 8
    fills: [mean]
    limits: [{{metric: {name}_auc, not_worse_than: {other}, within: {{absolute: {margin}}}}}]
"""
        for name in ("deletion", "insertion")
    )
    return f"""\
fxeval: 1
suite: gate
defaults: {{seed: 7}}
models: [tiny]
explainers: [ours]
pairs: [{{use: memory, n: {people}}}]
checks:
{checks}report: {{formats: [html, json, markdown]}}
"""
