"""Data sources by name: one class, one file, one decorator."""

from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

from .errors import DataError, did_you_mean, raise_if_any
from .remote import Remote
from .samples import ClientSamples
from .series import ClientSeries


@dataclass(frozen=True)
class About:
    """What a source is, in words, for ``persofl data list``.

    Args:
        kind: what its clients are, ``"household electricity"``.
        what: one line about the data.
        clients: how many there are, ``"5,567"`` or ``"any number"``.
        licence: of the data.
        attributes: what is known of each client beside its series.
        needs: what a user has to bring, ``"nothing"`` or ``"root=FOLDER (download)"``.
        task: ``"forecast"``, ``"classify"``, ``"regress"``; several where options choose.
        size: of the official files, ``"261 MB"``.
        attribution: whom and what to cite.
        remotes: the official files that ``persofl data fetch`` gets; none where a user has to.
    """

    kind: str = ""
    what: str = ""
    clients: str = ""
    licence: str = ""
    attributes: tuple[str, ...] = ()
    needs: str = "nothing"
    task: str = "forecast"
    size: str = ""
    attribution: str = ""
    remotes: tuple[Remote, ...] = ()


@runtime_checkable
class Source(Protocol):
    """A frozen dataclass whose fields are its options and whose ``load`` returns the population."""

    about: ClassVar[About]

    def load(self) -> ClientSeries | ClientSamples:
        """Return the series or samples of all clients that the source's rules keep."""
        ...


SourceType = TypeVar("SourceType", bound=type[Any])
SOURCES: dict[str, type[Any]] = {}


def register_source(name: str) -> Callable[[SourceType], SourceType]:
    """Register a source class under ``name``.

    Raises:
        DataError: the name is taken, or the class is no dataclass with ``load`` and ``about``.
    """

    def register(source: SourceType) -> SourceType:
        if name in SOURCES and SOURCES[name].__qualname__ != source.__qualname__:
            raise DataError(f"Source name {name!r} is taken by {SOURCES[name].__qualname__}. Choose another.")
        lacking = [part for part in ("load", "about") if not hasattr(source, part)]
        if lacking or not is_dataclass(source):
            raise DataError(
                f"{source.__qualname__} cannot be source {name!r}: a source is a dataclass with load() "
                f"and about{f'; it lacks {lacking}' if lacking else ''}."
            )
        SOURCES[name] = source
        return source

    return register


def build_source(name: str, **options: Any) -> Source:
    """Return the source ``name`` with these options.

    Raises:
        DataError: no such source, options it does not have, or required ones missing, in one message.
    """
    if name not in SOURCES:
        raise DataError(f"There is no data source {name!r}. {did_you_mean(name, SOURCES)}")
    declared = [field for field in fields(SOURCES[name]) if field.init]
    known = {field.name for field in declared}
    required = {f.name for f in declared if f.default is MISSING and f.default_factory is MISSING}
    raise_if_any(
        [
            f"Source {name!r} has no option {option!r}. {did_you_mean(option, known)}"
            for option in options
            if option not in known
        ]
        + [f"Source {name!r} needs {option}=..." for option in sorted(required - set(options))]
    )
    source: Source = SOURCES[name](**options)
    return source


def source_info() -> list[dict[str, str]]:
    """Return one row a source: its name and what it says of itself, in text."""
    return [{"name": name, **_in_words(SOURCES[name].about)} for name in sorted(SOURCES)]


def _in_words(about: About) -> dict[str, str]:
    words = {item.name: getattr(about, item.name) for item in fields(about)}
    words["remotes"] = tuple(remote.url for remote in about.remotes)
    return {key: ", ".join(value) if isinstance(value, tuple) else value for key, value in words.items()}
