"""DSoM in PyTorch as fast as we could make it, with the same mathematics as the engine.

Triples grouped by query; scores, loss and their gradient in buffers that live as long as the model; features
multiplied by a projected query where that is cheaper than projecting all entities; teachers' scores from a memory map
of half precision; fused optimisers. Heads, relations, N3 and the policy are left to autograd.
"""

import tempfile

import torch
import torch.nn.functional as F
from torch import nn

import numpy as np

from workload import (
    ALPHA, BETA, GAMMA, HIDDEN, LEARNING_RATE, N3, PENALTY, POLICY_LEARNING_RATE, REWARD, TAU, Workload, arguments,
    compose, run,
)


class Batch:
    """Queries with their tails: `rows` and `tails` are the pairs, `count` is how many a query has."""

    def __init__(self, batch: list):
        self.heads, self.relations = torch.tensor([query[:2] for query in batch]).unbind(1)
        self.count = torch.tensor([len(query[2]) for query in batch])
        self.rows = torch.repeat_interleave(torch.arange(len(batch)), self.count)
        self.tails = torch.tensor([tail for query in batch for tail in query[2]])
        self.weight = self.count.float()[:, None]
        self.pairs = len(self.tails)


class Buffers:
    """Matrices by name that keep their memory from step to step."""

    def __init__(self):
        self.storage = {}

    def get(self, name: str, rows: int, columns: int) -> torch.Tensor:
        if name not in self.storage or self.storage[name].numel() < rows * columns:
            self.storage[name] = torch.empty(rows * columns)
        return self.storage[name][: rows * columns].view(rows, columns)


class ScoreAndLose(torch.autograd.Function):
    """Scores `vectors @ table.T` and a loss of them, whose gradient `lose` writes over the scores."""

    @staticmethod
    def forward(context, vectors, table, buffers, lose):
        scores = torch.mm(vectors, table.T, out=buffers.get("scores", len(vectors), len(table)))
        loss = lose(scores)
        context.save_for_backward(vectors, table, scores)
        return loss

    @staticmethod
    def backward(context, _one):
        # The loss is always the whole of what is differentiated, so its own gradient is one.
        vectors, table, gradient = context.saved_tensors
        of_table = gradient.T @ vectors if context.needs_input_grad[1] else None
        return gradient @ table, of_table, None, None


class ComplEx(nn.Module):
    def __init__(self, features: torch.Tensor | None, table: torch.Tensor, relation: torch.Tensor):
        super().__init__()
        self.features = features
        self.table = nn.Parameter(table)
        self.relation = nn.Parameter(relation)
        self.buffers_of_steps = Buffers()

    def loss(self, batch: Batch, lose) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss that `lose` computes from the scores, and N3."""
        used, place = torch.cat([batch.heads, batch.tails]).unique(return_inverse=True)
        if self.features is None:
            scored, own = self.table, self.table[used]
        elif self.reassociates(len(batch.heads)):
            scored, own = self.features, self.features[used] @ self.table
        else:
            scored = self.features @ self.table
            own = scored[used]
        heads, tails = place.split([len(batch.heads), batch.pairs])
        relation = self.relation[batch.relations]
        vectors = compose(own[heads], relation)
        if scored is self.features:
            vectors = vectors @ self.table.T
        loss = ScoreAndLose.apply(vectors, scored, self.buffers_of_steps, lose)
        with torch.no_grad():
            uses = torch.bincount(heads, batch.weight[:, 0], len(used)) + torch.bincount(tails, minlength=len(used))
        return loss, (n3(own, uses) + n3(relation, batch.weight[:, 0])) / batch.pairs

    def reassociates(self, queries: int) -> bool:
        """Tells whether forward and backward through (q Wᵀ) Fᵀ multiply less than through q (F W)ᵀ."""
        entities, width = self.features.shape
        own = self.table.shape[1]
        through_features = 2 * queries * entities * width + 3 * queries * width * own
        return through_features < 2 * entities * width * own + 3 * queries * entities * own


def n3(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    re, im = x.chunk(2, 1)
    return N3 * (weight @ (re * re + im * im) ** 1.5).sum()


def cross_entropy(batch: Batch):
    """Scores become the gradient of their mean cross-entropy, in place."""

    def lose(scores: torch.Tensor) -> torch.Tensor:
        shift = scores.amax(1, keepdim=True)
        of_tails = scores[batch.rows, batch.tails].sum()
        scores.sub_(shift).exp_()
        total = scores.sum(1, keepdim=True)
        loss = (batch.weight * (shift + total.log())).sum() - of_tails
        scores.mul_(batch.weight / total / batch.pairs)
        minus = torch.full((batch.pairs,), -1.0 / batch.pairs)
        scores.index_put_((batch.rows, batch.tails), minus, accumulate=True)
        return loss / batch.pairs

    return lose


class Softened:
    """One side of Eq. 12: probabilities of the neighbours and of the others, as sums of exp(score / tau)."""

    def __init__(self, scores: torch.Tensor, batch: Batch, into: torch.Tensor):
        shift = scores.amax(1, keepdim=True)
        torch.sub(scores, shift, out=into).div_(TAU).exp_()
        self.exp = into
        self.tails = into[batch.rows, batch.tails]
        into[batch.rows, batch.tails] = 0.0
        self.group = torch.zeros(len(batch.count)).index_add_(0, batch.rows, self.tails)[:, None]
        self.rest = into.sum(1, keepdim=True)
        self.shift = shift
        total, size = self.group + self.rest, batch.weight
        self.p_group, self.p_rest = self.group / total, self.rest / total
        self.mean = self.p_group / size
        self.not_mean = torch.where(size > 1, (size - 1 + self.p_rest) / size, self.p_rest)


class Student:
    def __init__(self, workload: Workload, always_all: bool):
        self.model = ComplEx(None, *workload.initial_student())
        self.names = list(workload.teachers)
        self.labels, self.number = cached_scores(workload)
        strategies = 2 ** len(self.names) - 1
        self.members = torch.tensor(
            [[float(k + 1 >> i & 1) for i in range(len(self.names))] for k in range(strategies)]
        )
        self.always_all = always_all
        self.policy = nn.Sequential(
            nn.Linear(len(self.names) * workload.entities, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, strategies)
        )
        self.optimiser = torch.optim.Adagrad(self.model.parameters(), LEARNING_RATE, fused=True)
        self.policy_optimiser = torch.optim.Adam(self.policy.parameters(), POLICY_LEARNING_RATE, fused=True)
        self.buffers = Buffers()

    def step(self, queries: list):
        batch = Batch(queries)
        count, entities = len(queries), self.labels.shape[2]
        rows = torch.from_numpy(self.labels[[self.number[query[0], query[1]] for query in queries]])
        rows = rows.to(torch.get_default_device())
        action = torch.full((count,), len(self.members) - 1)
        if not self.always_all:
            state = self.state(rows)
            with torch.no_grad():
                action = self.policy(state).softmax(1).multinomial(1)[:, 0]
        chosen = self.members[action]
        combined = self.combine(rows, chosen / chosen.sum(1, keepdim=True), "combined")
        average = self.combine(rows, torch.full_like(chosen, 1 / len(self.names)), "average")
        entropies = {}

        def lose(scores: torch.Tensor) -> torch.Tensor:
            entropies["student"] = entropy_of_tails(scores, batch, self.buffers)
            entropies["combined"] = entropy_of_tails(combined, batch, self.buffers)
            entropies["average"] = entropy_of_tails(average, batch, self.buffers)
            return self.distil(scores, combined, batch, entropies["student"])

        self.optimiser.zero_grad()
        loss, regulariser = self.model.loss(batch, lose)
        (loss + regulariser).backward()
        self.optimiser.step()
        if not self.always_all:
            self.reinforce(state, action, batch, entropies)
        return [loss.item(), regulariser.item()], batch.pairs

    def state(self, rows: torch.Tensor) -> torch.Tensor:
        """All teachers' scores, standardised, side by side."""
        state = self.buffers.get("state", len(rows), rows.shape[1] * rows.shape[2]).view(rows.shape)
        state.copy_(rows)
        variance, mean = torch.var_mean(state, 2, correction=0, keepdim=True)
        return state.sub_(mean).mul_(variance.add_(1e-12).rsqrt_()).flatten(1)

    def combine(self, rows: torch.Tensor, weights: torch.Tensor, name: str) -> torch.Tensor:
        into = self.buffers.get(name, len(rows), rows.shape[2])
        torch.mul(rows[:, 0], weights[:, :1], out=into)
        for teacher in range(1, rows.shape[1]):
            into.addcmul_(rows[:, teacher], weights[:, teacher : teacher + 1])
        return into

    def reinforce(self, state, action, batch, entropies) -> None:
        """Rows without an advantage have no gradient: only the others go through autograd."""
        reward = torch.where(entropies["combined"] < entropies["student"], REWARD, PENALTY)
        baseline = torch.where(entropies["average"] < entropies["student"], REWARD, PENALTY)
        advantage = torch.zeros(len(action)).index_add_(0, batch.rows, reward - baseline)
        used = advantage.nonzero()[:, 0]
        self.policy_optimiser.zero_grad()
        log_pi = F.log_softmax(self.policy(state[used]), 1).gather(1, action[used, None])[:, 0]
        (-(advantage[used] * log_pi).sum() / batch.pairs).backward()
        self.policy_optimiser.step()

    def distil(self, scores, combined, batch, entropies) -> torch.Tensor:
        """Scores become the gradient of cross-entropy and Eq. 12, in place."""
        shape = scores.shape
        student = Softened(scores, batch, self.buffers.get("student", *shape))
        teacher = Softened(combined, batch, self.buffers.get("teacher", *shape))
        binary = xlogy(teacher.mean, student.mean) + xlogy(teacher.not_mean, student.not_mean)
        gap = torch.sub(combined, scores, out=combined).mul_(teacher.exp).sum(1, keepdim=True) / teacher.rest
        rest = (gap - teacher.shift + student.shift) / TAU - teacher.rest.log() + student.rest.log()
        factor = GAMMA * TAU**2
        loss = entropies.sum() + factor * (batch.weight * (ALPHA * binary + BETA * rest)).sum()

        ratio = torch.where(batch.weight > 1, student.p_rest / (batch.weight - 1 + student.p_rest), 1.0)
        k = ALPHA * (teacher.not_mean * student.p_group * ratio - teacher.mean * student.p_rest)
        scale = factor * batch.weight / TAU / batch.pairs
        shift = scores.amax(1, keepdim=True)
        scores.sub_(shift).exp_()
        scores.mul_(batch.weight / scores.sum(1, keepdim=True) / batch.pairs)
        scores.addcmul_(student.exp, scale * (BETA - k) / student.rest)
        scores.addcmul_(teacher.exp, -scale * BETA / teacher.rest)
        of_tails = (scale * k / student.group)[batch.rows, 0] * student.tails - 1 / batch.pairs
        scores.index_put_((batch.rows, batch.tails), of_tails, accumulate=True)
        return loss / batch.pairs


def xlogy(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """x ln(x / y)."""
    return torch.xlogy(x, x / y)


def entropy_of_tails(scores: torch.Tensor, batch: Batch, buffers: Buffers) -> torch.Tensor:
    shift = scores.amax(1, keepdim=True)
    total = torch.sub(scores, shift, out=buffers.get("exp", *scores.shape)).exp_().sum(1, keepdim=True)
    return (shift + total.log())[batch.rows, 0] - scores[batch.rows, batch.tails]


def cached_scores(workload: Workload) -> tuple[np.ndarray, dict]:
    """All teachers' scores of the workload's queries, f16 (query, teacher, entity), as a map of a nameless file."""
    queries = [query for batch in workload.batches for query in batch]
    shape = (len(queries), len(workload.teachers), workload.entities)
    file = tempfile.NamedTemporaryFile(dir=workload.folder)
    with torch.no_grad():
        for begin in range(0, len(queries), 500):
            part = torch.tensor([query[:2] for query in queries[begin : begin + 500]])
            scores = []
            for name in workload.teachers:
                entity, relation = workload.tensor(f"{name}.entity"), workload.tensor(f"{name}.relation")
                scores.append(compose(entity[part[:, 0]], relation[part[:, 1]]) @ entity.T)
            file.write(torch.stack(scores, 1).half().cpu().numpy().tobytes())
    file.flush()
    labels = np.memmap(file.name, np.float16, "r", shape=shape)
    file.close()
    return labels, {(query[0], query[1]): number for number, query in enumerate(queries)}


def teacher_step(model: ComplEx):
    optimiser = torch.optim.Adagrad(model.parameters(), LEARNING_RATE, fused=True)

    def step(queries: list):
        batch = Batch(queries)
        optimiser.zero_grad()
        loss, regulariser = model.loss(batch, cross_entropy(batch))
        (loss + regulariser).backward()
        optimiser.step()
        return [loss.item(), regulariser.item()], batch.pairs

    return step


def main() -> None:
    options = arguments()
    workload = Workload(options.workload, options.rank)
    if options.model == "student":
        step = Student(workload, options.all).step
    else:
        step = teacher_step(ComplEx(*workload.initial_teacher(options.model)))
    run(options, workload.batches, step)


if __name__ == "__main__":
    main()
