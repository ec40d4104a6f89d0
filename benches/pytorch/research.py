"""DSoM the way research code does it, from the paper and from the public description of kbc.

One row of scores per triple, reciprocal relations, autograd everywhere; a modality's teacher projects all entities at
every step; the student's step asks all teachers anew, concatenates their scores for the policy, and masks B x E
matrices for the neighbours.
"""

import torch
import torch.nn.functional as F
from torch import nn

from workload import (
    ALPHA, BETA, GAMMA, HIDDEN, LEARNING_RATE, N3, PENALTY, POLICY_LEARNING_RATE, REWARD, TAU, Workload, arguments,
    compose, run,
)


class ComplEx(nn.Module):
    """Scores of all entities: embeddings are a table, or features times a projection."""

    def __init__(self, features: torch.Tensor | None, table: torch.Tensor, relation: torch.Tensor):
        super().__init__()
        self.features = features
        self.table = nn.Parameter(table)
        self.relation = nn.Parameter(relation)

    def embeddings(self) -> torch.Tensor:
        return self.table if self.features is None else self.features @ self.table

    def forward(self, h: torch.Tensor, r: torch.Tensor, t: torch.Tensor):
        entities = self.embeddings()
        head, relation, tail = entities[h], self.relation[r], entities[t]
        return compose(head, relation) @ entities.T, (head, relation, tail)


def n3(factors: tuple[torch.Tensor, ...]) -> torch.Tensor:
    total = 0
    for factor in factors:
        re, im = factor.chunk(2, 1)
        total = total + N3 * ((re**2 + im**2) ** 1.5).sum()
    return total / factors[0].shape[0]


class Policy(nn.Module):
    """The logarithms of every strategy's probability, from all teachers' scores side by side."""

    def __init__(self, inputs: int, strategies: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(inputs, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, strategies))

    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        standard = (scores - scores.mean(2, keepdim=True)) / (scores.std(2, keepdim=True) + 1e-6)
        return F.log_softmax(self.layers(standard.flatten(1)), 1)


def ndkd(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Eq. 12: the neighbours' mean probability against the rest, and the rest among itself."""

    def binary(scores: torch.Tensor) -> torch.Tensor:
        p = (F.softmax(scores / TAU, 1) * mask).sum(1) / mask.sum(1)
        return torch.stack([p, 1 - p], 1)

    def others(scores: torch.Tensor) -> torch.Tensor:
        return F.log_softmax((scores / TAU).masked_fill(mask, -1e4), 1)

    of_group = F.kl_div(binary(student).log(), binary(teacher), reduction="batchmean")
    of_others = F.kl_div(others(student), others(teacher), log_target=True, reduction="batchmean")
    return ALPHA * of_group + BETA * of_others


def columns(batch: list) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    triples = torch.tensor([(query[0], query[1], tail) for tail, query in batch])
    return triples[:, 0], triples[:, 1], triples[:, 2]


def teacher_step(model: ComplEx):
    optimiser = torch.optim.Adagrad(model.parameters(), LEARNING_RATE)

    def step(batch: list):
        h, r, t = columns(batch)
        scores, factors = model(h, r, t)
        loss, regulariser = F.cross_entropy(scores, t), n3(factors)
        optimiser.zero_grad()
        (loss + regulariser).backward()
        optimiser.step()
        return [loss.item(), regulariser.item()], len(batch)

    return step


def student_step(student: ComplEx, teachers: list[ComplEx], entities: int, always_all: bool):
    count = len(teachers)
    policy = Policy(count * entities, 2**count - 1)
    members = torch.tensor([[k + 1 >> i & 1 for i in range(count)] for k in range(2**count - 1)]).float()
    optimiser = torch.optim.Adagrad(student.parameters(), LEARNING_RATE)
    policy_optimiser = torch.optim.Adam(policy.parameters(), POLICY_LEARNING_RATE)

    def neighbours(batch: list) -> torch.Tensor:
        mask = torch.zeros(len(batch), entities, dtype=torch.bool)
        for row, (_, (_, _, tails)) in enumerate(batch):
            mask[row, tails] = True
        return mask

    def step(batch: list):
        h, r, t = columns(batch)
        with torch.no_grad():
            of_teachers = torch.stack([teacher(h, r, t)[0] for teacher in teachers], 1)
        scores, factors = student(h, r, t)
        log_pi = policy(of_teachers)
        action = torch.full_like(t, 2**count - 2) if always_all else log_pi.exp().multinomial(1)[:, 0]
        chosen = members[action]
        combined = (of_teachers * chosen[:, :, None]).sum(1) / chosen.sum(1, keepdim=True)
        average = of_teachers.mean(1)

        of_student = F.cross_entropy(scores, t, reduction="none")
        better = F.cross_entropy(combined, t, reduction="none") < of_student.detach()
        better_average = F.cross_entropy(average, t, reduction="none") < of_student.detach()
        rewards = torch.where(better, REWARD, PENALTY) - torch.where(better_average, REWARD, PENALTY)
        of_policy = -(rewards * log_pi.gather(1, action[:, None])[:, 0]).mean()

        loss = of_student.mean() + GAMMA * TAU**2 * ndkd(scores, combined, neighbours(batch))
        regulariser = n3(factors)
        optimiser.zero_grad()
        policy_optimiser.zero_grad()
        (loss + regulariser + of_policy).backward()
        optimiser.step()
        policy_optimiser.step()
        return [loss.item(), regulariser.item()], len(batch)

    return step


def main() -> None:
    options = arguments()
    workload = Workload(options.workload, options.rank)
    if options.model == "student":
        teachers = [ComplEx(*workload.teacher_parameters(name)) for name in workload.teachers]
        student = ComplEx(None, *workload.initial_student())
        step = student_step(student, teachers, workload.entities, options.all)
    else:
        step = teacher_step(ComplEx(*workload.initial_teacher(options.model)))
    batches = workload.triples
    if options.same_batches:
        batches = [[(tail, query) for query in batch for tail in query[2]] for batch in workload.batches]
    run(options, batches, step)


if __name__ == "__main__":
    main()
