"""The common part of both references: the workload as dsom-bench wrote it, initial parameters, and the clock."""

import argparse
import json
import pathlib
import time

import numpy as np
import torch
from safetensors import safe_open

LEARNING_RATE = 0.1
N3 = 0.01
GAMMA, TAU, ALPHA, BETA = 2.0, 4.0, 1.0, 1.0
HIDDEN, POLICY_LEARNING_RATE = 1024, 1e-4
REWARD, PENALTY = 1.0, -10.0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("workload", type=pathlib.Path)
    parser.add_argument("--model", required=True, help="student, or a teacher's modality")
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="where tensors are made: cpu, cuda or cuda:N")
    parser.add_argument("--steps", type=int, default=5, help="to time, after one that is not")
    parser.add_argument("--all", action="store_true", help="the student always takes all teachers")
    parser.add_argument("--same-batches", action="store_true", help="research: the triples of the grouped batches")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    torch.set_default_device(options.device)
    return options


class Workload:
    """Batches of (head, relation, tails), or of (tail, (head, relation, tails)); tensors by name."""

    def __init__(self, folder: pathlib.Path, rank: int):
        plan = json.loads((folder / "workload.json").read_text())
        self.folder, self.rank = folder, rank
        self.entities, self.relations = plan["entities"], plan["relations"]
        self.batches, self.triples = plan["batches"], plan["triples"]
        self.teachers, self.has_student = plan["teachers"], plan["student"]
        self.tensors = safe_open(folder / "tensors.safetensors", "pt")

    def tensor(self, name: str) -> torch.Tensor:
        return self.tensors.get_tensor(name).to(torch.get_default_device())

    def teacher_parameters(self, name: str) -> tuple[torch.Tensor | None, torch.Tensor, torch.Tensor]:
        """A frozen teacher at this rank: features or None, what multiplies them or the table, relations."""
        projected = self.teachers[name] > 0
        features = self.tensor(f"{name}.features") if projected else None
        table = self.tensor(f"{name}.projection" if projected else f"{name}.entity")
        return features, widened(table, self.rank), widened(self.tensor(f"{name}.relation"), self.rank)

    def initial_teacher(self, name: str) -> tuple[torch.Tensor | None, torch.Tensor, torch.Tensor]:
        """A teacher to train: features or None, projection or table, relations."""
        features = self.tensor(f"{name}.features") if self.teachers[name] > 0 else None
        rows = self.entities if features is None else features.shape[1]
        return features, even(rows, 2 * self.rank, 0.1, 1), even(2 * self.relations, 2 * self.rank, 0.1, 2)

    def initial_student(self) -> tuple[torch.Tensor, torch.Tensor]:
        if self.has_student:
            return tuple(widened(self.tensor(f"student.{table}"), self.rank) for table in ("entity", "relation"))
        width = 2 * self.rank
        return even(self.entities, width, 0.1, 1), even(2 * self.relations, width, 0.1, 2)


def hash32(x: np.ndarray) -> np.ndarray:
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x7FEB352D)
    x ^= x >> np.uint32(15)
    x *= np.uint32(0x846CA68B)
    x ^= x >> np.uint32(16)
    return x


def even(rows: int, columns: int, scale: float, stream: int) -> torch.Tensor:
    """The numbers that dsom-bench draws under the same name, in blocks to keep the peak of memory low."""
    into = torch.empty(rows, columns)
    salt = hash32(np.array([stream], dtype=np.uint32))
    for begin in range(0, rows, 1024):
        end = min(begin + 1024, rows)
        positions = np.arange(begin * columns, end * columns, dtype=np.uint32) ^ salt
        values = (hash32(positions).astype(np.float64) / 2.0**31 - 1.0) * scale
        into[begin:end] = torch.from_numpy(values.astype(np.float32)).view(end - begin, columns).to(into.device)
    return into


def widened(table: torch.Tensor, rank: int) -> torch.Tensor:
    """The same embeddings at a higher complex rank, [re | im] with further components of zero."""
    own = table.shape[1] // 2
    kept = min(own, rank)
    wide = torch.zeros(table.shape[0], 2 * rank)
    wide[:, :kept], wide[:, rank : rank + kept] = table[:, :kept], table[:, own : own + kept]
    return wide


def compose(head: torch.Tensor, relation: torch.Tensor) -> torch.Tensor:
    """The complex product, [re | im]: a query's vector."""
    (h_re, h_im), (r_re, r_im) = head.chunk(2, 1), relation.chunk(2, 1)
    return torch.cat([h_re * r_re - h_im * r_im, h_re * r_im + h_im * r_re], 1)


def run(options: argparse.Namespace, batches: list, step) -> None:
    """Says "ready", then times `step(batch)`, which returns the losses per triple (objective, regulariser)."""
    print(json.dumps({"ready": True, "cached": 0}), flush=True)
    report = {"seconds": [], "losses": [], "pairs": []}
    for number in range(options.steps + 1):
        batch = batches[number % len(batches)]
        started = time.perf_counter()
        losses, pairs = step(batch)
        if torch.get_default_device().type == "cuda":
            torch.cuda.synchronize()
        report["seconds"].append(time.perf_counter() - started)
        report["losses"].append(losses)
        report["pairs"].append(pairs)
    print(json.dumps(report))
