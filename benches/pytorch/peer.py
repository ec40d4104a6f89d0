"""ComplEx by PyKEEN, as its users would train it, on a graph of ours: what benches/peers.py compares with.

PyKEEN's own model, training loop over all entities (LCWA, with inverse relations), cross-entropy and evaluator. Ours are the settings:
Adagrad, its learning rate, the deviation of the initial embeddings and the weight of N3, which is PyKEEN's power sum of order 3.
"""

import argparse
import json
import pathlib
import time

import numpy as np
import pyarrow.parquet
import torch
from pykeen.evaluation import RankBasedEvaluator
from pykeen.models import ComplEx
from pykeen.training import LCWATrainingLoop, TrainingCallback
from pykeen.triples import CoreTriplesFactory


def triples(graph: pathlib.Path, split: str) -> torch.Tensor:
    """Ids `(triple, 3)` of heads, relations and tails."""
    rows = pyarrow.parquet.read_table(graph / f"{split}.parquet", columns=["head", "relation", "tail"])
    return torch.from_numpy(np.stack([column.to_numpy() for column in rows.columns], axis=1).astype(np.int64))


class Stop(Exception):
    """Enough was timed."""


class Watch(TrainingCallback):
    """Prints seconds of training after each epoch, with the validation MRR after some; or only times some batches."""

    def __init__(self, evaluate, every: int, batches: int | None):
        super().__init__()
        self.evaluate, self.every, self.batches = evaluate, every, batches
        self.seconds, self.ends = 0.0, []
        self.began = time.monotonic()

    def post_batch(self, epoch, batch, **kwargs) -> None:
        self.ends.append(time.monotonic())
        if self.batches and len(self.ends) > self.batches:
            raise Stop

    def post_epoch(self, epoch, epoch_loss, **kwargs) -> None:
        self.seconds += time.monotonic() - self.began
        mrr = self.evaluate("valid") if epoch % self.every == 0 else None
        print(json.dumps({"epoch": epoch, "seconds": self.seconds, "loss": float(epoch_loss), "valid_mrr": mrr}), flush=True)
        self.began = time.monotonic()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("graph", type=pathlib.Path)
    parser.add_argument("--rank", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=1000, help="pairs of query and tail of a step, on average")
    parser.add_argument("--learning-rate", type=float, default=0.1)
    parser.add_argument("--deviation", type=float, default=1e-3)
    parser.add_argument("--n3", type=float, default=0.01)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--every", type=int, default=3, help="epochs between validations")
    parser.add_argument("--batches", type=int, help="time so many instead, and the evaluation of test")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)

    splits = {split: triples(options.graph, split) for split in ["train", "valid", "test"]}
    entities, relations = (1 + max(int(split[:, columns].max()) for split in splits.values()) for columns in [[0, 2], [1]])
    factory = CoreTriplesFactory(splits["train"], entities, relations, create_inverse_triples=True)
    initial = {"mean": 0.0, "std": options.deviation}
    model = ComplEx(
        triples_factory=factory, embedding_dim=options.rank, loss="CrossEntropy", random_seed=0,
        entity_initializer=lambda x: torch.nn.init.normal_(x, **initial), relation_initializer=lambda x: torch.nn.init.normal_(x, **initial),
        regularizer="PowerSum", regularizer_kwargs={"weight": options.n3, "p": 3.0, "dim": -1, "normalize": False},
    )

    def evaluate(split: str) -> float:
        known = [splits["train"]] + ([splits["valid"]] if split == "test" else [])
        results = RankBasedEvaluator().evaluate(model, splits[split], batch_size=256, use_tqdm=False, additional_filter_triples=known)
        model.train()
        return results.get_metric("both.realistic.inverse_harmonic_mean_rank")

    watch = Watch(evaluate, options.every, options.batches)
    loop = LCWATrainingLoop(model=model, triples_factory=factory, optimizer=torch.optim.Adagrad(model.parameters(), lr=options.learning_rate))
    queries = len(torch.cat([splits["train"][:, :2], splits["train"][:, [2, 1]] + torch.tensor([0, relations])]).unique(dim=0))
    batch = round(options.pairs * queries / (2 * len(splits["train"])))
    try:
        loop.train(factory, num_epochs=options.epochs, batch_size=batch, use_tqdm=False, use_tqdm_batch=False, callbacks=watch)
    except Stop:
        steps = sorted(end - begin for begin, end in zip(watch.ends, watch.ends[1:]))
        began = time.monotonic()
        mrr = evaluate("test")
        report = {"epoch_seconds": steps[len(steps) // 2] * queries / batch, "evaluation_seconds": time.monotonic() - began, "mrr": mrr}
        print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
