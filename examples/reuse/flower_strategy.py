"""A Flower strategy that weighs clients by distance, measured from sums only; ``pip install flwr``.

``add_distance_queries`` teaches any ClientApp to answer two queries, and ``DistanceFedAvg`` asks them every few rounds.
The last part runs both in one process, where a real ServerApp calls ``strategy.start(grid, ...)`` just the same.
"""

import torch
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.task_identity import TaskIdentity

from personalization import Summary, build_modulator, combine
from personalization.protocols import SummedReference

protocol = SummedReference()  # the same on both sides


def to_record(summary):
    scalars = {"weight": summary.weight, "noise": summary.noise}
    return ArrayRecord({name: Array(x.numpy()) for name, x in (scalars | summary.totals).items()})


def from_record(record):
    arrays = {name: torch.from_numpy(x.numpy().copy()) for name, x in record.items()}
    return Summary(arrays.pop("weight"), arrays.pop("noise"), arrays)


def add_distance_queries(app, load_features):
    """Client side: ``load_features(context)`` gives the client's training samples, ``(n, F)``."""

    @app.query("summary")
    def _(message, context):
        summary = protocol.summary(load_features(context))
        return Message(RecordDict({"sum": to_record(summary)}), reply_to=message)

    @app.query("distance")
    def _(message, context):
        samples = load_features(context)
        squared, variance = protocol.answer(samples, from_record(message.content["sum"]))
        answer = {"n": len(samples), "squared": float(squared), "variance": float(variance)}
        return Message(RecordDict({"answer": MetricRecord(answer)}), reply_to=message)


class DistanceFedAvg(FedAvg):
    """FedAvg with weights steered by distance, measured anew every ``every`` rounds."""

    def __init__(self, modulator, *, every=10, **options):
        super().__init__(**options)
        self.modulator, self.every = modulator, every

    def configure_train(self, server_round, arrays, config, grid):
        if (server_round - 1) % self.every == 0:
            self.nodes, self.distances = self.measure(grid)
        return super().configure_train(server_round, arrays, config, grid)

    def measure(self, grid):
        nodes = sorted(grid.get_node_ids())
        # One after the other goes into the sum; with Flower's SecAgg+ only the sum would arrive.
        total = combine(from_record(r.content["sum"]) for r in self.ask(grid, nodes, "query.summary"))
        replies = self.ask(grid, nodes, "query.distance", {"sum": to_record(total)})
        answers = {r.metadata.src_node_id: r.content["answer"] for r in replies}
        nodes = sorted(answers)
        n, squared, variance = (
            torch.tensor([answers[k][name] for k in nodes]) for name in ("n", "squared", "variance")
        )
        return nodes, protocol.judge(total, n, squared.double(), variance.double())

    def ask(self, grid, nodes, kind, records=None):
        messages = [Message(RecordDict(records or {}), node, kind) for node in nodes]
        return [r for r in grid.send_and_receive(messages) if not r.has_error()]

    def aggregate_train(self, server_round, replies):
        replies = [r for r in replies if r.has_error() or r.metadata.src_node_id in self.nodes]
        usable = [r for r in replies if not r.has_error()]
        metrics = [next(iter(r.content.metric_records.values())) for r in usable]
        rows = [self.nodes.index(r.metadata.src_node_id) for r in usable]
        sizes = torch.tensor([[float(m[self.weighted_by_key])] for m in metrics])
        weights = self.modulator(sizes, self.distances.select(rows))
        for record, weight in zip(metrics, weights):
            record[self.weighted_by_key] = float(weight)
        return super().aggregate_train(server_round, replies)


# Ten clients in one process, the first unlike the others.

torch.manual_seed(0)
data = {node: torch.randn(60, 4) + (2.0 if node == 1 else 0.0) for node in range(1, 11)}
app = ClientApp()
add_distance_queries(app, lambda context: data[context.node_id])


@app.train()
def train(message, context):
    """Each client's model is the mean of its samples, so that the result tells who counted."""
    mean = data[context.node_id].mean(0)
    metrics = MetricRecord({"num-examples": len(data[context.node_id])})
    reply = {"arrays": ArrayRecord({"mean": Array(mean.numpy())}), "metrics": metrics}
    return Message(RecordDict(reply), reply_to=message)


class InOneProcess(Grid):
    """Hands messages to the app directly; Flower's own simulation does it with Ray."""

    run = None

    def set_run(self, run): ...
    def create_message(self, *arguments, **more): ...
    def push_messages(self, messages): ...
    def pull_messages(self, message_ids): ...

    def get_node_ids(self):
        return list(data)

    def send_and_receive(self, messages, *, timeout=None):
        for message in messages:
            node = message.metadata.dst_node_id
            yield app(message, Context(0, node, {}, RecordDict(), {}))


TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1  # a deployed app has them from Flower
start = ArrayRecord({"mean": Array(torch.zeros(4).numpy())})
options = {"fraction_evaluate": 0.0, "min_train_nodes": 10}
means = {}
for name, strategy in (
    ("FedAvg", FedAvg(**options)),
    ("by distance", DistanceFedAvg(build_modulator("weight_by_distance", slope=0.05), **options)),
):
    result = strategy.start(InOneProcess(), start, num_rounds=2)
    means[name] = torch.from_numpy(result.arrays["mean"].numpy())
    print(f"{name:12} shared mean {means[name].mean():+.3f}; the typical client's is 0")
