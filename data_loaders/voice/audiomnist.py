"""AudioMNIST: ten digits by 60 speakers, 50 times each, with gender, accent, age and origin of each.

References:
    Becker et al., AudioMNIST: exploring explainable artificial intelligence for audio analysis on a simple benchmark,
    Journal of the Franklin Institute 361(1), 2024.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from ..cache import cached
from ..errors import DataError, raise_if_any
from ..home import find_root
from ..registry import About, register_source
from ..remote import Remote
from ..samples import ClientSamples
from .fsdd import DIGITS
from .keywords import choose_classes, keyword_problems
from .options import ClipOptions, clip_problems
from .population import to_population
from .takes import collect
from .tree import file_take, find_below, of_first_speakers, sound_files

META = "audioMNIST_meta.txt"
_FILE = re.compile(r"([^/]+)/([0-9])_([^_/]+)_(\d+)\.wav", re.IGNORECASE)
_OLDEST = 120  # years; "1234" is nobody's age
_ROOMS = {"vr-romm": "vr-room"}  # a slip of the pen in the published file
_FACTS = ("age", "gender", "accent", "native speaker", "origin", "recordingroom", "recordingdate")


@register_source("audiomnist")
@dataclass(frozen=True)
class AudioMNIST(ClipOptions):
    """Spoken digits of AudioMNIST; a client is a speaker.

    Reads ``data/<speaker>/<digit>_<speaker>_<0 to 49>.wav`` (48 kHz) and ``data/audioMNIST_meta.txt``. What it
    says of the speakers is cleaned: ages become numbers, those outside 1 to 120 missing; words are written alike in small
    letters, without underscores and question marks; ``vr-romm`` is ``vr-room``; ``native_speaker`` is yes or no;
    ``continent`` and ``country`` are the first words of the origin.

    Args:
        root: folder; None for what was fetched or prepared.
        digits: which, in the order of the classes; None for all.

    Raises:
        DataError: all options out of range, in one message.
    """

    about: ClassVar[About] = About(
        kind="speaker",
        what="ten digits in English, fifty takes each, 48 kHz",
        clients="60",
        licence="MIT",
        attributes=("age", "gender", "accent", "native_speaker", "continent", "country", "room", "recorded"),
        needs="root=FOLDER, or persofl data fetch audiomnist",
        task="classify",
        size="30,000 files",
        attribution="Becker et al.: AudioMNIST: Exploring explainable artificial intelligence for audio analysis on a "
        "simple benchmark. Journal of the Franklin Institute 361(1), 2024.",
        remotes=(
            Remote(
                "https://github.com/soerenab/AudioMNIST/archive/refs/heads/master.zip",
                "AudioMNIST.zip",
                unpack="zip",
                members=("*/data/*/*.wav", f"*/data/{META}", "*/LICENSE"),
            ),
        ),
    )

    root: str | None = None
    digits: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        problems = clip_problems(self)
        if self.digits is not None:
            problems += keyword_problems(self.digits, DIGITS)
        raise_if_any(problems)

    def load(self) -> ClientSamples:
        """Return the speakers' clips.

        Raises:
            DataError: nothing to read at ``root``, a file that cannot be read, or no clip left.
        """
        root = find_root("audiomnist", self.root)
        return cached(self, "audiomnist", root, lambda: self._read(root))

    def _read(self, root: Path) -> ClientSamples:
        data = root if (root / META).is_file() else find_below(root, "data")
        if data is None:
            raise DataError(
                f"{root} holds neither a folder 'data' nor {META}. Point root at the AudioMNIST folder."
            )
        takes = []
        for path, match in sound_files(data, _FILE, "<speaker>/<digit>_<speaker>_<number>.wav"):
            if match[1] != match[3]:
                raise DataError(
                    f"{path} lies in the folder of speaker {match[1]} and names {match[3]}. Move it."
                )
            takes.append(file_take(path, match[1], match[2], int(match[4])))
        classes = choose_classes({take.label for take in takes}, self.digits, DIGITS, data)
        listed, chosen = of_first_speakers([take for take in takes if take.label in classes], self)
        attributes, rules = read_meta(data / META)
        return to_population(
            "audiomnist",
            collect(chosen, self, listed),
            self,
            classes=classes,
            attributes=attributes,
            rules=rules,
        )


def read_meta(path: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return what the metadata say of the speakers, cleaned, one row each, and how they were cleaned.

    Raises:
        DataError: the file cannot be read, is no JSON, names a speaker twice, or has facts that are no object.
    """
    if not path.is_file():
        return pd.DataFrame(index=pd.Index([], name="client", dtype=object)), (f"there is no {META}",)
    try:
        said = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_once)
    except DataError as error:
        raise DataError(f"{path}: {error} Delete one of the records.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON that can be read: {error}. Get the file again.") from error
    if not isinstance(said, dict) or not all(isinstance(facts, dict) for facts in said.values()):
        raise DataError(f"{path} must be an object of one object a speaker. Get the file again.")
    table = pd.DataFrame.from_dict({name: _clean(facts) for name, facts in said.items()}, orient="index")
    unusable = [
        f"{name}: {facts['age']!r}"
        for name, facts in said.items()
        if facts.get("age") is not None and _age(facts["age"]) is None
    ]
    rules = (
        f"age: {len(unusable)} that are no number from 1 to {_OLDEST} are missing"
        + (f" ({', '.join(unusable)})" if unusable else ""),
        "attributes: small letters, no underscores or question marks; room vr-romm is vr-room",
    )
    return table.rename_axis(index="client"), rules


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{twice[0]!r} is there twice.")
    return dict(pairs)


def _clean(facts: dict[str, Any]) -> dict[str, Any]:
    """Return a speaker's record as attributes; None for what it does not say."""
    words = {name: _words(facts.get(name)) for name in _FACTS}
    places = [place.strip() for place in (words["origin"] or "").split(",")]
    room = words["recordingroom"]
    return {
        "age": _age(facts.get("age")),
        "gender": words["gender"],
        "accent": words["accent"],
        "native_speaker": words["native speaker"],
        "continent": places[0] or None,
        "country": places[1] if len(places) > 1 else None,
        "room": _ROOMS.get(room, room) if room else None,
        "recorded": _stamp(words["recordingdate"]),
    }


def _words(value: object) -> str | None:
    text = " ".join(str("" if value is None else value).replace("_", " ").replace("?", " ").split())
    return text.casefold() or None


def _age(value: object) -> float | None:
    try:
        years = float(str(value).strip())
    except ValueError:
        return None
    return years if 1 <= years <= _OLDEST else None


def _stamp(text: str | None) -> pd.Timestamp | None:
    """Return ``17-06-22-11-04-28`` as a stamp, None where it is none."""
    stamp = pd.to_datetime(text, format="%y-%m-%d-%H-%M-%S", errors="coerce") if text else pd.NaT
    return stamp if isinstance(stamp, pd.Timestamp) else None
