"""One file over HTTP, taken up again where a connection was cut.

pooch checks and keeps files but starts anew after every cut. This downloader is given to it: what has arrived lies in a
``.part`` file beside the place, with the server's mark of the version (ETag or date), and the rest is asked for with a
``Range``. A server without ranges sends all of it again.
"""

import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import DataError
from .manifest import read_json, write_json
from .sink import Progress, in_bytes

if TYPE_CHECKING:
    from requests import Response

_CHUNK = 1 << 16  # what is read of a piece is lost when the connection is cut within it
_TIMEOUT = (15, 60)  # seconds to connect, and between two pieces
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})  # a later try may succeed


@dataclass(frozen=True)
class Patience:
    """How long to try.

    Args:
        tries: in a row that bring nothing.
        first_wait: seconds before the second try, doubled each time.
        longest_wait: seconds.
    """

    tries: int = 5
    first_wait: float = 1.0
    longest_wait: float = 30.0

    def wait(self, failures: int) -> float:
        """Return the seconds to wait after so many failures in a row."""
        return float(min(self.longest_wait, self.first_wait * 2 ** (failures - 1)))


class Resuming:
    """A downloader for pooch: call with address and file.

    Args:
        part: where what has arrived is kept between calls.
        size: bytes that were announced for the file; None where unknown.
        patience: how often to try.
        progress: called with the bytes that have arrived.
        sleep: how to wait.

    Raises:
        DataError: no network, the file is not there, another size than announced, a full disk, or too many cuts; what
            has arrived is kept for the next call where it is of use.
    """

    def __init__(
        self,
        part: Path,
        *,
        size: int | None = None,
        patience: Patience = Patience(),
        progress: Progress | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.part, self.size, self.patience = part, size, patience
        self.progress, self.sleep = progress, sleep
        self.note = part.with_name(part.name + ".json")

    def __call__(self, url: str, output_file: Any, pooch: Any) -> None:
        """Download ``url`` and move it to ``output_file``."""
        import requests

        self.part.parent.mkdir(parents=True, exist_ok=True)
        failures, why = 0, ""
        with requests.Session() as session:
            while failures < self.patience.tries:
                before = self._arrived()
                try:
                    if self._some(session, url):
                        self._hand_over(output_file)
                        return
                    why = "the connection was cut"
                except requests.RequestException as error:
                    why = _reason(error)
                failures = 1 if self._arrived() > before else failures + 1
                if failures < self.patience.tries:
                    self.sleep(self.patience.wait(failures))
        kept = f" {in_bytes(self._arrived())} have arrived; it goes on from there." if self._arrived() else ""
        raise DataError(
            f"{url}: {why} (tries in a row: {self.patience.tries}). Check the network (and proxy), then run the same "
            f"command again.{kept}"
        )

    def _some(self, session: Any, url: str) -> bool:
        """Ask for what is missing and write what comes; return whether that is all."""
        done = self._arrived()
        headers, noted = {"Accept-Encoding": "identity"}, self._noted(url)
        if done and noted:
            headers |= {"Range": f"bytes={done}-"} | ({"If-Range": noted["mark"]} if noted["mark"] else {})
        with session.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as answer:
            if answer.status_code == 416:  # nothing lies beyond: it was whole, or is of another version
                if _total(answer) == done:
                    return True
                self._forget()
                return False
            self._check(url, answer)
            total = _total(answer)
            if answer.status_code == 206 and (_begin(answer) != done or total != noted.get("total")):
                self._forget()  # a part of another version, or not the part that was asked for
                return False
            done = done if answer.status_code == 206 else 0
            self._check_total(url, total, done)
            self._remember(url, answer, total)
            return self._write(answer, done, total)

    def _write(self, answer: "Response", done: int, total: int | None) -> bool:
        with open(self.part, "r+b" if done else "wb") as file:
            file.seek(done)
            file.truncate()
            for chunk in answer.iter_content(_CHUNK):
                file.write(chunk)
                done += len(chunk)
                if self.progress:
                    self.progress(done, total or self.size)
        return done == total if total is not None else True

    def _check(self, url: str, answer: "Response") -> None:
        """Raise what a later try would not mend; what it may mend is the caller's."""
        if answer.status_code in _PASSING:
            with suppress(ValueError):
                self.sleep(min(float(answer.headers.get("Retry-After", 0)), self.patience.longest_wait))
            answer.raise_for_status()
        if answer.status_code not in (200, 206):
            raise DataError(
                f"{url}: the server answers {answer.status_code} ({answer.reason}). The file has moved, or is no longer "
                "given out. Look for it on the publisher's page, and use `persofl data prepare NAME --from FOLDER`."
            )

    def _check_total(self, url: str, total: int | None, done: int) -> None:
        if self.size is not None and total is not None and total != self.size:
            raise DataError(
                f"{url}: the server has {total:,} bytes and {self.size:,} were published. The file was replaced; "
                "nothing was kept. Look at the publisher's page, and use `persofl data prepare NAME --from FOLDER`."
            )
        missing, free = (total or self.size or 0) - done, shutil.disk_usage(self.part.parent).free
        if missing > free:
            raise DataError(
                f"{url}: {in_bytes(missing)} are to come, and {self.part.parent} has {in_bytes(free)} free. "
                "Make room, or point PERSOFL_DATA (or --home) at a larger disk."
            )

    def _arrived(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def _noted(self, url: str) -> dict[str, Any]:
        """Return what the server said of the file of which a part has arrived; empty where nothing is known."""
        with suppress(OSError, DataError):
            noted = read_json(self.note)
            return noted if noted.get("url") == url else {}
        return {}

    def _remember(self, url: str, answer: "Response", total: int | None) -> None:
        tag = answer.headers.get("ETag", "")
        mark = answer.headers.get("Last-Modified") if not tag or tag.startswith("W/") else tag
        write_json(self.note, {"url": url, "mark": mark, "total": total})

    def _forget(self) -> None:
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def _hand_over(self, output_file: Any) -> None:
        shutil.move(self.part, str(output_file))
        self.note.unlink(missing_ok=True)


def _total(answer: "Response") -> int | None:
    """Return the bytes of the whole file; None where the server does not say, or packs what it sends."""
    if answer.headers.get("Content-Encoding", "identity") != "identity":
        return None
    text = answer.headers.get("Content-Range", "").rpartition("/")[2]
    text = text if answer.status_code in (206, 416) else answer.headers.get("Content-Length", "")
    return int(text) if text.isdigit() else None


def _begin(answer: "Response") -> int | None:
    text = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    return int(text) if text.isdigit() else None


def _reason(error: Exception) -> str:
    """Return why a request failed, in a few words."""
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answers {error.response.status_code} ({error.response.reason})"
    if isinstance(error, requests.Timeout) or "timed out" in str(error):
        return "the server does not answer in time"
    if isinstance(error, requests.exceptions.SSLError):
        return "the server's certificate is not trusted"
    cut = (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError)
    if isinstance(error, cut) or "IncompleteRead" in str(error):
        return "the connection was cut"
    return "there is no connection to the server"
