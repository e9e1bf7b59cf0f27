"""One thread for each model, and a queue before it: requests of equal shapes that wait are computed together."""

import collections
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kerasmodels.errors import ServingError

Arrays = dict[str, np.ndarray]


@dataclass
class _Request:
    arrays: Arrays
    rows: int
    shapes: Any
    deadline: float
    future: "Future[Arrays]" = field(default_factory=Future)


class Closed(Exception):
    """The worker takes no more requests."""


class Worker:
    """Computes requests one after the other, in a thread of its own.

    While one call runs, requests pile up; the next call takes all of them that have the shapes of the oldest, up to
    `most_rows`. Nobody waits for company: an idle worker begins at once.

    Args:
        call: arrays by input -> arrays by output.
        most_rows: rows (first axis of each array) of a call; 1 where the artifact's batch is fixed, None where arrays
            have no batch axis. A request of more rows becomes several calls.
        computed: told the rows and seconds of each call.
    """

    def __init__(
        self,
        call: Callable[[Arrays], Mapping[str, np.ndarray]],
        most_rows: int | None,
        computed: Callable[[int, float], None] = lambda rows, seconds: None,
    ):
        self._call, self._most_rows, self._computed = call, most_rows, computed
        self._waiting: collections.deque[_Request] = collections.deque()
        self._news = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return len(self._waiting)

    def submit(self, arrays: Arrays, seconds: float) -> "Future[Arrays]":
        """Ask for an answer within so many seconds; after that it is no longer computed.

        The future may be cancelled while the request waits. It raises ServingError (504) if the time is over.

        Raises:
            Closed: see `close`.
        """
        rows = 1 if self._most_rows is None else len(next(iter(arrays.values())))
        shapes = tuple((name, array.shape[1:], array.dtype.str) for name, array in sorted(arrays.items()))
        request = _Request(arrays, rows, shapes, time.monotonic() + seconds)
        with self._news:
            if self._closing:
                raise Closed
            self._waiting.append(request)
            self._news.notify()
        return request.future

    def close(self) -> None:
        """Take no more requests, and end when those that wait are answered."""
        with self._news:
            self._closing = True
            self._news.notify()

    def join(self, seconds: float | None = None) -> None:
        """Wait until it has ended."""
        self._thread.join(seconds)

    def _work(self) -> None:
        while True:
            with self._news:
                while not self._waiting and not self._closing:
                    self._news.wait()
                if not self._waiting:
                    return
                chosen = self._take()
            if chosen:
                self._answer(chosen)

    def _take(self) -> list[_Request]:
        """The oldest request that is still wanted, and those that can be computed with it."""
        chosen: list[_Request] = []
        kept: collections.deque[_Request] = collections.deque()
        rows = 0
        while self._waiting:
            request = self._waiting.popleft()
            fits = not chosen or (
                self._most_rows is not None
                and request.shapes == chosen[0].shapes
                and rows + request.rows <= self._most_rows
            )
            if not fits:
                kept.append(request)
            elif not request.future.set_running_or_notify_cancel():
                continue
            elif time.monotonic() > request.deadline:
                request.future.set_exception(ServingError(504, "the request waited longer than its time limit."))
            else:
                chosen.append(request)
                rows += request.rows
        self._waiting = kept
        return chosen

    def _answer(self, requests: Sequence[_Request]) -> None:
        together = requests
        if len(requests) > 1:
            arrays = {k: np.concatenate([r.arrays[k] for r in requests]) for k in requests[0].arrays}
            try:
                found = self._timed(arrays, sum(r.rows for r in requests))
                at = 0
                for request in requests:
                    request.future.set_result({k: v[at : at + request.rows] for k, v in found.items()})
                    at += request.rows
                return
            except Exception:  # One request must not spoil the others' answers: each on its own, then.
                together = [r for r in requests if not r.future.done()]
        for request in together:
            try:
                request.future.set_result(self._alone(request))
            except Exception as error:
                request.future.set_exception(error)

    def _alone(self, request: _Request) -> Arrays:
        if self._most_rows is None or request.rows <= self._most_rows:
            return self._timed(request.arrays, request.rows)
        pieces = []
        for at in range(0, request.rows, self._most_rows):
            if time.monotonic() > request.deadline:
                raise ServingError(504, f"{at} of {request.rows} rows were computed when the time limit was reached.")
            piece = {k: v[at : at + self._most_rows] for k, v in request.arrays.items()}
            pieces.append(self._timed(piece, len(next(iter(piece.values())))))
        return {k: np.concatenate([piece[k] for piece in pieces]) for k in pieces[0]}

    def _timed(self, arrays: Arrays, rows: int) -> Arrays:
        began = time.perf_counter()
        found = {k: np.asarray(v) for k, v in self._call(arrays).items()}
        if self._most_rows is not None and any(v.ndim == 0 or len(v) != rows for v in found.values()):
            shapes = {k: v.shape for k, v in found.items()}
            raise RuntimeError(f"expected {rows} rows of each output. Received: {shapes}.")
        self._computed(rows, time.perf_counter() - began)
        return found
