"""Random numbers as functions of ``(seed, round, client, purpose)``.

Nothing here has state, so a resumed run, another oracle, another chunking or another number of workers draws the same
examples. Keys come from the splitmix64 mixer; sampling without replacement walks a small Feistel permutation.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_GOLDEN, _MIX_A, _MIX_B = (
    np.uint64(0x9E3779B97F4A7C15),
    np.uint64(0xBF58476D1CE4E5B9),
    np.uint64(0x94D049BB133111EB),
)
_SMALL = 1024


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scramble 64-bit words (splitmix64's finaliser; Steele et al., OOPSLA 2014)."""
    with np.errstate(over="ignore"):
        z = z + _GOLDEN
        z = (z ^ (z >> np.uint64(30))) * _MIX_A
        z = (z ^ (z >> np.uint64(27))) * _MIX_B
    return z ^ (z >> np.uint64(31))


def keys(seed: int, round_: int, clients: Tensor | NDArray[np.int64], purpose: str) -> NDArray[np.uint64]:
    """One 64-bit key per client for a purpose in a round, shape ``(clients,)``."""
    word = np.frombuffer(hashlib.blake2b(purpose.encode(), digest_size=8).digest(), dtype=np.uint64)
    for value in (seed, round_):
        word = _mix(word ^ np.array([value], dtype=np.int64).view(np.uint64))
    return _mix(word ^ np.asarray(clients, dtype=np.int64).view(np.uint64))


def integer_seed(seed: int, round_: int, purpose: str) -> int:
    """A seed in ``[0, 2**63)`` for generators of other libraries."""
    return int(keys(seed, round_, np.zeros(1, dtype=np.int64), purpose)[0] >> np.uint64(1))


def generator(seed: int, round_: int, purpose: str) -> torch.Generator:
    """A CPU generator that depends on the arguments only."""
    return torch.Generator().manual_seed(integer_seed(seed, round_, purpose))


def ranks(key: NDArray[np.uint64], counts: Tensor, draws: int) -> Tensor:
    """Which of its examples each client draws: passes over the data, each in a new random order.

    Args:
        key: one per client, see :func:`keys`.
        counts: examples of each client, ``(clients,)`` int64, from 1 to 2**31 - 1.
        draws: how many examples to draw per client.

    Returns:
        ``(clients, draws)`` int64, ``0 <= ranks[k] < counts[k]``; the first ``counts[k]`` draws are distinct, and so is
        every later pass of that length.
    """
    size = counts.numpy().astype(np.int64)
    result = np.empty((size.size, draws), dtype=np.int64)
    # Few rounds scramble a large domain well and a tiny one badly; the choice must depend on the client alone.
    for chosen, rounds in ((size >= _SMALL, 4), (size < _SMALL, 24)):
        if chosen.any():
            result[chosen] = _passes(key[chosen, None], size[chosen, None], draws, rounds)
    return torch.from_numpy(result)


def _passes(key: NDArray[np.uint64], size: NDArray[np.int64], draws: int, rounds: int) -> NDArray[np.int64]:
    """Images of ``0, 1, ...`` under one permutation of ``range(size)`` per pass, ``(clients, draws)``."""
    index = np.broadcast_to(np.arange(draws, dtype=np.int64), (size.size, draws))
    epoch = np.zeros((1, 1), dtype=np.int64)
    if draws > size.min():
        epoch, index = np.divmod(index, size)
    return permuted(_mix(key ^ epoch.view(np.uint64)), index, size, rounds)


def permuted(
    key: NDArray[np.uint64], index: NDArray[np.int64], size: NDArray[np.int64], rounds: int
) -> NDArray[np.int64]:
    """Images of ``index`` under a random permutation of ``range(size)``, elementwise.

    A Feistel network over the smallest power of two that holds ``size`` is walked until the image falls inside
    (Black and Rogaway, Ciphers with arbitrary finite domains, CT-RSA 2002), so no permutation is ever stored.

    Args:
        key: elements with the same key and size share a permutation; broadcasts against ``index``.
        index: elements of ``range(size)``.
        size: the domain, at least 1 and below 2**31; broadcasts against ``index``.
        rounds: of the network.
    """
    bits = np.frexp((size - 1).astype(np.float64))[1].clip(min=2).astype(np.uint32)
    low, high = (key & np.uint64(0xFFFFFFFF)).astype(np.uint32), (key >> np.uint64(32)).astype(np.uint32)
    image = _feistel(index.astype(np.uint32, order="C"), bits, (low, high), rounds)
    words = [np.broadcast_to(part, image.shape).reshape(-1) for part in (bits, low, high)]
    limit = np.broadcast_to(size, image.shape).reshape(-1)
    flat = image.reshape(-1)
    todo = np.flatnonzero(flat >= limit)
    while todo.size:
        flat[todo] = _feistel(flat[todo], words[0][todo], (words[1][todo], words[2][todo]), rounds)
        todo = todo[flat[todo] >= limit[todo]]
    return image.astype(np.int64)


def _feistel(
    value: NDArray[np.uint32],
    bits: NDArray[np.uint32],
    words: tuple[NDArray[np.uint32], NDArray[np.uint32]],
    rounds: int,
) -> NDArray[np.uint32]:
    """One pass of an unbalanced Feistel network over ``bits``-bit words."""
    right_bits = bits >> np.uint32(1)
    right_mask = (np.uint32(1) << right_bits) - np.uint32(1)
    left_mask = (np.uint32(1) << (bits - right_bits)) - np.uint32(1)
    left, right = value >> right_bits, value & right_mask
    for turn in range(rounds):
        word = words[turn // 2 % 2] + np.uint32(0x9E3779B9 * (turn + 1) & 0xFFFFFFFF)
        if turn % 2:
            right ^= _scramble(left ^ word) & right_mask
        else:
            left ^= _scramble(right ^ word) & left_mask
    joined: NDArray[np.uint32] = (left << right_bits) | right
    return joined


def _scramble(z: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Scramble 32-bit words; the low bits of the result depend on every bit of the argument."""
    z *= np.uint32(0x7FEB352D)
    z ^= z >> np.uint32(15)
    z *= np.uint32(0x846CA68B)
    z ^= z >> np.uint32(16)
    return z
