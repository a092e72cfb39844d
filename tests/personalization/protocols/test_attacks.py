"""What the server can reconstruct: everything from FedWaD, the population's mean from the default."""

import pytest
import torch

from personalization import build_distance
from personalization.protocols import (
    ClassGaussians,
    FedWaD,
    GaussianNoise,
    PairwiseMasks,
    QuantileSketches,
    SummedReference,
    TriangleWad,
)
from personalization.protocols.attacks import (
    membership_gaps,
    reconstruct,
    reconstruction_error,
)

F = 5


def population(sizes=(30,) * 6, seed=0):
    g = torch.Generator().manual_seed(100 + seed)  # not the protocols' own draws
    return [torch.randn(n, F, generator=g) + 2 * torch.randn(F, generator=g) for n in sizes]


def attacked(protocol, features, **more):
    """Error per client, over that of guessing the population's mean for everyone."""
    transcript = protocol.run(features).transcript
    mean = torch.cat(features).mean(0, keepdim=True)
    return [
        reconstruction_error(reconstruct(protocol, transcript, k, F, **more), x)
        / reconstruction_error(mean, x)
        for k, x in enumerate(features)
    ]


@pytest.mark.parametrize("share", [None, 0.5])
def test_fedwad_gives_every_sample_away(share):
    assert max(attacked(FedWaD(rounds=3, share=share), population())) < 1e-4


def test_fedwad_with_fewer_points_than_samples_gives_means_of_a_few_away():
    features = population((40, 40, 40))
    blurred = attacked(FedWaD(rounds=3, support=20), features)
    own = [
        reconstruction_error(x.mean(0, keepdim=True), x)
        / reconstruction_error(torch.cat(features).mean(0)[None], x)
        for x in features
    ]
    assert all(1e-3 < b < 0.7 * o for b, o in zip(blurred, own, strict=True))


def test_fedwad_with_noise_gives_nothing_away():
    noisy = FedWaD(rounds=2, noise=GaussianNoise(1.0, clip=6.0))
    assert min(attacked(noisy, population((30, 30)))) > 1


@pytest.mark.parametrize("kind", ["sliced", "gaussian"])
def test_the_default_tells_the_same_attacker_the_population_mean_and_no_more(kind):
    protocol = SummedReference(kind=build_distance(kind), draws=16)
    assert attacked(protocol, population()) == pytest.approx([1.0] * 6, abs=1e-4)


def test_a_masked_message_read_as_it_stands_is_no_guess():
    features = population()
    protocol = SummedReference(kind=build_distance("gaussian"), draws=16)
    transcript = protocol.run(features).transcript
    for k, x in enumerate(features):
        content = transcript.between(f"client {k}", "server")[0].content
        naive = PairwiseMasks().decode({"mean": content["mean"]})["mean"][None] / len(x)
        assert reconstruction_error(naive, x) > 100 * reconstruction_error(
            torch.cat(features).mean(0)[None], x
        )


def test_without_masks_sums_tell_each_clients_mean():
    features = population()
    errors = attacked(SummedReference(kind=build_distance("gaussian"), masks=None, draws=16), features)
    centred = [
        reconstruction_error(x.mean(0, keepdim=True), x)
        / reconstruction_error(torch.cat(features).mean(0)[None], x)
        for x in features
    ]
    assert errors == pytest.approx(centred, rel=1e-4)
    assert max(errors) < 0.9


def test_trianglewad_blurs_until_a_client_gives_the_cloud_away():
    features = population()
    protocol = TriangleWad(seed=9)
    blurred = attacked(protocol, features)
    gamma = protocol.reference([30] * 6, features[0])
    assert max(attacked(protocol, features, secret=gamma)) < 1e-4
    assert min(blurred) > 0.2
    assert max(blurred) < 1, "it tells more than sums do"
    assert max(attacked(TriangleWad(share=0.95), features)) < 0.2, "near 1 the cut is the samples"


@pytest.mark.parametrize("protocol", [QuantileSketches(), ClassGaussians()], ids=repr)
def test_sketches_and_gaussians_tell_each_clients_mean(protocol):
    features = population()
    transcript = protocol.run(features).transcript
    for k, x in enumerate(features):
        guess = reconstruct(protocol, transcript, k, F)
        assert float((guess - x.mean(0)).norm()) < 0.05 * float(x.mean(0).norm())


def test_noise_for_clients_hides_their_means_in_sketches():
    features = population()
    protocol = QuantileSketches(noise=GaussianNoise(1.0, clip=6.0))
    transcript = protocol.run(features).transcript
    off = [
        float((reconstruct(protocol, transcript, k, F) - x.mean(0)).norm() / x.mean(0).norm())
        for k, x in enumerate(features)
    ]
    assert sum(off) / len(off) > 0.5


def test_sketches_tell_who_is_a_member_unless_there_is_noise():
    """With more levels than samples every projection of a member is in the sketch."""
    members, others = population((60, 60), seed=3)
    others = others - others.mean(0) + members.mean(0)

    def auc(protocol):
        sketch = protocol.run([members, others]).transcript.messages[0].content["sketch"]
        inside, outside = (membership_gaps(sketch, x, seed=0) for x in (members, others))
        return float((inside[:, None] < outside[None]).float().mean())

    assert auc(QuantileSketches()) == 1.0
    assert auc(QuantileSketches(quantiles=16)) < 0.9, "fewer levels than samples hide them somewhat"
    assert abs(auc(QuantileSketches(noise=GaussianNoise(1.0, clip=6.0, unit="sample"))) - 0.5) < 0.15


def test_a_transcript_without_content_cannot_be_attacked():
    protocol = TriangleWad()
    silent = protocol.run(population((5, 5)), record=False).transcript
    with pytest.raises(ValueError, match="record=True"):
        reconstruct(protocol, silent, 0, F)
    loud = protocol.run(population((5, 5))).transcript
    with pytest.raises(ValueError, match="nothing of client 7"):
        reconstruct(protocol, loud, 7, F)
    with pytest.raises(ValueError, match="No attack on NoneType"):
        reconstruct(None, loud, 0, F)
