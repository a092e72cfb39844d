"""Free Spoken Digit Dataset: ten digits by six speakers, 50 times each; prepared FLAC or the original WAV files.

References:
    Jackson et al., Free spoken digit dataset, https://github.com/Jakobovski/free-spoken-digit-dataset.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import pandas as pd

from ..cache import cached
from ..errors import DataError, raise_if_any
from ..home import find_root
from ..registry import About, register_source
from ..remote import Remote
from ..samples import OFFICIAL, ClientSamples
from .keywords import choose_classes, keyword_problems
from .options import ClipOptions, clip_problems
from .population import to_population
from .prepared import MANIFEST, prepared_takes, read_manifest, read_speakers
from .takes import Take, collect
from .tree import file_take, find_below, of_first_speakers, sound_files

DIGITS = tuple("0123456789")
_FILE = re.compile(r"([0-9])_([^_/]+)_(\d+)\.wav", re.IGNORECASE)
_TEST = 5  # utterances below are the official test set


@register_source("fsdd")
@dataclass(frozen=True)
class FSDD(ClipOptions):
    """Spoken digits of the Free Spoken Digit Dataset; a client is a speaker.

    Reads, whichever ``root`` holds: prepared recordings (``manifest.csv.gz``, ``audio/<speaker>.flac``,
    ``speakers.csv``), or the original files (``recordings/<digit>_<speaker>_<0 to 49>.wav`` and ``metadata.py``, which
    is parsed, never run).

    Recordings are 0.14 to 2.3 s long and their peaks range over 40 dB, so that by default they are scaled to their peak.
    The published split, utterances 0 to 4 for testing and the others for training, is in ``official``.

    Args:
        root: folder; None for what was fetched or prepared.
        digits: which, in the order of the classes; None for all.

    Raises:
        DataError: all options out of range, in one message.
    """

    about: ClassVar[About] = About(
        kind="speaker",
        what="ten digits in English, fifty takes each, 8 kHz, 0.14 to 2.3 s",
        clients="6",
        licence="CC BY-SA 4.0",
        attributes=("gender", "accent", "language", "f0_median_hz"),
        needs="root=FOLDER, or persofl data fetch fsdd",
        task="classify",
        size="21 MB",
        attribution="Jackson et al.: Free Spoken Digit Dataset, github.com/Jakobovski/free-spoken-digit-dataset.",
        remotes=(
            Remote(
                "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/26eb9aaf.zip",
                "free-spoken-digit-dataset.zip",
                unpack="zip",
                members=("*/recordings/*.wav", "*/metadata.py", "*/README.md"),
            ),
        ),
    )

    level: Literal["none", "peak"] = "peak"
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
        root = find_root("fsdd", self.root)
        return cached(self, "fsdd", root, lambda: self._read(root))

    def _read(self, root: Path) -> ClientSamples:
        manifest = find_below(root, MANIFEST)
        if manifest is not None:
            root = manifest.parent
            classes = choose_classes(set(read_manifest(root)["label"]), self.digits, DIGITS, root)
            return self._population(*prepared_takes(root, self, classes, _part), classes, read_speakers(root))
        recordings = find_below(root, "recordings")
        if recordings is None:
            raise DataError(
                f"{root} holds neither {MANIFEST} (prepared) nor a folder 'recordings' (original). Point root at the "
                "folder of either."
            )
        return self._read_files(recordings)

    def _read_files(self, recordings: Path) -> ClientSamples:
        takes = [
            file_take(path, match[2], match[1], int(match[3]), _part(int(match[3])))
            for path, match in sound_files(recordings, _FILE, "<digit>_<speaker>_<number>.wav")
        ]
        classes = choose_classes({take.label for take in takes}, self.digits, DIGITS, recordings)
        listed, chosen = of_first_speakers([take for take in takes if take.label in classes], self)
        return self._population(listed, chosen, classes, read_metadata(recordings.parent / "metadata.py"))

    def _population(
        self, listed: Counter[str], takes: Iterator[Take], classes: tuple[str, ...], known: pd.DataFrame
    ) -> ClientSamples:
        return to_population(
            "fsdd",
            collect(takes, self, listed),
            self,
            classes=classes,
            attributes=known,
            rules=(f"official: utterances 0 to {_TEST - 1} of a digit test, the others train",),
        )


def _part(utterance: int) -> int:
    return OFFICIAL["test" if utterance < _TEST else "train"]


def read_metadata(path: Path) -> pd.DataFrame:
    """Return what ``metadata.py`` says of the speakers, one row each; no rows where there is no such file.

    The file is parsed as Python and its dictionary read as a literal: nothing in it is run.

    Raises:
        DataError: it cannot be read, or holds no dictionary of dictionaries named ``metadata``.
    """
    if not path.is_file():
        return pd.DataFrame(index=pd.Index([], name="client", dtype=object))
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        said = next(
            ast.literal_eval(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign) and "metadata" in map(ast.unparse, node.targets)
        )
        known = {str(name): dict(facts) for name, facts in said.items()}
    except (
        OSError,
        SyntaxError,
        ValueError,
        TypeError,
        AttributeError,
        StopIteration,
        RecursionError,
    ) as error:
        raise DataError(
            f"{path} does not hold metadata = {{speaker: {{...}}, ...}} in plain text ({type(error).__name__}: {error}). "
            "Get the file again or delete it."
        ) from error
    return pd.DataFrame.from_dict(known, orient="index").rename_axis(index="client")
