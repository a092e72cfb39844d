"""A federation on a device, and in half of the bytes."""

import copy

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn

from persofl import APFL, Ditto, FedAvg, PersoflError, RoundConfig
from persofl.algorithms import Aligned, Neighbours
from persofl.evaluation import evaluate
from persofl.losses import build_loss
from persofl.oracles import Batch, RoundedOracle
from persofl.placed import PlacedData, placed

ON_META = torch.device("meta")


def test_what_is_placed_computes_there_and_is_looked_up_here(population):
    there = PlacedData(population, ON_META)
    clients, ranks = torch.tensor([0, 3]), torch.tensor([[0, 1], [2, 5]])
    positions = there.positions("train", clients, ranks)
    assert positions.device == ON_META
    assert all(part.device == ON_META for part in there.gather(positions))
    assert there.unscale(clients, torch.zeros(2, 3, 6, device=ON_META)).device == ON_META
    assert torch.equal(there.count("train"), population.count("train"))
    assert there.features(0).device.type == "cpu"
    assert (there.clients, there.shape, len(there)) == (population.clients, population.shape, len(population))


def test_placing_again_starts_from_the_host(population):
    there = placed(population, ON_META)
    assert placed(there, torch.device("cpu")) is population
    assert placed(there, ON_META).host is population
    assert copy.copy(there).host is population


def test_data_that_cannot_be_moved_are_refused_by_name(population):
    class Fixed:
        def __len__(self):
            return 1

    with pytest.raises(PersoflError, match=r"Fixed has no method to\(device\), and so cannot train on meta"):
        placed(Fixed(), ON_META)


def test_a_plan_goes_along_but_for_the_steps(federate):
    plan = federate(Ditto()).personaliser.whole
    there = plan.to(ON_META)
    assert there.lr.device == there.prox.device == there.layers.device == ON_META
    assert there.local_steps is plan.local_steps
    assert there.personal_steps is plan.personal_steps
    some = there.take(torch.tensor([3, 1]))
    assert torch.equal(some.local_steps, plan.local_steps[[3, 1]])
    assert some.prox.shape == (2, 1)


@pytest.mark.parametrize("algorithm", [Ditto(local_steps=3), APFL(local_steps=3), Neighbours(local_steps=3)])
def test_there_and_back_changes_nothing(algorithm, federate, run, device):
    federation = federate(algorithm)
    outcome = run(federation, 2)
    before, error = federation.store.state_dict(), evaluate(federation, outcome.server, "validation")
    assert federation.device == device
    back = federation.to("cpu")
    assert back.device == torch.device("cpu")
    assert all(rows.device.type == "cpu" for rows in back.store.rows.values())
    here = evaluate(back, outcome.server, "validation")
    for name, values in error.items():
        torch.testing.assert_close(here[name], values, rtol=1e-4, atol=1e-6, equal_nan=True)
    again = back.to(device)
    assert again.device == device
    for name, rows in again.store.state_dict().items():
        assert torch.equal(rows, before[name])


def test_a_module_takes_its_federation_along(module, trainer, device):
    built = module("ditto").to(device)
    assert built.federation.device == device
    trainer(2).fit(built)
    assert built.federation.device == built.server.device
    table = built.client_table("validation")
    assert table["nmae"].notna().all()
    alone = built.to("cpu")
    assert alone.federation.device.type == "cpu"
    assert alone.client_model(0) is not None


# --- bfloat16 ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("oracle", ["batched", "vmap", "loop"])
@pytest.mark.parametrize("model", ["linear", "dlinear", "mlp", "gru", "tcn"])
def test_rounded_gradients_are_near_the_full_ones(model, oracle, federate):
    full, low = (federate(FedAvg(), model=model, oracle=oracle, precision=p) for p in ("float32", "bfloat16"))
    rows = full.initial_row().repeat(3, 1)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 8, 24, 1, generator=generator).to(rows)
    y = torch.randn(3, 8, 6, generator=generator).to(rows)
    (losses, grads), (rough, about) = (f.oracle.grad(rows.clone(), Batch(x, y)) for f in (full, low))
    assert about.dtype == rough.dtype == torch.float32
    torch.testing.assert_close(rough, losses, rtol=2e-2, atol=0)
    apart = (about - grads).norm() / grads.norm()
    assert 1e-5 < apart < 3e-2  # rounded, and no more than that
    torch.testing.assert_close(low.oracle.predict(rows, x), full.oracle.predict(rows, x))


class Embedded(nn.Module):
    """Inputs are indices."""

    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(1000, 4), nn.Linear(4, 6)

    def forward(self, x):
        return self.head(self.table(x[..., 0]).mean(-2))


def test_indices_are_not_rounded():
    from persofl.layout import Layout
    from persofl.oracles import LoopOracle

    model = Embedded()
    oracle = RoundedOracle(LoopOracle(model, Layout.of(model), build_loss("mse")))
    rows = oracle.layout.row(model).unsqueeze(0)
    x = torch.full((1, 4, 24, 1), 301)  # 300 in bfloat16
    _, grads = oracle.grad(rows, Batch(x, torch.zeros(1, 4, 6)))
    touched = oracle.layout.views(grads)["table.weight"][0].abs().sum(1).nonzero().flatten()
    assert touched.tolist() == [301]


def test_a_model_with_tensors_of_its_own_is_refused_before_the_first_round(federate):
    class Stateful(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.head = nn.GRU(1, 4, batch_first=True), nn.Linear(4, 6)

        def forward(self, x):
            start = torch.zeros(1, len(x), 4)
            return self.head(self.cell(x, start)[0][:, -1])

    federate(FedAvg(), model=Stateful(), oracle="loop")
    with pytest.raises(PersoflError, match=r"precision='bfloat16': Stateful does not run .* x\.new_zeros"):
        federate(FedAvg(), model=Stateful(), oracle="loop", precision="bfloat16")


@pytest.mark.parametrize("algorithm", [FedAvg(), Ditto(), APFL(), Aligned()], ids=lambda kind: kind.name)
def test_half_of_the_bytes_train_as_well(algorithm, federate, run):
    errors = []
    for precision in ("float32", "bfloat16"):
        federation = federate(algorithm, precision=precision)
        outcome = run(federation, 3)
        errors.append(evaluate(federation, outcome.server, "validation", 3)["nmae"])
    assert not torch.equal(*errors)
    torch.testing.assert_close(*errors, rtol=2e-2, atol=0)


def test_small_steps_are_not_lost(federate):
    """A step of a thousandth of the weight is below bfloat16's digits, and the rows still move."""
    federation = federate(FedAvg(lr=1e-4, local_steps=1), precision="bfloat16")
    rows = federation.initial_row().repeat(2, 1)
    x, y = torch.ones(2, 4, 24, 1).to(rows), torch.ones(2, 4, 6).to(rows)
    before = rows.clone()
    federation.oracle.descend(rows, Batch(x, y), torch.full((2, 1), 1e-4).to(rows))
    assert rows.dtype == torch.float32
    assert ((rows - before) != 0).any(1).all()


def test_running_moments_need_full_precision(federate):
    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.head = nn.BatchNorm1d(24), nn.Linear(24, 6)

        def forward(self, x):
            return self.head(self.norm(x.flatten(1)))

    with pytest.raises(PersoflError, match="would stop the running moments"):
        federate(FedAvg(), model=Normed(), oracle="loop", precision="bfloat16")


def test_other_precisions_are_refused():
    with pytest.raises(PersoflError, match="precision='fp8': 'float32' or 'bfloat16'"):
        RoundConfig(precision="fp8")


def test_lightnings_own_precision_is_refused_with_ours(module, trainer):
    with pytest.raises(
        PersoflError, match=r"precision='bf16-mixed'\) knows nothing .* training.precision: bfloat16"
    ):
        trainer(1, precision="bf16-mixed").fit(module("fedavg"))


@pytest.mark.parametrize("change", ["double", "half", "bfloat16"])
def test_a_module_of_other_numbers_is_refused_and_left_as_it_was(change, module):
    built = module("fedavg")
    with pytest.raises(
        PersoflError, match=r"numbers are torch.float32, and cannot become .* training.precision"
    ):
        getattr(built, change)()
    assert built.server.dtype == torch.float32


def test_what_is_left_of_memory_is_told_with_the_chunk(module, trainer, monkeypatch):
    built = module("fedavg")

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.\nMore.")

    monkeypatch.setattr(type(built.federation.oracle), "descend", full)
    with pytest.raises(PersoflError, match=r"no memory to train \d+ clients at once .*9 GiB.*training.chunk"):
        trainer(1).fit(built)


def test_noise_is_seeded_and_the_generators_stay_as_they_were():
    from persofl.training import forked_noise

    before, drawn = torch.get_rng_state(), []
    for seed in (3, 3, 4):
        with forked_noise(torch.device("cpu"), seed):
            drawn.append(torch.rand(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_a_checkpoint_is_of_the_host(module, trainer, tmp_path):
    """What a machine without such a device can read: every tensor, the optimiser's memory included."""
    built = module("fedadam")
    runner = trainer(1, callbacks=[ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=1)])
    runner.fit(built)
    checkpoint = {
        "state_dict": {"server": torch.empty(1, 3, device=ON_META)},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.empty(3, device=ON_META)}}}],
    }
    with pytest.raises(NotImplementedError, match="meta"):  # it has no data, but to be copied it is asked
        built.on_save_checkpoint(checkpoint)
    (path,) = tmp_path.glob("*.ckpt")

    def devices(value):
        if isinstance(value, torch.Tensor):
            return {value.device.type}
        parts = (
            value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
        )
        return set().union(*map(devices, parts))

    assert devices(torch.load(path, weights_only=True)) == {"cpu"}


def test_a_rounded_oracle_moves(federate, device):
    moved = federate(FedAvg(), precision="bfloat16").oracle.to(device)
    assert isinstance(moved, RoundedOracle)
    assert next(moved.module.parameters()).device == device
