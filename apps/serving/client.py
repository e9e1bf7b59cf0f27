"""A client that asks again when it makes sense, until a deadline."""

import http.client
import random
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from kerasmodels.errors import ServingError, UsageError

AGAIN = (429, 502, 503)
"""Answers after which the same request may be asked again: whoever gave them did not compute it."""


class Client:
    """Asks one server over one connection, again after lost connections and while it is busy.

    Every request is a function of its inputs alone, so that asking twice does no harm.

    Args:
        url: such as http://127.0.0.1:8501.
        deadline: seconds that a request may take in all.
        retries: how often it is asked again at most.

    Attributes:
        retried: how often it was asked again, of all requests.
    """

    def __init__(self, url: str, deadline: float = 60.0, retries: int = 5):
        parts = urlsplit(url if "//" in url else f"//{url}", scheme="http")
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in ("http", "https") or not parts.hostname or port == -1:
            raise UsageError(f"expected a server such as http://127.0.0.1:8501. Received: {url!r}.")
        self.url, self._prefix = url, parts.path.rstrip("/")
        self._kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._host, self._port = parts.hostname, port
        self._deadline, self._retries = deadline, retries
        self._connection: http.client.HTTPConnection | None = None
        self.retried = 0

    def ask(
        self, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[bytes, Mapping[str, str]]:
        """POST `body`, or GET without one.

        Returns:
            The answer and its headers, their names in lower case.

        Raises:
            ServingError: it was refused (the status is the server's), or there was no answer in time (504).
        """
        began, tries, trouble = time.monotonic(), 0, "no answer"
        until = began + self._deadline
        while True:
            left = until - time.monotonic()
            if left <= 0:
                break
            wait = min(5.0, 0.1 * 2**tries) * random.uniform(0.5, 1.0)
            try:
                status, content, found = self._once(path, body, headers or {}, left)
            except (OSError, http.client.HTTPException) as error:
                self.close()
                trouble = str(error) or type(error).__name__
            else:
                if status < 400:
                    return content, found
                told = _told(content)
                if status not in AGAIN:
                    raise ServingError(status, f"{self.url} refused: {told}")
                trouble = f"{status}, {told}"
                after = found.get("retry-after", "")
                wait = max(wait, float(after)) if after.isdecimal() else wait
            tries += 1
            if tries > self._retries:
                break
            self.retried += 1
            time.sleep(max(0.0, min(wait, until - time.monotonic())))
        raise ServingError(
            504,
            f"no answer from {self.url} in {tries} {'try' if tries == 1 else 'tries'} and "
            f"{min(time.monotonic() - began, self._deadline):.1f} s: "
            f"{trouble}. Is it running? Start one: kerasmodels serve served/",
        )

    def _once(
        self, path: str, body: bytes | None, headers: Mapping[str, str], seconds: float
    ) -> tuple[int, bytes, dict[str, str]]:
        connection = self._connection
        if connection is None:
            connection = self._connection = self._kind(self._host, self._port, timeout=seconds)
        connection.timeout = seconds
        if connection.sock is not None:
            connection.sock.settimeout(seconds)
        connection.request("GET" if body is None else "POST", self._prefix + path, body, dict(headers))
        answer = connection.getresponse()
        content = answer.read()
        if answer.will_close:
            self.close()
        return answer.status, content, {key.lower(): value for key, value in answer.getheaders()}

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _told(content: bytes) -> str:
    from kerasmodels import reading

    try:
        return str(reading.parse_json(content)["error"])
    except (ValueError, KeyError, TypeError):
        return content[:300].decode(errors="replace")
