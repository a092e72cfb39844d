"""Sources, client series, windows and scaling: from meters to forecast windows, client by client."""

from .errors import DataError
from .series import ClientSeries, Dropped
from .windows import SPANS, ForecastWindows, Span, WindowSpec, make_windows

__all__ = [
    "SPANS",
    "ClientSeries",
    "DataError",
    "Dropped",
    "ForecastWindows",
    "Span",
    "WindowSpec",
    "make_windows",
]
