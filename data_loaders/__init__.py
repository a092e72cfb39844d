"""Sources, client series, windows and scaling: from meters to forecast windows, client by client.

series = build_source("simulated", clients=24).load()
windows = make_windows(series, WindowSpec(lookback=168, horizon=24))
x, y = windows.gather(windows.positions("train", clients, ranks))
"""

from . import own, vehicle, voice  # noqa: F401  their sources register when imported
from .calendar import add_calendar, add_covariate
from .electricity import London, SimulatedHouseholds
from .errors import DataError
from .examples import ClientExamples, make_examples
from .home import data_home, find_root
from .mapped import map_series
from .partition import PARTITIONS, apply_partitions, build_partition, register_partition
from .registry import SOURCES, About, Source, build_source, register_source, source_info
from .remote import Remote
from .resample import resample_series
from .samples import ClientSamples
from .series import ClientSeries, Dropped
from .spec import SampleSpec
from .tables import describe, series_from_table
from .windows import SPANS, ForecastWindows, Span, WindowSpec, make_windows

__all__ = [
    "PARTITIONS",
    "SOURCES",
    "SPANS",
    "About",
    "ClientExamples",
    "ClientSamples",
    "ClientSeries",
    "DataError",
    "Dropped",
    "ForecastWindows",
    "London",
    "Remote",
    "SampleSpec",
    "SimulatedHouseholds",
    "Source",
    "Span",
    "WindowSpec",
    "add_calendar",
    "add_covariate",
    "apply_partitions",
    "build_partition",
    "build_source",
    "data_home",
    "describe",
    "find_root",
    "make_examples",
    "make_windows",
    "map_series",
    "register_partition",
    "register_source",
    "resample_series",
    "series_from_table",
    "source_info",
]
