"""What single kernels take: the bounds that docs/performance.md reasons with.

    python -m benchmarks.kernels [--compile]

One thread, float32. DS-CNN's layers on 32 examples of 24 channels by 13 x 11, a step of four clients of it, DLinear's
moving average, attention of ten clients' batches over 28 tokens in 4 heads of 8, the products of ten clients' recurrent
step, and, with ``--compile``, the element-wise part of an LSTM step with and without ``torch.compile``.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from persofl.memory import keep_freed_memory
from persofl.models.forecast import moving_average
from persofl.models.images import Convolution
from persofl.models.norms import GroupNorm

CLIENTS, BATCH, HIDDEN = 10, 32, 32
ops = torch.ops.aten


def took(run: Callable[[], object], repeats: int = 100) -> float:
    """Median microseconds of a call."""
    times = []
    for _ in range(repeats + 10):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return 1e6 * statistics.median(times[10:])


def convolutions() -> list[tuple[str, float]]:
    """Forward and back, channels outermost (NCHW) and innermost (NHWC)."""
    channels, places = 24, 13 * 11
    plain, rows = [], []
    shape = (BATCH, channels, 13, 11)
    for layout, format_ in (("NCHW", torch.contiguous_format), ("NHWC", torch.channels_last)):
        x = torch.randn(shape).contiguous(memory_format=format_)
        grad, ones = torch.randn_like(x), torch.ones(channels)
        for name, weight, groups in (
            ("depthwise 3 x 3", torch.randn(channels, 1, 3, 3), channels),
            ("pointwise", torch.randn(channels, channels, 1, 1), 1),
        ):
            pad, mask = [weight.shape[-1] // 2] * 2, [True, True, False]
            there = took(lambda x=x, w=weight, p=pad, g=groups: F.conv2d(x, w, padding=p, groups=g))
            back = took(
                lambda x=x, w=weight, p=pad, g=groups, grad=grad, mask=mask: ops.convolution_backward(
                    grad, x, w, None, [1, 1], p, [1, 1], False, [0, 0], g, mask
                )
            )
            plain.append((f"{name}, {layout}", there + back))
        _, mean, scale = ops.native_group_norm(x, ones, ones, BATCH, channels, places, 4, 1e-5)
        there = took(lambda x=x, ones=ones: F.group_norm(x, 4, ones, ones))
        back = took(
            lambda x=x, grad=grad, ones=ones, mean=mean, scale=scale: ops.native_group_norm_backward(
                grad, x, mean, scale, ones, BATCH, channels, places, 4, [True] * 3
            )
        )
        plain.append((f"group norm, {layout}", there + back))
    flat, square = torch.randn(BATCH * places, channels), torch.randn(channels, channels)
    rows.append(("pointwise as products", took(lambda: (flat @ square, flat @ square.T, flat.T @ flat))))
    return plain + rows


def separable_step(clients: int = 4, channels: int = 24) -> list[tuple[str, float]]:
    """A client's share of a stacked DS-CNN's step there and back, of layers whose numbers the cache holds."""
    keep_freed_memory()
    wide = clients * channels
    x = torch.randn(BATCH, wide, 13, 11).contiguous(memory_format=torch.channels_last).requires_grad_()
    spectra = torch.randn(BATCH, clients, 25, 20).contiguous(memory_format=torch.channels_last)
    grad = torch.randn_like(x)

    def both(layer: Convolution, images: Tensor) -> float:
        layer.weight = torch.nn.Parameter(layer.weight.repeat(clients, 1, 1, 1, 1))
        leaves = [layer.weight] + [images] * images.requires_grad
        return took(lambda: torch.autograd.grad(layer(images), leaves, grad))

    stem = both(Convolution(1, channels, (10, 4), (2, 2)), spectra)
    depthwise = both(Convolution(channels, channels, (3, 3), groups=channels), x)
    pointwise = both(Convolution(channels, channels, (1, 1)), x)
    norm = GroupNorm(4, channels)
    norm.gain, norm.shift = (torch.nn.Parameter(torch.ones(clients, channels)) for _ in range(2))
    leaves = [x, norm.gain, norm.shift]
    ours = took(lambda: torch.autograd.grad(norm.rectified(x), leaves, grad))
    torchs = took(lambda: torch.autograd.grad(torch.relu_(norm(x)), leaves, grad))
    convolutions = stem + 3 * (depthwise + pointwise)
    return [
        ("DS-CNN, a client's convolutions of a step", convolutions / clients),
        ("DS-CNN, its 7 normalisations with ReLU", 7 * ours / clients),
        ("DS-CNN, the same by torch's kernels", 7 * torchs / clients),
    ]


def averages(steps: int = 168, kernel: int = 25) -> list[tuple[str, float]]:
    """DLinear's moving average over fifty clients' windows: ours, by running sums, and by pooling."""
    x, half = torch.randn(50 * BATCH, steps), kernel // 2
    padded = F.pad(x.unsqueeze(1), (half, half), mode="replicate").squeeze(1)

    def sums() -> Tensor:
        reached = F.pad(padded.cumsum(1), (1, 0))
        return (reached[:, kernel:] - reached[:, :-kernel]) / kernel

    return [
        ("moving average, products", took(lambda: moving_average(x.unsqueeze(-1), kernel))),
        ("moving average, running sums", took(sums)),
        ("moving average, pooling", took(lambda: F.avg_pool1d(padded.unsqueeze(1), kernel, stride=1))),
    ]


def attention() -> list[tuple[str, float]]:
    """Forward and back, by two products and a softmax, and by torch's fused kernel."""
    parts = [torch.randn(CLIENTS * BATCH, 4, 28, 8, requires_grad=True) for _ in range(3)]

    def by_hand(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return ((q / 8**0.5) @ k.mT).softmax(-1) @ v

    def both(attend: Callable[..., Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(attend(*parts).sum(), parts)

    fused = F.scaled_dot_product_attention
    return [("attention, two products", took(both(by_hand), 30)), ("attention, fused", took(both(fused), 30))]


def products() -> list[tuple[str, float]]:
    """The three products of an LSTM step."""
    weight, state = torch.randn(CLIENTS, 4 * HIDDEN, HIDDEN + 2), torch.randn(CLIENTS, HIDDEN + 2, BATCH)
    pre, own = torch.randn(CLIENTS, 4 * HIDDEN, BATCH), torch.randn(CLIENTS, HIDDEN, 4 * HIDDEN)
    sums = torch.zeros(CLIENTS, HIDDEN + 2, 4 * HIDDEN)
    return [
        ("recurrent product, forward", took(lambda: torch.bmm(weight, state))),
        ("recurrent product, to the state", took(lambda: torch.bmm(own, pre))),
        ("recurrent product, to the weights", took(lambda: sums.baddbmm_(state, pre.mT))),
    ]


def compiled() -> list[tuple[str, float]]:
    """The element-wise part of an LSTM step, as kernels in place and compiled as one function."""
    gate, cell = torch.randn(CLIENTS, 4 * HIDDEN, BATCH), torch.randn(CLIENTS, HIDDEN, BATCH)

    def step(gate: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        enter, forget, new, leave = gate.sigmoid().split(HIDDEN, 1)
        after = forget * cell + enter * (2 * new - 1)
        squash = 2 * torch.sigmoid(2 * after) - 1
        return after, squash, leave * squash

    fast = torch.compile(step, dynamic=False)
    start = time.perf_counter()
    fast(gate, cell)
    compiling = 1e6 * (time.perf_counter() - start)
    return [
        ("LSTM element-wise, kernels", took(lambda: step(gate, cell))),
        ("LSTM element-wise, compiled", took(lambda: fast(gate, cell))),
        ("compiling it", compiling),
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kernels",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--compile", action="store_true", help="also torch.compile, which needs a C++ compiler"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = (
        convolutions()
        + separable_step()
        + averages()
        + attention()
        + products()
        + (compiled() if args.compile else [])
    )
    print("| kernel | microseconds |\n|---|---:|")
    for name, microseconds in found:
        print(f"| {name} | {microseconds:,.0f} |")


if __name__ == "__main__":
    main()
