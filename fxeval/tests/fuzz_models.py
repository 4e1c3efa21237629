"""Fuzzed parsers of models, suites, maps and records."""

import importlib.util
import io
import json
import math
import os
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import yaml
from hypothesis import strategies as st
from torch import Tensor, nn

from fxeval.contracts import RowState, SaliencyMaps
from fxeval.errors import ModelContractError, StoreError
from fxeval.explainers.precomputed import PrecomputedMaps, save_maps
from fxeval.models.cards import ModelCard, read_card
from fxeval.models.files.formats import parse_checkpoint, parse_safetensors, parse_torchscript
from fxeval.models.golden import MAX_BYTES, read_array
from fxeval.models.loading import check_loaded, fill_module
from fxeval.models.networks.dlib_resnet import DlibResNet, parse_dlib_dat
from fxeval.records.judged import LimitEntry, MetricEntry
from fxeval.records.reading import load_record, read_record, read_rows
from fxeval.records.schema import CellFacts, CellPlan, Record, Row
from fxeval.records.writing import dumped
from fxeval.results import Outcome
from fxeval.scorecard import render, terminal_summary
from fxeval.statistics.results import limit_of, results_of
from fxeval.statistics.verdict import MIN_IDENTITIES
from fxeval.suite.load import KnownIds, load
from fxeval.suite.plan import Suite
from fxeval.tests.fuzz_mutations import (
    damaged,
    garbage,
    repickled,
    retyped,
    reworded,
    rezipped,
)
from fxeval.tests.fuzzing import Parser
from fxeval.tests.subjects import ConvNet, CountingModel, make_pairs
from fxeval.tests.world import SUITE

PAIRS = make_pairs(4)
_END = 24_000
with torch.device("meta"):
    _SHAPES = {name: value.shape for name, value in DlibResNet().state_dict().items()}
DLIB = "dlib_face_recognition_resnet_model_v1.dat"
RECORDS = Path(__file__).parent / "records"
_KNOWN = KnownIds(
    models=frozenset({"tiny", "mini_resnet"}),
    explainers=frozenset({"occlusion", "gradcam"}),
    pairs=frozenset({"memory"}),
)
_METRIC = MetricEntry(
    name="deletion_auc", title="t", unit="u", better="lower", range=(-1.0, 1.0), statistic="mean",
    source="s", meaning="m",
)  # fmt: skip
_ROWS = [
    {
        "cell": "c", "row": f"{i}", "identities": [i, i + 1], "state": "ok", "reason": "",
        "diagnostics": {"probe": {"d": 0.5}}, "constant_under": ["re-drawn network 1"],
        "thumbnail": [[0.0, 1.0] * 14, [0.5, 0.25] * 14] * 14,
        "measured": [
            {"map": map_, "under": {"fill": "blur", "fraction": 0.5},
             "values": {"deletion_auc": 0.1 * i}, "states": {"deletion_auc": "ok"},
             "curves": {"deletion": [1.0, 0.5, None]}}
            for map_ in ("explainer", "control.centre")
        ],
    }
    for i in range(3)
]  # fmt: skip
_SUITES = [
    SUITE.replace("EXPLAINERS", "occlusion, {use: gradcam, params: {layer: stage4}, as: other}"),
    "fxeval: 1\nsuite: other\ntitle: \"Odd: 'ones'\"\nreport: {formats: [html]}\n"
    "verification:\n  flip_fusion: true\n  limits:\n"
    "    - {metric: verification_accuracy, at_least: 0.9}\n"
    + SUITE.partition("\n")[2].partition("\n")[2].replace("EXPLAINERS", "gradcam"),
]
_SUITES.append(
    SUITE.replace("EXPLAINERS", "occlusion, gradcam").partition("      - {metric: deletion_auc")[0]
    + "      - {metric: deletion_auc, better_than: explainer:gradcam, judge: worst}\n"
    "      - {metric: deletion_auc, not_worse_than: baseline, within: {relative: 0.1}}\n"
    "      - {metric: insertion_auc, equivalent_to: base, within: {absolute: 0.02}, judge: mean}\n"
    "      - {metric: insertion_auc, not_worse_than: base, over: list, fill: mean}\n"
)
_CARDS = [
    "card: 1\nname: acme-net\nweights: nets/acme.ckpt\nsha256: " + "Ab" * 32 + "\n"
    "architecture: acme.nets:make\nstate: {key: state_dict, prefix: model., ignore: [logits.]}\n"
    "crop:\n  name: acme\n  size: [96, 80]\n"
    "  template: [[26, 44], [54, 44], [40, 60.5], [29, 78], [51, 78]]\n"
    "colour: BGR\nmean: [103.9, 116.8, 123.7]\nstd: 128\nsimilarity: neg_l2\n"
    "operating_threshold: -1.1\nthreshold_set_by: own calibration set\nclaims:\n"
    "  - {pairs: lfw_view2, metric: verification_accuracy, value: 0.994}\n"
    "golden: {file: golden.npz, images: crops, embeddings: emb, at_most: 1e-3}\n",
    "card: 1\nname: acme\nweights: acme.onnx\nsha256: " + "ab" * 32 + "\nruntime: auto\n"
    "crop: arcface112\ncolour: RGB\nmean: 127.5\nstd: 127.5\nsimilarity: cosine\n",
]  # fmt: skip


def _saved(content: object, **options: bool) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def _scripted() -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(ConvNet().eval()), file)
    return file.getvalue()


class _Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("true",)


def parsers(data: Path | None) -> list[Parser]:
    network = ConvNet().eval()
    state = network.state_dict()
    safe = [safetensors.torch.save(state), safetensors.torch.save({"a": torch.ones(3).half()})]
    zipped = [_saved(state), _saved({"w": torch.ones(2), "x": _Evil()}), _saved(network)]
    legacy = [_saved(state, _use_new_zipfile_serialization=False)]
    legacy.append(_saved({"x": _Evil()}, _use_new_zipfile_serialization=False))
    scripted = [_scripted()]
    arrays = io.BytesIO()
    np.savez(arrays, images=np.zeros((2, 9, 9, 3), np.uint8), emb=np.ones((2, 4), np.float32))
    packed = io.BytesIO()
    np.savez_compressed(packed, emb=np.zeros((300, 400)), images=np.array([{}], object))
    golden = [arrays.getvalue(), packed.getvalue()]
    found = [
        _text_parser("suite", _SUITES, lambda path: load(path, _KNOWN), _check_suite),
        _text_parser("model card", _CARDS, read_card, _check_card),
        Parser(
            "safetensors",
            damaged(safe) | _headers(safe[0]) | garbage(),
            lambda path: _filled(parse_safetensors(path.read_bytes(), str(path)), str(path)),
            _check_state,
        ),
        Parser(
            "checkpoint",
            rezipped(zipped) | repickled(legacy) | damaged([*zipped, *legacy]) | garbage(b"PK\3\4"),
            lambda path: _filled(parse_checkpoint(path.read_bytes(), str(path)), str(path)),
            _check_state,
        ),
        Parser(
            "torchscript",
            rezipped(scripted) | damaged(scripted) | garbage(b"PK\3\4"),
            lambda path: parse_torchscript(path.read_bytes(), str(path)),
            _check_network,
        ),
        Parser("dlib made", damaged([_dlib_start()]) | garbage(), _dlib, _check_dlib),
        Parser("golden", rezipped(golden) | damaged(golden), _golden, _check_arrays),
        *(_maps(suffix) for suffix in (".npz", ".safetensors")),
        Parser("record", retyped(_samples()), _page, _check_page),
        Parser(
            "rows",
            retyped(_ROWS).map(_among_rows) | damaged(_lines()) | garbage(),
            read_rows,
            _check_rows,
        ),
    ]
    if importlib.util.find_spec("onnx") and importlib.util.find_spec("onnxruntime"):
        found.append(_onnx())
    if data is not None:
        found.append(_real_dlib((data / "weights" / DLIB).read_bytes()))
    return found


def _text_parser(name: str, examples: list[str], read: Any, check: Any) -> Parser:
    trees = [yaml.safe_load(one) for one in examples]
    texts = [one.encode() for one in examples]
    inputs = reworded(examples) | retyped(trees) | damaged(texts) | garbage()
    return Parser(name, inputs, read, check, ".yaml")


def _check_suite(suite: Suite) -> None:
    assert len(suite.digest) == 64
    assert 0 < suite.confidence < 1
    assert suite.name.isprintable()
    for check in suite.checks:
        assert check.models
        assert check.explainers
        assert check.pairs
        for limit in check.limits:
            assert limit.is_number()
            assert limit.form in limit.written()
            margins = [limit.written().get(key, {}) for key in ("by", "within")]
            assert all(0 <= one < math.inf for margin in margins for one in margin.values())
            entry = LimitEntry(
                metric=limit.metric, **limit.written(), under=dict(limit.under),
                over=limit.over, judge=limit.judge,
            )  # fmt: skip
            assert limit_of(entry) == replace(limit, severity=entry.severity, where="")
        assert {other.name for other in check.others} <= {
            name.removeprefix("explainer:") for limit in check.limits for name in limit.compares()
        }


def _check_card(card: ModelCard) -> None:
    assert card.sha256 == card.sha256.lower()
    assert len(bytes.fromhex(card.sha256)) == 32
    for name in (card.weights, card.golden.file if card.golden else "x"):
        inside = (Path("/folder") / name).resolve()
        assert inside.is_relative_to("/folder")
        assert inside != Path("/folder")
    assert all(16 <= side <= 4096 for side in card.crop.size)
    assert np.shape(card.crop.template) == (5, 2)
    assert np.isfinite(card.crop.template).all()
    assert np.isfinite(card.preprocessing.mean).all()
    assert all(0 < one <= 1000 for one in card.preprocessing.std)
    threshold = card.operating_threshold
    assert threshold is None or math.isfinite(threshold)
    assert all(0 <= claim.value <= 1 for claim in card.claims)


@st.composite
def _headers(draw: Any, data: bytes) -> bytes:
    """Safetensors with another header, whose length is right."""
    length = int.from_bytes(data[:8], "little")
    header = draw(retyped([json.loads(data[8 : 8 + length])]))
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def _filled(state: dict[str, Tensor], where: str) -> tuple[dict[str, Tensor], nn.Module | None]:
    module = ConvNet()
    try:
        fill_module(module, state, where)
    except ModelContractError:  # sound tensors of another network
        return state, None
    return state, module.eval()


def _check_state(found: tuple[dict[str, Tensor], nn.Module | None]) -> None:
    state, module = found
    assert state
    for name, value in state.items():
        assert isinstance(name, str)
        assert type(value) is Tensor
        assert value.dtype == torch.float32 or not value.is_floating_point()
        assert bool(torch.isfinite(value).all())
        assert value.numel() < 10_000_000
    if module is not None:
        own = module.state_dict()
        assert all(
            torch.equal(own[name], value.to(own[name].dtype)) for name, value in state.items()
        )
        assert module(torch.rand(1, 3, 16, 16)).shape == (1, 8)


def _check_network(module: nn.Module) -> None:
    assert not module.training
    for value in module.state_dict().values():
        assert not value.is_floating_point() or bool(torch.isfinite(value).all())


def _integers(*values: int) -> bytes:
    return b"".join(
        bytes([(0x80 if v < 0 else 0) | max(1, (abs(v).bit_length() + 7) // 8)])
        + abs(v).to_bytes(max(1, (abs(v).bit_length() + 7) // 8), "little")
        for v in values
    )


def _floats(*values: float) -> bytes:
    parts = [math.frexp(value) for value in values]
    return b"".join(_integers(round(part * 2**24), exponent - 24) for part, exponent in parts)


def _dlib_start() -> bytes:
    """A file of dlib's network that ends after the first convolution's weights."""
    numbers = np.ones(32 * 3 * 49 + 32, "<f4").tobytes()
    text = {name: _integers(len(name)) + name.encode() for name in (
        "loss_metric_2", "input_rgb_image_sized", "con_4")}  # fmt: skip
    return b"".join(
        (_integers(1), text["loss_metric_2"], _floats(0.04, 0.6), _integers(*[1] * 130),
         text["input_rgb_image_sized"], _floats(122.782, 117.001, 104.298), _integers(150, 150),
         text["con_4"], _integers(2, 32 * 3 * 49 + 32, 1, 1, 1), numbers,
         _integers(32, 7, 7, 2, 2, 0, 0, 1, 32, 3, 7, 7, 1, 1, 32, 1, 1))
    )  # fmt: skip


def _dlib(path: Path) -> dict[str, Tensor]:
    return parse_dlib_dat(path.read_bytes())


def _real_dlib(whole: bytes) -> Parser:
    """Both ends of a real file damaged; the inputs leave its middle out, which is large."""
    ends, middle = whole[:_END] + whole[-_END:], whole[_END:-_END]

    def read(path: Path) -> dict[str, Tensor]:
        data = path.read_bytes()
        return parse_dlib_dat(data[:_END] + middle + data[_END:])

    return Parser("dlib real", damaged([ends]), read, _check_dlib, most=60)


def _check_dlib(state: dict[str, Tensor]) -> None:
    assert {name: value.shape for name, value in state.items()}.items() <= _SHAPES.items()
    assert all(bool(torch.isfinite(value).all()) for value in state.values())


def _golden(path: Path) -> list[Any]:
    data = path.read_bytes()
    return [read_array(data, key, str(path)) for key in ("emb", "images")]


def _check_arrays(found: list[Any]) -> None:
    for array in found:
        assert not array.dtype.hasobject
        assert array.nbytes <= MAX_BYTES


def _maps(suffix: str) -> Parser:
    maps = torch.rand(4, 16, 16, generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"maps{suffix}"
        save_maps(path, maps, PAIRS.images[:4], PAIRS.images[4:])
        whole = [path.read_bytes()]
    inputs = damaged(whole) | (rezipped(whole) if suffix == ".npz" else _headers(whole[0]))
    return Parser(f"maps {suffix}", inputs, _looked_up, _check_maps, suffix)


def _looked_up(path: Path) -> SaliencyMaps:
    images = PAIRS.images.float() / 255
    return PrecomputedMaps(path).explain(
        CountingModel(None), images[:4], images[4:], generator=np.random.default_rng(0)
    )


def _check_maps(found: SaliencyMaps) -> None:
    assert found.positive.shape == (4, 16, 16)
    assert found.positive.dtype == torch.float32
    assert set(found.states) == {RowState.OK}


def _samples() -> list[Any]:
    names = ("example_v1.json", "example_v2.json")
    return [json.loads((RECORDS / name).read_text("utf-8")) for name in names]


def _page(path: Path) -> tuple[Record, str, list[str]]:
    record = load_record(path)
    return record, render(dumped(record)), terminal_summary(dumped(record))


def _check_page(found: tuple[Record, str, list[str]]) -> None:
    record, page, lines = found
    assert read_record(dumped(record)) == record
    page.encode()
    assert "<script>alert" not in page
    assert "fxeval-record" in page
    assert not any("\x1b" in line or "\u202e" in line for line in lines)


def _lines() -> list[bytes]:
    return [b"".join(json.dumps(row).encode() + b"\n" for row in _ROWS)]


def _among_rows(line: bytes) -> bytes:
    return b"".join((*_lines(), line, b"\n", *_lines()))


def _check_rows(found: list[Row]) -> None:
    for row in found:
        again = Row.model_validate_json(row.model_dump_json(), strict=True)
        assert again == row
        assert row.identities
    plan = CellPlan(
        id="c", check="c", kind="k", why="", where="", model="m", explainer="e", pairs="p",
        parameters={}, confidence=0.95, on_inconclusive="fail", metrics=[_METRIC],
        asked=[LimitEntry(metric="deletion_auc", at_most=1e9)],
    )  # fmt: skip
    try:
        result = results_of(plan, CellFacts(), found)
    except StoreError:  # sound rows that do not fit together
        return
    assert len(found) >= MIN_IDENTITIES or result.verdict.outcome is not Outcome.PASS


def _onnx() -> Parser:
    from fxeval.models.files.onnx_loading import load_onnx
    from fxeval.tests.onnx_subjects import facts, mutated, small

    whole = [small().SerializeToString()]
    inputs = st.integers(0, 10**9).map(mutated) | damaged(whole) | garbage()

    def read(path: Path) -> Any:
        return load_onnx(path.read_bytes(), str(path), facts())

    return Parser("onnx", inputs, read, check_loaded)
