"""From recordings, one after the other, to a population of speakers: what all voice sources share."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..errors import DataError
from ..runs import Floats, Ints
from .audio import Sound, at_peak, fit_length, peak_of, resample, to_mono
from .features import log_mel
from .options import ClipOptions

_AT_ONCE = 256  # clips turned into features together


@dataclass(frozen=True, eq=False)
class Take:
    """One recording, read when its turn comes.

    Args:
        client: who speaks.
        label: what is said.
        number: tells the takes of a client and label apart.
        where: file or place in one, for messages.
        read: returns the samples.
        official: part of the source's own split, as in ``data_loaders.samples.OFFICIAL``; -1 for none.
    """

    client: str
    label: str
    number: int
    where: str
    read: Callable[[], Sound]
    official: int = -1


@dataclass(frozen=True, eq=False)
class Collected:
    """Clips in order of arrival.

    Args:
        parts: of ``(clips, steps, channels)`` float32, cut along the clips; never one more copy of it all.
        table: one row a clip: client, label, number, official, digest (of the recording's samples), where.
        listed: recordings seen of each client, those left out included.
        counts: what was done how often.
        bad: what was wrong with files left out.
    """

    parts: tuple[Tensor, ...]
    table: pd.DataFrame
    listed: Counter[str]
    counts: Counter[str]
    bad: tuple[str, ...]

    def inputs(self, rows: Ints) -> Tensor:
        """Return the inputs of some rows of the table, ``(rows, steps, channels)``."""
        chosen, begin = torch.tensor(rows), 0
        shape = self.parts[0].shape[1:] if self.parts else (1, 1)
        out = torch.empty(len(rows), *shape)
        for part in self.parts:
            here = ((chosen >= begin) & (chosen < begin + len(part))).nonzero()[:, 0]
            out[here] = part[chosen[here] - begin]
            begin += len(part)
        return out


@dataclass(eq=False)
class _Log:
    rows: list[tuple[str, str, int, int, bytes, str]] = field(default_factory=list)
    listed: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)


def collect(
    takes: Iterable[Take], options: ClipOptions, listed: Mapping[str, int] | None = None
) -> Collected:
    """Read takes one by one and return their clips; only the features and a few hundred waves are held.

    Args:
        takes: in any order.
        options: the shared ones.
        listed: recordings of every speaker where the source counts them itself, also those not among ``takes``; may
            grow while the takes are read.

    Raises:
        DataError: a recording that cannot be read or used, unless ``on_bad="skip"``.
    """
    log, parts = _Log(), list[Tensor]()
    for waves in _batches(_clips(takes, options, log)):
        clips = torch.from_numpy(np.stack(waves))
        parts.append(clips.unsqueeze(2) if options.features == "wave" else log_mel(clips, options.log_mel()))
    names = ["client", "label", "number", "official", "digest", "where"]
    seen = Counter(log.listed if listed is None else listed)
    return Collected(tuple(parts), pd.DataFrame(log.rows, columns=names), seen, log.counts, tuple(log.bad))


def _batches(waves: Iterable[Floats]) -> Iterator[Sequence[Floats]]:
    batch = list[Floats]()
    for wave in waves:
        batch.append(wave)
        if len(batch) == _AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def _clips(takes: Iterable[Take], options: ClipOptions, log: _Log) -> Iterator[Floats]:
    """Yield the clips that are kept, and write down what was done."""
    for take in takes:
        log.listed[take.client] += 1
        try:
            sound = to_mono(take.read(), options.stereo, take.where)
            clip = _clip(sound, options, log.counts, take.where)
        except DataError as error:
            if options.on_bad == "error":
                raise
            log.bad.append(str(error))
            continue
        if clip is not None:
            digest = blake2b(np.ascontiguousarray(sound.wave).data, digest_size=12).digest()
            log.rows.append((take.client, take.label, take.number, take.official, digest, take.where))
            yield clip


def _clip(sound: Sound, options: ClipOptions, counts: Counter[str], where: str) -> Floats | None:
    """Return a recording as a clip, ``(clip samples,)``; None where it is near silent."""
    if peak_of(sound.wave) < options.min_peak:
        counts["silent"] += 1
        return None
    if sound.rate < options.rate:
        raise DataError(
            f"{where} has {sound.rate} samples a second; rate={options.rate} asks for more than was recorded. Use "
            f"rate={sound.rate}."
        )
    if sound.rate != options.rate:
        counts[f"rate {sound.rate}"] += 1
    wave = resample(sound, options.rate, where).wave
    counts["padded"] += len(wave) < options.samples
    counts["cropped"] += len(wave) > options.samples
    return fit_length(at_peak(wave) if options.level == "peak" else wave, options.samples)
