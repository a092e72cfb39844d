"""Check data of one's own: read all of it as a load would, and report instead of stopping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..errors import DataError
from ..samples import ClientSamples
from .attributes import read_attributes
from .clips import clip_options, read_clips, read_manifest
from .facts import among, client_facts, implausible
from .files import Table, find_files, open_tables
from .findings import Findings
from .options import SERIES, OwnSpec
from .population import Population, nobody_left, place_all, rules, sift
from .readings import read_series
from .report import CheckReport
from .spec import read_spec
from .table_samples import read_frame, to_samples


def check_file(path: str | Path) -> CheckReport:
    """Read a YAML file and its data, and return everything found; never stops at the first problem.

    Args:
        path: the YAML file.
    """
    file = Path(path).expanduser()
    try:
        spec = read_spec(file)
    except DataError as error:
        return CheckReport(str(path), problems=error.problems)
    return check_spec(spec, file)


def check_spec(spec: OwnSpec, file: Path) -> CheckReport:
    """Return what a spec and its data come to; ``file`` is the YAML file that it stands in, or will."""
    findings = Findings()
    report = CheckReport(str(file), understood=understood(spec))
    try:
        paths = find_files(spec, file.parent)
    except DataError as error:
        return replace(report, problems=error.problems)
    tables = open_tables(spec, paths, file.parent, findings)
    attributes = read_attributes(spec, file.parent, findings)
    check = _check_series if spec.layout in SERIES else _check_samples
    report, clients = check(report, spec, tables, attributes, findings)
    study = "" if findings.problems or report.problems else study_yaml(spec, file, report)
    return replace(
        report,
        problems=(*findings.sentences(), *report.problems),
        remarks=(*findings.remarks, *report.remarks),
        attributes=_attributes(spec, attributes, clients),
        study=study,
    )


def understood(spec: OwnSpec) -> dict[str, str]:
    """Return how the files are read, in words."""
    csv, time = spec.csv, spec.time
    said = {"layout": f"{spec.layout}, files {', '.join(spec.files)}"}
    said["text"] = (
        f"delimiter {csv.delimiter!r}, decimal {csv.decimal!r}"
        + (f", thousands {csv.thousands!r}" if csv.thousands else "")
        + f", {csv.encoding}"
        + (f", {csv.skip_rows} lines before the header" if csv.skip_rows else "")
    )
    if spec.layout != "wav":
        form = "ISO 8601" if time.format == "auto" else time.format
        said["stamps"] = (
            f"column {time.column!r}, {form}, clock {time.timezone}, at the {time.stamp} of a step"
        )
    if spec.layout in SERIES:
        to = spec.value.to or spec.value.unit
        said["values"] = f"{spec.value.unit}" + (f" turned into {to}" if to != spec.value.unit else "")
        said["values"] += (
            f", zero is a {spec.value.zero}" if spec.value.zero == "value" else ", zero is missing"
        )
    return said


def study_yaml(spec: OwnSpec, file: Path, report: CheckReport) -> str:
    """Return a study's YAML with these data that runs as it stands."""
    lines = [
        f"name: {spec.name}",
        "data:",
        "  source: own",
        f"  options: {{file: {file}}}",
    ]
    if spec.layout in SERIES:
        step = float(report.totals["step_seconds"])
        day = round(86400 / step)
        long = float(report.totals["median_days"]) >= 60
        lookback, horizon = (7 * day if long else day, day) if step >= 300 else (50, 10)
        lines += [f"  lookback: {lookback}", f"  horizon: {horizon}"]
    lines += ["methods: [local, fedavg, ditto]", "seeds: [0, 1, 2]", "search: {trials: 5}"]
    return "\n".join(lines)


def _check_series(
    report: CheckReport, spec: OwnSpec, tables: Sequence[Table], attributes: pd.DataFrame, findings: Findings
) -> tuple[CheckReport, list[str]]:
    readings = read_series(spec, tables, findings)
    files = [
        {"file": table.shown, "rows": readings.rows.get(table.shown, 0), "columns": len(table.columns)}
        for table in tables
    ]
    population = place_all(readings, spec, findings, check=True)
    placed = {item.client: item for item in population.placed}
    facts = [client_facts(item, placed.get(item.client), spec, population.step) for item in population.sorted]
    _, dropped = sift(population, spec) if population.step else ([], ())
    constant = [item.client for item in facts if item.constant]
    remarks = implausible(facts, population.sorted, spec)
    if constant:
        remarks.append(f"{among(constant, 'client')} constant: there is nothing to learn.")
    left = len(facts) - len(dropped)
    report = replace(
        report,
        files=tuple(files),
        totals=_totals(population, facts, left) if facts else {},
        clients=tuple(facts),
        remarks=tuple(remarks),
        problems=(nobody_left(spec, dropped),) if left < 1 and not findings.problems else (),
        rules=rules(population, spec) if facts else (),
        dropped=dropped,
    )
    return report, [item.client for item in facts]


def _totals(population: Population, facts: Sequence[Any], left: int) -> dict[str, Any]:
    placed = [item for item in facts if item.first]
    per_day = [item.per_day for item in facts if item.per_day]
    totals: dict[str, Any] = {"clients": len(facts), "clients_kept": left}
    if placed:
        totals |= {
            "from": min(item.first for item in placed),
            "to": max(item.last for item in placed),
            "step_seconds": population.step,
            "median_days": float(np.median([item.days for item in placed])),
            "missing": float(np.mean([item.missing for item in placed])),
        }
    steps = sorted({item.step for item in facts if item.step})
    if len(steps) > 1:
        totals["steps_in_the_files"] = steps
    changes = population.counts["clock changes"]
    if changes:
        totals["clock_changes"] = changes
    if per_day:
        low, middle, high = np.quantile(per_day, [0, 0.5, 1])
        totals["kWh_a_day"] = {"least": float(low), "median": float(middle), "most": float(high)}
    return totals


def _check_samples(
    report: CheckReport, spec: OwnSpec, tables: Sequence[Table], attributes: pd.DataFrame, findings: Findings
) -> tuple[CheckReport, list[str]]:
    samples = None
    try:
        read = _table if spec.layout == "samples" else _clips
        samples = read(spec, tables, attributes, findings)
    except DataError as error:
        report = replace(report, problems=error.problems)
    files = [{"file": table.shown, "rows": "", "columns": len(table.columns)} for table in tables]
    if len(tables) == 1:
        files[0]["rows"] = findings.counts["rows"]
    report = replace(report, files=tuple(file for file in files if file["rows"] != ""))
    if samples is None:
        return report, []
    report = replace(
        report,
        totals=_sample_totals(samples),
        rules=samples.rules,
        dropped=samples.dropped,
        remarks=tuple(_unused_channels(samples)),
    )
    return report, list(samples.clients)


def _table(
    spec: OwnSpec, tables: Sequence[Table], attributes: pd.DataFrame, findings: Findings
) -> ClientSamples | None:
    lenient = replace(spec, labels=replace(spec.labels, incomplete="drop"))
    strict = Findings()
    frame, roles = read_frame(spec, tables, strict)
    findings.problems |= strict.problems
    findings.counts += strict.counts
    return to_samples(frame, roles, lenient, attributes, findings) if len(frame) else None


def _clips(
    spec: OwnSpec, tables: Sequence[Table], attributes: pd.DataFrame, findings: Findings
) -> ClientSamples | None:
    read_manifest(spec, tables, findings)
    clip_options(spec, findings)
    skip = replace(
        spec, audio=replace(spec.audio, on_bad="skip"), labels=replace(spec.labels, incomplete="drop")
    )
    inner = Findings()
    samples = read_clips(skip, tables, attributes, inner)
    bad = [rule for rule in samples.rules if rule.startswith("on_bad")]
    if bad and spec.audio.on_bad == "error":
        findings.problem(("bad clips",), bad[0].replace("left out", "cannot be used"))
    return samples


def _sample_totals(samples: ClientSamples) -> dict[str, Any]:
    lengths = samples.lengths.numpy()
    totals: dict[str, Any] = {
        "clients": len(samples),
        "samples": int(lengths.sum()),
        "samples_a_client": {
            "least": int(lengths.min()),
            "median": float(np.median(lengths)),
            "most": int(lengths.max()),
        },
        "shape": f"{samples.inputs.shape[1]} steps x {samples.inputs.shape[2]} channels",
    }
    if samples.classes:
        counts = np.bincount(samples.targets.numpy(), minlength=len(samples.classes))
        totals["classes"] = {name: int(count) for name, count in zip(samples.classes, counts, strict=True)}
    else:
        means = samples.targets.mean(dim=0).tolist()
        totals["mean_target"] = {
            name: float(mean) for name, mean in zip(samples.target_names, means, strict=True)
        }
    if samples.times is not None:
        ends = np.array([int(samples.times.min()), int(samples.times.max())], "datetime64[s]")
        totals |= {"from": str(ends[0]), "to": str(ends[1])}
    if samples.official is not None:
        parts = {"train": 0, "validation": 1, "test": 2}
        totals["official_split"] = {
            name: int((samples.official == part).sum()) for name, part in parts.items()
        }
    return totals


def _unused_channels(samples: ClientSamples) -> list[str]:
    flat = samples.inputs.reshape(-1, samples.inputs.shape[2])
    constant = (flat.max(dim=0).values == flat.min(dim=0).values).nonzero()[:, 0].tolist()
    if not constant:
        return []
    names = [samples.channel_names[at] if samples.channel_names else str(at) for at in constant]
    return [f"Channels that never change: {', '.join(names[:12])}. They teach nothing."]


def _attributes(spec: OwnSpec, attributes: pd.DataFrame, clients: Sequence[str]) -> dict[str, Any]:
    if spec.attributes is None:
        return {}
    known = set(map(str, attributes.index))
    return {
        "file": spec.attributes.file,
        "columns": [str(name) for name in attributes.columns],
        "clients_without": [name for name in clients if name not in known],
        "names_beyond": len(known - set(clients)),
    }
