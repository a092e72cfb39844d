"""Collected clips to a population: who is kept, which takes are copies of each other, and the rules in words."""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import gcd

import numpy as np
import pandas as pd
import torch

from ..errors import DataError
from ..samples import ClientSamples
from ..series import Dropped, count_reasons, offsets_of
from .options import ClipOptions
from .takes import Collected

_SHOWN = 3  # examples in a rule


def to_population(
    name: str,
    collected: Collected,
    options: ClipOptions,
    *,
    classes: Sequence[str],
    attributes: pd.DataFrame,
    rules: Sequence[str] = (),
) -> ClientSamples:
    """Return the speakers that keep the rules, in order of name, each with its clips by class and number.

    Takes of a speaker that are equal sample by sample share a group, so that no split parts them, and the most
    held-out part of the official split among them. A copy of another speaker's take is left out.

    Args:
        name: of the source.
        collected: its clips.
        options: the shared options.
        classes: all labels, in the order of their numbers.
        attributes: indexed by speaker; speakers it does not know get missing values.
        rules: of the source itself; they come first.

    Raises:
        DataError: no clip is left.
    """
    table = collected.table
    table = table.assign(target=pd.Categorical(table["label"], list(classes)).codes.astype(np.int64))
    table = table.sort_values(["client", "target", "number", "where"])
    foreign = _of_another_speaker(table)
    table = table[~foreign]
    kept, dropped = _keep(table, collected.listed, options)
    table = table[table["client"].isin(kept)]
    if not len(table):
        raise DataError(
            f"No clip of source {name!r} is left: {count_reasons(dropped) or 'none was found'}. "
            f"{'; '.join(_what_was_left_out(collected, options, int(foreign.sum())))}"
        )
    copies = table.duplicated(["client", "digest"])
    return ClientSamples(
        name=name,
        inputs=collected.inputs(table.index.to_numpy(np.int64)),
        targets=torch.from_numpy(table["target"].to_numpy().copy()),
        offsets=offsets_of([int(n) for n in table["client"].value_counts().reindex(kept)]),
        clients=tuple(kept),
        attributes=attributes.reindex(kept).rename_axis(index="client"),
        classes=tuple(classes),
        groups=torch.from_numpy(pd.factorize(table["digest"])[0].astype(np.int64)),
        official=_official(table),
        rules=(
            *rules,
            *_in_words(collected, options),
            *_what_was_left_out(collected, options, int(foreign.sum())),
            f"groups: {int(copies.sum())} takes equal an earlier one of their speaker sample by sample and stay on its "
            "side of every split",
        ),
        dropped=dropped,
    )


def _of_another_speaker(table: pd.DataFrame) -> "pd.Series[bool]":
    """Return where a take is a copy of one of a speaker who comes earlier."""
    first = table.groupby("digest", sort=False)["client"].transform("first")
    return table["client"] != first


def _keep(
    table: pd.DataFrame, listed: Mapping[str, int], options: ClipOptions
) -> tuple[list[str], tuple[Dropped, ...]]:
    """Return the speakers with enough clips, and the others."""
    considered = first_speakers(listed, options)
    clips = Counter(table["client"])
    short = {client: count for client, count in sorted(listed.items()) if count < options.min_clips}
    short |= {client: clips[client] for client in considered if clips[client] < options.min_clips}
    dropped = tuple(
        Dropped(client, f"min_clips: {count} clips, {options.min_clips} asked for")
        for client, count in sorted(short.items())
    )
    return [client for client in considered if client not in short], dropped


def first_speakers(listed: Mapping[str, int], options: ClipOptions) -> list[str]:
    """Return the first ``options.clients`` speakers in order of name, of those with enough recordings."""
    enough = [client for client in sorted(listed) if listed[client] >= options.min_clips]
    return enough[: options.clients]


def _official(table: pd.DataFrame) -> torch.Tensor | None:
    """Return the official parts, copies in the most held-out one among them; None where the source has none."""
    if (table["official"] < 0).all():
        return None
    parts = table.groupby(["client", "digest"], sort=False)["official"].transform("max")
    return torch.from_numpy(parts.to_numpy(np.int8).copy())


def _in_words(collected: Collected, options: ClipOptions) -> list[str]:
    counts, total = collected.counts, len(collected.table)
    said = [
        f"clips: {options.seconds:g} s at {options.rate} Hz; shorter recordings get zeros at their end "
        f"({counts['padded']} of {total}), longer ones keep their middle ({counts['cropped']})"
    ]
    for key in sorted(key for key in counts if key.startswith("rate ")):
        rate = int(key.split()[1])
        divisor = gcd(rate, options.rate)
        said.append(
            f"resampled: {counts[key]} recordings from {rate} to {options.rate} Hz, ratio {options.rate // divisor}/"
            f"{rate // divisor}, polyphase low-pass"
        )
    if options.level == "peak":
        said.append("level: every recording is scaled to a peak of 1")
    if options.features == "log_mel":
        said.append(options.log_mel().in_words())
    if options.clients is not None:
        said.append(f"clients: only the first {options.clients} speakers in order of name")
    return said


def _what_was_left_out(collected: Collected, options: ClipOptions, foreign: int) -> list[str]:
    said = [
        f"min_peak: {collected.counts['silent']} recordings with a peak below {options.min_peak:g} of full scale left "
        "out"
    ]
    if foreign:
        said.append(f"duplicates: {foreign} copies of an earlier speaker's take left out")
    if collected.bad:
        more = f" and {len(collected.bad) - _SHOWN} more" if len(collected.bad) > _SHOWN else ""
        said.append(
            f"on_bad: {len(collected.bad)} files left out: {' | '.join(collected.bad[:_SHOWN])}{more}"
        )
    return said
