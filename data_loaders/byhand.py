"""Downloads made by hand: archives are unpacked into the source's folder, a folder of files is remembered where it lies."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from .archives import archive_kind
from .bars import Steps, shown
from .errors import DataError, did_you_mean
from .fetch import FetchedFile, install, record
from .home import find_root, source_home
from .manifest import sha256_of
from .registry import SOURCES, build_source
from .remote import Remote
from .samples import ClientSamples
from .series import ClientSeries


@dataclass(frozen=True)
class Prepared:
    """What :func:`prepare` did.

    Args:
        root: what the source reads from now on.
        population: what it read there.
        notes: what a user should know, in sentences.
    """

    root: Path
    population: ClientSeries | ClientSamples
    notes: tuple[str, ...]


def prepare(
    name: str, given: str | Path | None = None, progress: bool | Steps = True, **options: Any
) -> Prepared:
    """Load a source from files got by hand, so that it is cached and found again without ``root``.

    Archives (``given`` itself, or the source's own in ``given``) are unpacked into the source's folder; otherwise
    ``given`` is remembered and nothing is copied. Files that cannot be loaded are not remembered.

    Args:
        name: of the source.
        given: folder or file; None for what was fetched or prepared before.
        progress: show bars, or what gives a callback for each step.
        options: of the source, but ``root``.

    Raises:
        DataError: no such source, one that reads no files, nothing at ``given``, or files that cannot be read.
    """
    _check(name)
    if given is None:
        source: Any = build_source(name, **options)
        return Prepared(find_root(name, None), source.load(), ())
    path = Path(given).expanduser().resolve()
    if not path.exists():
        raise DataError(f"There is no file or folder {path}. Check the path.")
    packed = _archives(name, path)
    with shown(progress) as steps:
        files = tuple(_install(name, remote, archive, steps) for remote, archive in packed.items())
    own = source_home(name)
    root = own if packed else path
    population = build_source(name, root=str(root), **options).load()
    record(own, name, files, None if root == own.resolve() or packed else root)
    notes = tuple(_note(file, remote) for file, remote in zip(files, packed, strict=True))
    return Prepared(root, population, notes)


def _check(name: str) -> None:
    if name not in SOURCES:
        raise DataError(f"There is no data source {name!r}. {did_you_mean(name, SOURCES)}")
    if "root" not in {field.name for field in fields(SOURCES[name])}:
        needs = SOURCES[name].about.needs
        raise DataError(
            f"Source {name!r} reads no downloaded files, so there is nothing to prepare. It needs {needs}."
        )


def _archives(name: str, path: Path) -> dict[Remote, Path]:
    """Return the archives to unpack: the source's own by their names, or the file that was given."""
    official = {remote.name: remote for remote in SOURCES[name].about.remotes}
    if path.is_dir():
        packed = [remote for remote in official.values() if remote.unpack != "no"]
        return {remote: path / remote.name for remote in packed if (path / remote.name).is_file()}
    if path.name in official:  # some sources read their archive as it is
        return {official[path.name]: path} if official[path.name].unpack != "no" else {}
    kind = archive_kind(path)
    return {Remote(path.as_uri(), path.name, unpack=kind): path} if kind else {}


def _install(name: str, remote: Remote, archive: Path, steps: Steps) -> FetchedFile:
    digest = sha256_of(archive)
    done = install(remote, archive, digest, source_home(name), steps(f"unpack {archive.name}"))
    return replace(done, url=archive.as_uri())


def _note(file: FetchedFile, remote: Remote) -> str:
    if file.published:
        return f"{file.name}: SHA-256 as published; unpacked."
    if remote.sha256:
        return f"{file.name}: SHA-256 is {file.sha256}, published is {remote.sha256}: another version, or a damaged one."
    return f"{file.name}: no checksum is published; SHA-256 {file.sha256}; unpacked."
