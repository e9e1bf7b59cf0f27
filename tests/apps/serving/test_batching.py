"""Which requests are computed together, and what becomes of those that are cancelled, late or wrong."""

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from kerasmodels.apps.serving.batching import Arrays, Closed, Worker
from kerasmodels.errors import ServingError


class _Slow:
    """Doubles what it is given, once it may; negative numbers are an error."""

    def __init__(self) -> None:
        self.may, self.calls = threading.Event(), list[tuple[int, ...]]()

    def __call__(self, arrays: Arrays) -> Arrays:
        assert self.may.wait(20)
        x = arrays["x"]
        self.calls.append(x.shape)
        if (x < 0).any():
            raise ValueError("negative")
        return {"y": 2 * x}


Made = Callable[[int | None], tuple[Worker, _Slow]]


@pytest.fixture
def make() -> Iterator[Made]:
    workers = []

    def made(most_rows: int | None) -> tuple[Worker, _Slow]:
        call = _Slow()
        workers.append((Worker(call, most_rows), call))
        return workers[-1]

    yield made
    for worker, call in workers:
        call.may.set()
        worker.close()
        worker.join(20)


def _x(*shape: int, value: float = 1.0) -> Arrays:
    return {"x": np.full(shape, value, "float32")}


def test_equal_shapes_are_computed_together_and_others_are_not(make: Made) -> None:
    worker, call = make(4)
    first = worker.submit(_x(1, 9), 20)  # it is computed while the others come
    while len(worker):
        time.sleep(0.001)
    futures = [worker.submit(_x(1, size, value=n), 20) for n, size in enumerate((3, 5, 3, 3, 5, 3, 3))]
    call.may.set()
    assert first.result(20)["y"].shape == (1, 9)
    for n, (future, size) in enumerate(zip(futures, (3, 5, 3, 3, 5, 3, 3), strict=True)):
        assert np.array_equal(future.result(20)["y"], np.full((1, size), 2.0 * n, "float32"))
    assert call.calls == [(1, 9), (4, 3), (2, 5), (1, 3)]


@pytest.mark.parametrize(("most_rows", "calls"), [(4, [(4, 3), (4, 3), (2, 3)]), (1, [(1, 3)] * 10), (None, [(10, 3)])])
def test_a_large_request_becomes_calls_of_the_size_that_is_allowed(
    make: Made, most_rows: int | None, calls: list[tuple[int, ...]]
) -> None:
    worker, call = make(most_rows)
    call.may.set()
    given = {"x": np.arange(30, dtype="float32").reshape(10, 3)}
    assert np.array_equal(worker.submit(given, 20).result(20)["y"], 2 * given["x"])
    assert call.calls == calls


def test_a_wrong_request_does_not_spoil_the_others(make: Made) -> None:
    worker, call = make(8)
    worker.submit(_x(1, 9), 20)
    while len(worker):
        time.sleep(0.001)
    futures = [worker.submit(_x(1, 3, value=value), 20) for value in (1, -1, 2)]
    call.may.set()
    assert futures[0].result(20)["y"][0, 0] == 2
    assert futures[2].result(20)["y"][0, 0] == 4
    with pytest.raises(ValueError, match="negative"):
        futures[1].result(20)


def test_cancelled_and_late_requests_are_not_computed(make: Made) -> None:
    worker, call = make(8)
    worker.submit(_x(1, 9), 20)
    while len(worker):
        time.sleep(0.001)
    cancelled, late, wanted = worker.submit(_x(1, 3), 20), worker.submit(_x(1, 4), 0.01), worker.submit(_x(1, 5), 20)
    assert cancelled.cancel()
    time.sleep(0.02)
    call.may.set()
    wanted.result(20)
    with pytest.raises(ServingError, match="time limit") as error:
        late.result(20)
    assert error.value.status == 504
    assert call.calls == [(1, 9), (1, 5)]


def test_what_waits_is_answered_before_it_ends(make: Made) -> None:
    worker, call = make(8)
    futures = [worker.submit(_x(1, size), 20) for size in (3, 4, 5)]
    worker.close()
    with pytest.raises(Closed):
        worker.submit(_x(1, 3), 20)
    call.may.set()
    worker.join(20)
    assert all(future.done() for future in futures)
