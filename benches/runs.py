"""The runs that workloads are cut from: a dataset's graph with three briefly trained teachers and a student.

Training is brief because what a step costs does not depend on how good its model is; but the teachers and the student
have to differ as real ones do, or the policy has nothing to learn from.
"""

import json
import pathlib
import subprocess

import numpy as np

WIDTH = 384
BRIEF = ["rank=64", "epochs=4", "validate_every=4"]


def prepare(dataset: str, raw: pathlib.Path, folder: pathlib.Path, programs: pathlib.Path) -> None:
    """Makes the run of `dataset` in `folder`, or finishes what is missing of it."""

    def stage(program: str, recipe: pathlib.Path, *more: str) -> None:
        command = [programs / f"dsom-{program}", "--run", folder, "--recipe", recipe, "--quiet", *more]
        subprocess.run([str(part) for part in command], check=True)

    stage("import", pathlib.Path("pipelines") / f"{dataset}.toml", "--raw", str(raw))
    stage("features", features(folder))
    for section, program, more in [
        ("teachers", "teachers", []),
        ("distill", "distill", ["--name", "student-alone", "--set", "distill.term.kind=none"]),
    ]:
        brief = [argument for key in BRIEF for argument in ("--set", f"{section}.{key}")]
        stage(program, features(folder), *brief, *more)


def features(folder: pathlib.Path) -> pathlib.Path:
    """A recipe with two modalities of random features: what they say does not change what they cost."""
    recipe = folder / "bench.toml"
    if not recipe.exists():
        entities = json.loads((folder / "graph" / "audit.json").read_text())["entities"]
        lines = []
        for seed, name in enumerate(["textual", "visual"]):
            values = np.random.default_rng(seed).standard_normal((entities, WIDTH), dtype=np.float32)
            np.save(folder / f"{name}.npy", values)
            lines += [f"[features.{name}]", 'from = "file"', f'file = "{(folder / name).resolve()}.npy"', ""]
        recipe.write_text("\n".join(lines))
    return recipe
