"""Models that train one client or a whole cohort at once."""

from .dscnn import DSCNN
from .forecast import MLP, TCN, DLinear, GRUForecaster, LinearForecaster, LSTMForecaster, Shape
from .layers import GRU, LSTM, CausalConv, Linear
from .normalise import InstanceNormalised
from .registry import MODELS, build_model, model_options, register_model
from .transformer import Transformer

__all__ = [
    "DSCNN",
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
    "Transformer",
    "build_model",
    "model_options",
    "register_model",
]
