from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_loaders import moments
from data_loaders.moments import guarded, moments_of, pooled


@pytest.mark.parametrize("at_once", [7, 500_000])
@given(st.lists(st.integers(0, 30), min_size=1, max_size=5), st.booleans(), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_moments_are_numpys_however_they_are_added_up(at_once, lengths, gaps, seed):
    generator = np.random.default_rng(seed)
    values = generator.normal(1e3, 1, (sum(lengths), 2, 3)).astype(np.float32)
    if gaps:
        values[generator.random(values.shape) < 0.3] = np.nan
    ends = np.cumsum([0, *lengths])
    rows = [torch.arange(low, high) for low, high in pairwise(ends)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(moments, "_VALUES_AT_ONCE", at_once)
        own = moments_of(torch.from_numpy(values), rows)
    whole = pooled(own)
    flat = values.reshape(-1, 3).astype(np.float64)
    for result, place, part in [
        *((own, k, values[row.numpy()].reshape(-1, 3).astype(np.float64)) for k, row in enumerate(rows)),
        (whole, 0, flat),
    ]:
        for channel in range(3):
            seen = part[~np.isnan(part[:, channel]), channel]
            assert result.count[place, channel] == len(seen)
            if len(seen):
                assert float(result.mean[place, channel]) == pytest.approx(seen.mean())
                assert float(result.variance[place, channel]) == pytest.approx(seen.var(), abs=1e-6)


def test_a_constant_channel_has_a_spread_of_one():
    values = torch.tensor([[1e6, 1.0], [1e6, 3.0]])
    mean, std = guarded(moments_of(values, [torch.arange(2)]))
    assert mean.tolist() == [[1e6, 2.0]]
    assert std.tolist() == [[1.0, 1.0]]
