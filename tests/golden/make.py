#!/usr/bin/env python3
"""The golden values: every expected number of complex.json, distil.json, policy.json and ranks.json from the inputs beside it.

    make.py --check    compares what the files say with what this computes, to 1e-12 of each number
    make.py            writes the files anew, with the inputs that they have

The files' first values came from a reference in PyTorch with autograd; this is another one, in numpy and float64 with gradients
by hand, so that the two check each other. Equations are those of the paper (Dark Side of Modalities). It needs numpy alone.
"""

import json
import sys
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parent
TOLERANCE = 1e-12


def softmax(scores):
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def cross_entropy(scores, targets):
    """Eq. 1, one value per row of scores (row, entity)."""
    return -np.log(softmax(scores))[np.arange(len(targets)), targets]


def cross_entropy_gradient(scores, targets):
    """The gradient of Eq. 1, the mean over rows, with respect to the scores."""
    gradient = softmax(scores)
    gradient[np.arange(len(targets)), targets] -= 1
    return gradient / len(targets)


# ComplEx: rows are [re_0, re_1, im_0, im_1]; a gradient (d/d re, d/d im) is a complex number, too.


def paired(rows):
    re, im = np.split(np.asarray(rows), 2, axis=1)
    return re + 1j * im


def flat(numbers):
    return np.concatenate([numbers.real, numbers.imag], axis=1)


def complex_scores(entities, relations, triples):
    """Re sum h r conj(t) for every t, (triple, entity)."""
    heads, rels, _ = triples.T
    return ((entities[heads] * relations[rels]) @ entities.conj().T).real


def complex_gradients(entities, relations, triples, of_scores):
    """From the scores' gradient to those of entities and relations."""
    heads, rels, _ = triples.T
    of_query = of_scores @ entities
    of_entities = of_scores.T @ (entities[heads] * relations[rels]) + 0j
    of_relations = np.zeros_like(relations)
    np.add.at(of_entities, heads, of_query * relations[rels].conj())
    np.add.at(of_relations, rels, of_query * entities[heads].conj())
    return of_entities, of_relations


def n3(entities, relations, triples):
    """The N3 penalty, the mean over triples of |h|^3 + |r|^3 + |t|^3, and its gradients."""
    of_entities, of_relations, total = np.zeros_like(entities), np.zeros_like(relations), 0.0
    for head, relation, tail in triples:
        for table, gradient, row in [
            (entities, of_entities, head),
            (relations, of_relations, relation),
            (entities, of_entities, tail),
        ]:
            total += (abs(table[row]) ** 3).sum() / len(triples)
            gradient[row] += 3 * abs(table[row]) * table[row] / len(triples)
    return total, of_entities, of_relations


def training_loss(entities, relations, triples, weight):
    """Eq. 1 with the N3 penalty (one teacher's part of Eq. 3), and its gradients."""
    scores, targets = complex_scores(entities, relations, triples), triples[:, 2]
    gradients = complex_gradients(entities, relations, triples, cross_entropy_gradient(scores, targets))
    penalty, of_entities, of_relations = n3(entities, relations, triples)
    loss = cross_entropy(scores, targets).mean() + weight * penalty
    return loss, gradients[0] + weight * of_entities, gradients[1] + weight * of_relations


def adagrad(given, entities, relations, triples, weight):
    """Steps of s += g^2; x -= lr g / (sqrt(s) + eps), in the reals."""
    tables, steps = [flat(entities), flat(relations)], []
    sums = [np.zeros_like(table) for table in tables]
    for _ in given["steps"]:
        loss, *gradients = training_loss(paired(tables[0]), paired(tables[1]), triples, weight)
        for table, total, gradient in zip(tables, sums, map(flat, gradients)):
            total += gradient**2
            table -= given["lr"] * gradient / (np.sqrt(total) + given["eps"])
        steps.append({"loss_before": loss, "ent": tables[0].copy(), "rel": tables[1].copy(), "ent_sum_sq": sums[0].copy()})
    return given | {"steps": steps}


def projected(given, relations, triples):
    """A teacher whose entities are (features W) / scale, and the gradient of Eq. 1 with respect to W."""
    features, weights = np.asarray(given["feats"]), np.asarray(given["W"])
    entities = paired(features @ weights / given["scale"])
    scores = complex_scores(entities, relations, triples)
    of_scores = cross_entropy_gradient(scores, triples[:, 2])
    of_entities, _ = complex_gradients(entities, relations, triples, of_scores)
    of_weights = features.T @ flat(of_entities) / given["scale"]
    return given | {"scores": scores, "ce_mean": cross_entropy(scores, triples[:, 2]).mean(), "grad_W": of_weights}


def complex_file(given):
    entities, relations, triples = paired(given["ent"]), paired(given["rel"]), np.asarray(given["triples"])
    scores = complex_scores(entities, relations, triples)
    losses = cross_entropy(scores, triples[:, 2])
    loss, of_entities, of_relations = training_loss(entities, relations, triples, given["reg"])
    return given | {
        "scores": scores,
        "ce": losses,
        "ce_mean": losses.mean(),
        "n3": n3(entities, relations, triples)[0],
        "loss": loss,
        "grad_ent": flat(of_entities),
        "grad_rel": flat(of_relations),
        "adagrad": adagrad(given["adagrad"], entities, relations, triples, given["reg"]),
        "projected": projected(given["projected"], relations, triples),
    }


# Distillation: each term is its value and its gradient with respect to the student's probabilities (entity).


def kd(teacher, student):
    """Eq. 2: KL(teacher || student) over all entities."""
    return (teacher * np.log(teacher / student)).sum(), -teacher / student


def binary(teacher, student, weights):
    """Eq. 12's KL of b = [p, 1 - p], with p the weighted sum of probabilities."""
    p, q = teacher @ weights, student @ weights
    value = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    return value, weights * ((1 - p) / (1 - q) - p / q)


def rest(teacher, student, without):
    """Eq. 12's KL of the probabilities of the other entities, renormalised."""
    left = np.ones(len(teacher), bool)
    left[without] = False
    p, q = teacher[left] / teacher[left].sum(), student[left] / student[left].sum()
    gradient = np.zeros_like(student)
    gradient[left] = (q - p) / student[left]
    return (p * np.log(p / q)).sum(), gradient


def distil_row(teacher, student, neighbours, target):
    """The terms of one query: Eq. 2, DKD and Eq. 12, with the mean and with the sum over neighbours."""
    one, some = np.zeros_like(student), np.zeros_like(student)
    one[target], some[neighbours] = 1, 1
    return {
        "kd": kd(teacher, student),
        "dkd_target": binary(teacher, student, one),
        "dkd_nontarget": rest(teacher, student, [target]),
        "nekd_mean": binary(teacher, student, some / len(neighbours)),
        "nekd_sum": binary(teacher, student, some),
        "nnkd": rest(teacher, student, neighbours),
    }


def distil_case(given, tau):
    """All rows at a temperature (Eq. 11), with the gradients of sums of terms with respect to the student's scores."""
    teacher, student = softmax(np.asarray(given["teacher"]) / tau), softmax(np.asarray(given["student"]) / tau)
    rows = [distil_row(*row) for row in zip(teacher, student, given["neighbours"], given["target"])]

    def gradient(*terms):
        of_probabilities = np.array([sum(row[term][1] for term in terms) for row in rows])
        return student * (of_probabilities - (student * of_probabilities).sum(axis=1, keepdims=True)) / tau

    values = {term: np.array([row[term][0] for row in rows]) for term in rows[0]}
    return values | {
        "tau": tau,
        "grad_kd": gradient("kd"),
        "grad_dkd": gradient("dkd_target", "dkd_nontarget"),
        "grad_ndkd_mean": gradient("nekd_mean", "nnkd"),
        "grad_ndkd_sum": gradient("nekd_sum", "nnkd"),
    }


def distil_file(given):
    return given | {"cases": [distil_case(given, case["tau"]) for case in given["cases"]]}


def policy_file(given):
    arrays = {name: np.asarray(given[name]) for name in given if name != "note"}
    teachers, row, target, action = (arrays[name] for name in ["teacher_logits", "row", "target", "action"])
    # Eq. 5: the state, all teachers' scores side by side.
    state = np.concatenate(list(teachers), axis=1)
    # Eq. 6: a softmax of a network with one hidden layer.
    before = state @ arrays["W1"].T + arrays["b1"]
    hidden = np.maximum(before, 0)
    policy = softmax(hidden @ arrays["W2"].T + arrays["b2"])
    # Eq. 7: the mean of the chosen teachers' scores.
    sizes = arrays["strategies"].sum(axis=1)
    mixed = np.einsum("sm,mqe->qse", arrays["strategies"], teachers) / sizes[:, None]
    losses = np.stack([cross_entropy(mixed[row, s], target) for s in range(len(sizes))], axis=1)
    of_student = cross_entropy(arrays["student_logits"][row], target)
    # Eq. 8: the reward, and the baseline, which averages all teachers.
    rewards = np.where(losses < of_student[:, None], 1.0, -10.0)
    reward, baseline = rewards[np.arange(len(action)), action], rewards[:, -1]
    # Eqs. 9 and 10: the policy's loss, and its gradients.
    delta = (reward - baseline) / len(action)
    of_logits = np.zeros_like(policy)
    np.add.at(of_logits, row, delta[:, None] * policy[row])
    np.add.at(of_logits, (row, action), -delta)
    of_before = (of_logits @ arrays["W2"]) * (before > 0)
    return given | {
        "log_pi": np.log(policy),
        "mixed_logits": mixed,
        "strategy_ce": losses,
        "student_ce": of_student,
        "reward": reward,
        "baseline": baseline,
        "loss": -(delta * np.log(policy[row, action])).sum(),
        "grad_W1": of_before.T @ state,
        "grad_b1": of_before.sum(axis=0),
        "grad_W2": of_logits.T @ hidden,
        "grad_b2": of_logits.sum(axis=0),
    }


def ranks_file(given):
    """Filtered ranks: other known answers are no competitors; ties are broken for, against, or halfway."""
    bounds = []
    for scores, target, known in zip(given["scores"], given["target"], given["known"]):
        others = [score for e, score in enumerate(scores) if e != target and e not in known]
        better = sum(score > scores[target] for score in others)
        bounds.append((1 + better, 1 + better + sum(score == scores[target] for score in others)))
    best, worst = np.array(bounds, float).T
    tables = {"optimistic": best, "pessimistic": worst, "realistic": (best + worst) / 2}
    return given | {rule: metrics(ranks) for rule, ranks in tables.items()}


def metrics(ranks):
    hits = {f"H@{k}": (ranks <= k).mean() for k in (1, 3, 10)}
    return {"ranks": ranks, "MRR": (1 / ranks).mean(), "MR": ranks.mean()} | hits


def plain(value):
    """Arrays and numpy's numbers as JSON has them."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def differences(place, found, computed):
    """Where two values differ: in their shape, or in a number by more than the tolerance."""
    if isinstance(found, dict) and isinstance(computed, dict) and found.keys() == computed.keys():
        return [d for key in found for d in differences(f"{place}.{key}", found[key], computed[key])]
    if isinstance(found, list) and isinstance(computed, list) and len(found) == len(computed):
        return [d for i, pair in enumerate(zip(found, computed)) for d in differences(f"{place}[{i}]", *pair)]
    if isinstance(found, (int, float)) and isinstance(computed, (int, float)):
        return [] if abs(found - computed) <= TOLERANCE * max(1, abs(found)) else [f"{place}: {found}, not {computed}"]
    return [] if found == computed else [f"{place}: {found}, not {computed}"]


def main():
    wrong = []
    for name, compute in [("complex", complex_file), ("distil", distil_file), ("policy", policy_file), ("ranks", ranks_file)]:
        path = FOLDER / f"{name}.json"
        found = json.loads(path.read_text())
        computed = plain(compute(found))
        wrong += differences(name, found, computed)
        if "--check" not in sys.argv[1:]:
            path.write_text(json.dumps({key: computed[key] for key in found}, indent=1) + "\n")
    if "--check" in sys.argv[1:]:
        print("\n".join(wrong) or "complex, distil, policy, ranks: as computed")
        sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
