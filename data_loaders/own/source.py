"""Data of one's own as a source: one YAML file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ..cache import cached
from ..errors import DataError
from ..registry import About, register_source
from ..samples import ClientSamples
from ..series import ClientSeries
from .attributes import read_attributes
from .files import find_files, open_tables
from .findings import Findings
from .options import OwnSpec
from .population import place_all, to_series
from .readings import read_series
from .spec import read_spec


@register_source("own")
@dataclass(frozen=True)
class Own:
    """Tables, folders and clips of one's own, described by a short YAML file; see docs/own_data.md.

    Args:
        file: the YAML file; paths in it are relative to it.

    Raises:
        DataError: no file.
    """

    about: ClassVar[About] = About(
        kind="your own",
        what="wide or long tables, a folder of files, labelled samples or clips, described by a YAML file",
        clients="yours",
        licence="yours",
        needs="file=YAML (`persofl data check some.csv --write mine.yaml` makes one)",
        task="forecast, classify, regress",
    )

    file: str

    def __post_init__(self) -> None:
        if not isinstance(self.file, str) or not self.file:
            raise DataError(f"file must name the YAML file that describes your data, got {self.file!r}.")

    def load(self) -> ClientSeries | ClientSamples:
        """Return the population that the YAML file describes.

        Raises:
            DataError: everything that is wrong with the YAML file, else everything that is wrong with the data.
        """
        yaml = Path(self.file).expanduser()
        spec, folder = read_spec(yaml), yaml.parent
        paths = find_files(spec, folder)
        beside = [folder / spec.attributes.file] if spec.attributes else []
        roots = [yaml, *paths, *(path for path in beside if path.is_file())]
        return cached(self, "own", roots, lambda: load_spec(spec, folder, paths))  # type: ignore[type-var]


def load_spec(spec: OwnSpec, folder: Path, paths: list[Path]) -> ClientSeries | ClientSamples:
    """Read the files of a spec; all problems come in one message.

    Raises:
        DataError: a file or client that cannot be used.
    """
    findings = Findings()
    tables = open_tables(spec, paths, folder, findings)
    attributes = read_attributes(spec, folder, findings)
    if spec.layout == "samples":
        from .table_samples import read_samples

        return read_samples(spec, tables, attributes, findings)
    if spec.layout == "wav":
        from .clips import read_clips

        return read_clips(spec, tables, attributes, findings)
    readings = read_series(spec, tables, findings)
    findings.raise_if_any()
    population = place_all(readings, spec, findings)
    findings.raise_if_any()
    return to_series(population, spec, attributes)
