"""Services that fail for a while, or do not repeat: calls again, answers kept, noise measured."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fxeval.errors import ModelContractError, UnansweredError
from fxeval.models import black_box
from fxeval.models.black_box import EmbeddingFunction
from fxeval.models.service import asked_to_wait, passes
from fxeval.tests.subjects import CROP


def means(images):
    return images.mean(3).flatten(1)


def images(n: int = 5, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 3, *CROP.size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def waits(monkeypatch):
    """The seconds that would have been waited."""
    found: list[float] = []
    monkeypatch.setattr(black_box, "sleep", found.append)
    return found


class Service:
    """Answers, or raises what is planned for this call."""

    def __init__(self, *planned: BaseException | None) -> None:
        self.planned, self.asked = list(planned), []

    def __call__(self, given):
        self.asked.append(len(given))
        error = self.planned.pop(0) if self.planned else None
        if error is not None:
            raise error
        return means(given)


def box(function, **also) -> EmbeddingFunction:
    return EmbeddingFunction("api", CROP, function, "cosine", "1", **also)


class HttpError(Exception):
    def __init__(self, status: object, **headers: str) -> None:
        super().__init__("the service says no")
        self.response = SimpleNamespace(status_code=status, headers=headers)


class StatusError(Exception):
    def __init__(self, **attributes: object) -> None:
        super().__init__("no")
        vars(self).update(attributes)


class ReadTimeoutError(Exception):
    """Of a library whose errors are no OSErrors."""


def caused_by(cause: BaseException) -> BaseException:
    error = Exception("wrapped")
    error.__cause__ = cause
    return error


PASSING = [
    ConnectionResetError("away"), TimeoutError(), OSError("unreachable"), ReadTimeoutError(),
    HttpError(503), HttpError(429), StatusError(status=408), StatusError(status_code=500),
    StatusError(code=425),
    StatusError(code=lambda: SimpleNamespace(name="UNAVAILABLE")),
    StatusError(response={"ResponseMetadata": {"HTTPStatusCode": 502}}),
    RuntimeError("HTTP 503: Service Unavailable"), caused_by(ConnectionAbortedError()),
]  # fmt: skip
LASTING = [
    ValueError("expected 512 numbers, got 500"), TypeError(), KeyError("embedding"), HttpError(401),
    HttpError(404), StatusError(status=400), FileNotFoundError("key.pem"), PermissionError(),
    RuntimeError("no licence"), MemoryError(), SystemExit(503), caused_by(HttpError(403)),
    StatusError(code=lambda: SimpleNamespace(name="PERMISSION_DENIED")),
    StatusError(code=lambda x: x),
]  # fmt: skip


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_a_call_is_made_again_after_an_error_that_passes(error, waits):
    service = Service(error, error)
    model = box(service)
    assert passes(error)
    assert torch.equal(model.embed(images()), means(images()))
    assert service.asked == [5, 5, 5]
    assert waits == [1.0, 2.0]
    kind = type(error).__name__
    assert list(model.calls.take_notes()) == [
        f"2 calls were repeated after an error that passes ({kind} 2)"
    ]
    assert list(model.calls.take_notes()) == []


@pytest.mark.parametrize("error", LASTING, ids=repr)
def test_an_error_that_stays_is_told_at_once(error, waits):
    service = Service(error)
    assert not passes(error)
    with pytest.raises(ModelContractError, match=r"'api': its function raised") as caught:
        box(service).embed(images())
    assert not isinstance(caught.value, UnansweredError)
    assert (service.asked, waits) == ([5], [])


def test_repeats_end_and_later_only_the_rest_is_asked_for(waits):
    away = ConnectionError("away")
    service = Service(None, away, away, away)
    model = box(service, batch_size=2, retries=2, backoff=0.5)
    with pytest.raises(UnansweredError, match=r"ConnectionError .*: away\. It was called 3 times"):
        model.embed(images())
    assert service.asked == [2, 2, 2, 2]
    assert waits == [0.5, 1.0]
    assert torch.equal(model.embed(images()), means(images()))
    assert service.asked == [2, 2, 2, 2, 2, 1]  # the first two images were answered before
    assert model.embed_afresh(images()).shape == (5, 48)
    assert service.asked[6:] == [2, 2, 1]


def test_an_answer_that_is_kept_cannot_be_changed_by_who_got_it():
    model = box(means)
    model.embed(images()).zero_()
    assert torch.equal(model.embed(images()), means(images()))


@pytest.mark.parametrize("also", [{"retries": -1}, {"backoff": -1.0}, {"backoff": float("nan")}])
def test_what_cannot_be_waited_for_is_refused(also):
    with pytest.raises(ModelContractError, match="retries and backoff of at least 0"):
        box(means, **also)


def test_a_service_may_ask_for_a_longer_pause_up_to_a_minute(waits):
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30))
    assert asked_to_wait(HttpError(429, **{"Retry-After": "7"})) == 7.0
    assert 25 < asked_to_wait(HttpError(429, **{"retry-after": soon})) <= 30
    assert asked_to_wait(HttpError(429, **{"Retry-After": "soon"})) == 0.0
    assert asked_to_wait(HttpError(429)) == asked_to_wait(ValueError()) == 0.0
    box(Service(HttpError(429, **{"Retry-After": "86400"}))).embed(images())
    assert waits == [60.0]


@pytest.mark.parametrize(
    "form",
    [
        lambda x: means(x).tolist(),
        lambda x: tuple(means(x).numpy()),
        lambda x: list(means(x)),
        lambda x: means(x).double(),
        lambda x: means(x).numpy().astype(np.float64),
        lambda x: means(x).numpy().astype(np.longdouble),
    ],
)
def test_numbers_are_taken_in_any_form(form):
    found = box(form).embed(images())
    assert found.dtype == torch.float32
    assert torch.equal(found, means(images()))


def test_whole_numbers_of_json_are_numbers():
    assert box(lambda x: [[1, 0]] * len(x)).embed(images()).tolist() == [[1.0, 0.0]] * 5


class Untrue(list):
    def __bool__(self) -> bool:
        raise TypeError("no truth")


def test_a_list_without_truth_is_taken():
    assert box(lambda x: Untrue(means(x).tolist())).embed(images()).shape == (5, 48)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([[1.0, 2.0], None, None, [1.0, 2.0], None], "None in place of the embeddings of 3 images"),
        ([[1.0, 2.0], [1.0]], "a list of rows of several lengths, or no numbers"),
        (["eyJ", "abc"], "a list of <U3"),
        (
            {"embedding": [[1.0, 2.0]]},
            "a dict of 1 output: 'embedding' list. Return the embeddings",
        ),
        (np.ones((5, 2), np.int8), "of int8"),
        (np.ones((5, 2), complex), "of complex128"),
        (np.full((5, 2), 1e300), "NaN or infinite"),
        ([[1.0, float("nan")]] * 5, "NaN or infinite"),
        (b"bytes", "got bytes"),
    ],
)
def test_an_answer_that_is_no_embedding_is_told(answer, message: str):
    with pytest.raises(ModelContractError, match=message):
        box(lambda _: answer).embed(images())


def test_the_same_image_is_asked_for_again_through_the_whole_run():
    service = Service()
    model = box(service, batch_size=1)
    for seed in range(1000):
        model.embed(images(1, seed))
    again = len(service.asked) - 1000
    assert 20 < again < 60
    assert model.calls.asked_again == again - 1
    assert model.calls.noise == 0.0
    assert list(model.calls.take_notes()) == []


def test_a_service_that_drifts_is_found_out():
    class Drifting(Service):
        def __call__(self, given):
            found = super().__call__(given)
            found[:, 0] += 0.01 * len(self.asked)
            return found

    model = box(Drifting(), batch_size=1)
    for seed in range(40):
        model.embed(images(1, seed))
    assert model.calls.noise > 1e-3
    (note,) = model.calls.take_notes()
    assert "asked for again" in note
    assert "differ by up to" in note
