"""Reads what `dsom-predict --export` writes with NumPy, gensim and PyKEEN, and checks that each scores triples and heads as
dsom-predict does, and that PyKEEN's evaluator has the figures of dsom-evaluate.

Usage: exports.py PROGRAM RUN TRIPLES FOLDER MODEL   (in the environment of torch.txt and exports.txt)
"""

import json
import pathlib
import subprocess
import sys
import urllib.parse

import gensim.models
import numpy as np
import pandas
import torch
import pyarrow.parquet
from pykeen.evaluation import RankBasedEvaluator
from pykeen.models import ComplEx
from pykeen.triples import TriplesFactory
from safetensors.torch import load_file


def answers(call: list, question: str, text: str) -> list:
    lines = subprocess.run([*call, question, "-", "--json"], input=text, capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in lines.splitlines()]


def table(path: pathlib.Path, column: str) -> dict:
    rows = pandas.read_csv(path, sep="\t", dtype={column: str}, keep_default_na=False, quoting=3)
    return dict(zip(rows[column], rows["id"]))


def complex_scores(entities: np.ndarray, relations: np.ndarray, triples: np.ndarray) -> np.ndarray:
    """Triples are numbers of rows; of heads, tail, inverse and head."""
    half = entities.shape[1] // 2
    head, relation, tail = (
        rows[:, :half] + 1j * rows[:, half:]
        for rows in (entities[triples[:, 0]], relations[triples[:, 1]], entities[triples[:, 2]])
    )
    return (head * relation * tail.conj()).sum(1).real


def word2vec(path: pathlib.Path, keys: list) -> np.ndarray:
    vectors = gensim.models.KeyedVectors.load_word2vec_format(path, binary=False)
    numbers = {urllib.parse.unquote(word): number for word, number in vectors.key_to_index.items()}
    return np.stack([vectors.vectors[numbers[key]] for key in keys])


def pykeen(folder: pathlib.Path) -> tuple:
    entity, relation = (table(folder / f"{name}_to_id.tsv", "label") for name in ["entity", "relation"])
    weights = load_file(folder / "model.safetensors")
    width = weights["entity_representations.0._embeddings.weight"].shape[1]
    factory = TriplesFactory(torch.zeros(0, 3, dtype=torch.long), entity, relation, create_inverse_triples=True)
    model = ComplEx(triples_factory=factory, embedding_dim=width // 2)
    model.load_state_dict(weights, strict=False)
    return model.eval(), entity, relation


def evaluated(model: ComplEx, run: pathlib.Path, name: str) -> None:
    """Filtered ranks of the test split by PyKEEN's own evaluator; ids are those of the graph."""
    def triples(split: str) -> torch.Tensor:
        rows = pyarrow.parquet.read_table(run / "graph" / f"{split}.parquet", columns=["head", "relation", "tail"])
        return torch.from_numpy(np.stack([column.to_numpy() for column in rows.columns], axis=1).astype(np.int64))

    theirs = RankBasedEvaluator().evaluate(model, triples("test"), batch_size=256, use_tqdm=False,
                                           additional_filter_triples=[triples("train"), triples("valid")])
    figures = json.loads((run / "evaluation" / "metrics.json").read_text())["models"][name]["test"]
    names = {"mrr": "inverse_harmonic_mean_rank", "mr": "arithmetic_mean_rank", "hits_at_1": "hits_at_1", "hits_at_3": "hits_at_3",
             "hits_at_10": "hits_at_10"}
    for side in ["both", "head", "tail"]:
        for ours, other in names.items():
            expected, found = figures[side][ours], theirs.get_metric(f"{side}.realistic.{other}")
            assert abs(found - expected) <= 1e-6 * max(expected, 1), f"{side} {ours}: {expected}, by PyKEEN's evaluator {found}"
    print(f"PyKEEN's evaluator: MRR {figures['both']['mrr']:.6f} and MR {figures['both']['mr']:.4f} of {figures['both']['triples']} triples, as ours")


@torch.no_grad()
def main(program: str, run: str, triples: pathlib.Path, folder: pathlib.Path, model: str) -> None:
    call = [program, "--run", run, "--model", model]
    subprocess.run([*call, "--export", folder], check=True)
    text = triples.read_text()
    known = [[row["head_key"], row["relation_key"], row["tail_key"], row["score"]] for row in answers(call, "--score", text)]
    heads = "".join(f"?\t{relation}\t{tail}\n" for _, relation, tail, _ in known)
    of_heads = answers([*call, "--include-known", "--loops", "--top", "3"], "--questions", heads)
    asked = [[row["head_key"], row["relation_key"], row["tail_key"], row["score"]] for row in of_heads]

    entity, relation = (table(folder / f"{name}.tsv", "key") for name in ["entities", "relations"])
    forward = np.array([[entity[h], relation[r], entity[t]] for h, r, t, _ in known])
    inverse = np.array([[entity[t], relation[r + "⁻¹"], entity[h]] for h, r, t, _ in asked])
    scores = np.array([score for *_, score in known + asked])
    arrays = [np.load(folder / f"{name}.npy") for name in ["entities", "relations"]]
    words = [word2vec(folder / f"{name}.vec", list(keys)) for name, keys in [("entities", entity), ("relations", relation)]]
    found = {name: complex_scores(*tables, np.concatenate([forward, inverse])) for name, tables in
             [("NumPy", arrays), ("gensim", words)]}

    theirs, entity, relation = pykeen(folder / "pykeen")
    evaluated(theirs, pathlib.Path(run), model)
    hrt = torch.tensor([[entity[h], relation[r], entity[t]] for h, r, t, _ in known])
    rt = torch.tensor([[relation[r], entity[t]] for _, r, t, _ in asked])
    of_heads = theirs.predict_h(rt)[torch.arange(len(asked)), [entity[h] for h, *_ in asked]]
    found["PyKEEN"] = torch.cat([theirs.predict_hrt(hrt)[:, 0], of_heads]).numpy()
    for name, ours in found.items():
        difference = np.abs(ours - scores).max()
        assert difference < 1e-4, f"{name}: scores differ by {difference}"
        print(f"{name}: {len(known)} triples and {len(asked)} heads, scores up to {np.abs(scores).max():.1f} within {difference:.1e}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]), pathlib.Path(sys.argv[4]), sys.argv[5])
