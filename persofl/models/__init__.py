"""Forecasting models that train one client or a whole cohort at once."""

from .forecast import MLP, TCN, DLinear, GRUForecaster, LinearForecaster, LSTMForecaster, Shape
from .layers import GRU, LSTM, CausalConv, Linear
from .normalise import InstanceNormalised
from .registry import MODELS, build_model, model_options, register_model

__all__ = [
    "GRU",
    "LSTM",
    "MLP",
    "MODELS",
    "TCN",
    "CausalConv",
    "DLinear",
    "GRUForecaster",
    "InstanceNormalised",
    "LSTMForecaster",
    "Linear",
    "LinearForecaster",
    "Shape",
    "build_model",
    "model_options",
    "register_model",
]
