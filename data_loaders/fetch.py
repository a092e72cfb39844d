"""Official files onto this machine: downloaded, checked, unpacked, and written down."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from .bars import Steps, shown
from .download import Patience, Resuming
from .errors import DataError, did_you_mean
from .home import DOWNLOADS, MANIFEST, OURS, source_home
from .manifest import now, provenance, read_json, sha256_of, write_json
from .registry import SOURCES, About
from .remote import Remote
from .sink import Progress, in_bytes
from .unpack import unpack


@dataclass(frozen=True)
class FetchedFile:
    """One official file that is here.

    Args:
        name: of the file.
        url: where it came from.
        size: bytes.
        sha256: of the file.
        published: whether ``sha256`` is the published one; else it was recorded when the file first arrived.
        date: when it arrived.
        entries: what of it lies directly in the source's folder.
    """

    name: str
    url: str
    size: int
    sha256: str
    published: bool
    date: str
    entries: tuple[str, ...]


@dataclass(frozen=True)
class Fetched:
    """What :func:`fetch` did.

    Args:
        root: the source's folder.
        new: names of the files that were downloaded now.
        files: all files that are here.
        notes: what a user should know, in sentences.
    """

    root: Path
    new: tuple[str, ...]
    files: tuple[FetchedFile, ...]
    notes: tuple[str, ...]


def fetch(
    name: str,
    home: str | Path | None = None,
    progress: bool | Steps = True,
    *,
    again: bool = False,
    patience: Patience = Patience(),  # noqa: B008
) -> Fetched:
    """Download the official files of a source, check and unpack them; files that are here already are not.

    Args:
        name: of the source.
        home: folder under which each source has its own; by default :func:`data_loaders.data_home`.
        progress: show bars, or what gives a callback for each step.
        again: download files that are here already.
        patience: how often to try.

    Returns:
        What was fetched and what to know about it. The manifest beside the files says the same.

    Raises:
        DataError: no such source, one whose files have to be got by hand, no network, a wrong checksum, a hostile archive,
            a full disk, or another process that fetches it. Nothing wrong is kept; a cut download goes on the next time.
    """
    remotes = remotes_of(name)
    folder = source_home(name, home)
    with _alone(folder, name), shown(progress) as steps:
        known, new, notes = _recorded(folder), list[str](), list[str]()
        for remote in remotes:
            before = known.get(remote.name)
            if before and not again and _is_here(remote, before, folder):
                continue
            if again:  # else what arrived and could not be unpacked is taken as it is
                _arrival(remote, folder).unlink(missing_ok=True)
            known[remote.name] = _fetch_one(name, remote, folder, steps, patience)
            new.append(remote.name)
            notes += _notes(known[remote.name], before)
            record(folder, name, tuple(known.values()))
    return Fetched(folder, tuple(new), tuple(known.values()), tuple(notes))


def remotes_of(name: str) -> tuple[Remote, ...]:
    """Return the official files of a source.

    Raises:
        DataError: no such source, or one whose files have to be got by hand; says how.
    """
    if name not in SOURCES:
        raise DataError(f"There is no data source {name!r}. {did_you_mean(name, SOURCES)}")
    about: About = SOURCES[name].about
    if about.remotes:
        return about.remotes
    if about.needs == "nothing":
        raise DataError(f"Source {name!r} needs no files: it is made when it is loaded.")
    where = f" {about.attribution}." if about.attribution else ""
    raise DataError(
        f"Source {name!r} has no file that could be fetched; it needs {about.needs}.{where} Get it by hand (licence: "
        f"{about.licence or 'see there'}), then run `persofl data prepare {name} --from FOLDER`."
    )


def record(folder: Path, name: str, files: tuple[FetchedFile, ...], root: Path | None = None) -> None:
    """Write the manifest of a source's folder.

    Args:
        folder: the source's folder.
        name: of the source.
        files: official files that were unpacked there.
        root: folder or file elsewhere that holds the data; None where ``folder`` does.
    """
    about = SOURCES[name].about if name in SOURCES else None
    said = {**provenance(name, about), "files": [asdict(file) for file in files]}
    write_json(folder / MANIFEST, said | ({"root": str(root)} if root else {}))


def _recorded(folder: Path) -> dict[str, FetchedFile]:
    if not (folder / MANIFEST).is_file():
        return {}
    files = read_json(folder / MANIFEST).get("files", [])
    return {file["name"]: FetchedFile(**{**file, "entries": tuple(file["entries"])}) for file in files}


def _is_here(remote: Remote, before: FetchedFile, folder: Path) -> bool:
    same = before.url == remote.url and remote.sha256 in (None, before.sha256)
    return same and bool(before.entries) and all((folder / entry).exists() for entry in before.entries)


def _fetch_one(name: str, remote: Remote, folder: Path, steps: Steps, patience: Patience) -> FetchedFile:
    arrived = _download(name, remote, folder / DOWNLOADS, steps(f"fetch {remote.name}"), patience)
    digest = remote.sha256 or sha256_of(arrived)
    done = install(remote, arrived, digest, folder, steps(f"unpack {remote.name}"))
    arrived.unlink(missing_ok=True)
    return done


def install(
    remote: Remote, arrived: Path, digest: str, folder: Path, progress: Progress | None
) -> FetchedFile:
    """Put an official file that has arrived into a source's folder; an archive is unpacked and stays where it is.

    Args:
        remote: which it is.
        arrived: where it lies.
        digest: its SHA-256.
        folder: the source's folder.
        progress: of unpacking.
    """
    size = arrived.stat().st_size
    if remote.unpack == "no":
        place = folder / _inside(remote)
        place.parent.mkdir(parents=True, exist_ok=True)
        arrived.replace(place)
        names: tuple[str, ...] = (remote.name,)
    else:
        names = unpack(arrived, folder, members=remote.members, reserved=OURS, progress=progress)
    entries = tuple(sorted({PurePosixPath(path).parts[0] for path in names}))
    return FetchedFile(remote.name, remote.url, size, digest, digest == remote.sha256, now(), entries)


def _download(name: str, remote: Remote, downloads: Path, progress: Progress, patience: Patience) -> Path:
    import pooch

    pooch.get_logger().setLevel("WARNING")
    plain = _arrival(remote, downloads.parent).name
    downloader: Any = Resuming(
        downloads / f"{plain}.part", size=remote.size, patience=patience, progress=progress
    )
    if not remote.url.startswith(("http://", "https://")):
        downloader = pooch.core.choose_downloader(remote.url)
    known = f"sha256:{remote.sha256}" if remote.sha256 else None
    try:
        return Path(pooch.retrieve(remote.url, known, plain, downloads, downloader=downloader))
    except DataError as error:
        raise DataError(str(error).replace("prepare NAME", f"prepare {name}")) from error
    except ValueError as error:
        got = str(error).rpartition("but got ")[2].partition(". ")[0]
        raise DataError(
            f"{remote.url}: the checksum is wrong: expected SHA-256 {remote.sha256}, got {got}. Nothing was kept. Run the "
            "command again; if it is wrong again, the publisher has changed the file: look at the publisher's page."
        ) from error


def _arrival(remote: Remote, folder: Path) -> Path:
    """Return where a file lies once it has arrived, before it is unpacked or moved."""
    return folder / DOWNLOADS / "_".join(_inside(remote).parts)


def _inside(remote: Remote) -> PurePosixPath:
    path = PurePosixPath(remote.name)
    if path.is_absolute() or ".." in path.parts or path.parts[0] in OURS:
        raise DataError(f"{remote.url}: {remote.name!r} is no name for a file in the source's folder.")
    return path


def _notes(file: FetchedFile, before: FetchedFile | None) -> list[str]:
    if file.published:
        return []
    if before and before.sha256 != file.sha256:
        return [
            f"{file.name} differs from the one that arrived on {before.date[:10]}: SHA-256 {file.sha256}, was "
            f"{before.sha256}. Its publisher has changed it."
        ]
    return [f"{file.name}: no checksum is published; recorded: {in_bytes(file.size)}, SHA-256 {file.sha256}."]


@contextmanager
def _alone(folder: Path, name: str) -> Iterator[None]:
    """Hold a lock, so that two processes do not write one part file; the kernel frees it however this one ends."""
    import fcntl

    (folder / DOWNLOADS).mkdir(parents=True, exist_ok=True)
    with open(folder / DOWNLOADS / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DataError(
                f"Another process is fetching {name!r} into {folder}. Wait for it, or stop it."
            ) from error
        yield
