"""Times our encoders against transformers on PyTorch: the same checkpoint, the same prepared inputs, each in a process of its
own, in turns.

    make bench-encoders                                                   every case, on one thread and on two
    make bench-encoders BENCH='--case vit-base --threads 1 --runs 5'      one of them

The checkpoints are those of the parity test (`tests/slow/encoders.py`): ViT-B/16 and BERT-base with random weights of true
size, and all-MiniLM-L6-v2. Texts have between 6 and 48 tokens and come sorted by length, as dsom-features sorts them. A
figure is the median over the runs of the fastest round (with `--clock cpu`, of seconds that all threads worked per round);
both sides give the same first row, or this stops.
"""

import argparse
import json
import pathlib
import statistics
import sys

import numpy as np
from process import measure
from safetensors.numpy import save_file

HERE = pathlib.Path(__file__).parent
SIDES = ["ours", "pytorch"]
# Number of inputs: about ten seconds of one thread.
CASES = {"vit-base": 16, "bert-base": 96, "mini-lm": 768}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--runs", type=int, default=3, help="processes of each side")
    parser.add_argument("--batch", type=int, default=8, help="inputs at a time; threads divide batches")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: for a machine that is not quiet")
    parser.add_argument("--device", default="cpu", help="cuda or cuda:N: both on a GPU, with 64 times the inputs")
    parser.add_argument("--checkpoints", type=pathlib.Path, default=pathlib.Path("target/parity"))
    parser.add_argument("--programs", type=pathlib.Path, default=pathlib.Path("target/debug"))
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("target/bench/encoders"))
    return parser.parse_args()


def inputs(case: str, count: int, folder: pathlib.Path) -> pathlib.Path:
    generator = np.random.default_rng(0)
    path = folder / f"{case}.safetensors"
    if case == "vit-base":
        tensors = {"pixels": generator.uniform(-1, 1, (count, 3, 224, 224)).astype("float32")}
    else:
        lengths = np.sort(generator.integers(6, 49, count))[::-1].copy()
        tensors = {"ids": generator.integers(1000, 30000, (count, 48)), "lengths": lengths}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    return path


def seconds(options: argparse.Namespace, side: str, case: str, threads: int) -> dict:
    begin = [options.programs / "dsom-bench", "encode"]
    if side == "pytorch":
        begin = [sys.executable, HERE / "pytorch/encoders.py"]
    case = [options.checkpoints / case, options.folder / f"{case}.safetensors"]
    report = measure([*begin, *case, "--device", options.device, "--threads", threads, "--batch", options.batch], threads)
    rounds = report["seconds"]
    report["best"] = min(rounds) if options.clock == "wall" else report["cpu_seconds"] / len(rounds)
    return report


def main() -> None:
    options = arguments()
    print(f"{'':12}{'threads':>8}" + "".join(f"{side + '/s':>12}" for side in SIDES)
          + f"{'ratio':>12}" + "".join(f"{side + ' MB':>12}" for side in SIDES))
    results = []
    for case in options.case:
        if not (options.checkpoints / case).is_dir():
            raise SystemExit(f"{case}: no checkpoint in {options.checkpoints}")
        inputs(case, CASES[case] * (1 if options.device == "cpu" else 64), options.folder)
        for threads in options.threads:
            found = {side: [] for side in SIDES}
            for _ in range(options.runs):
                for side in SIDES:
                    found[side].append(seconds(options, side, case, threads))
            sums = [report["sum"] for side in SIDES for report in found[side]]
            if max(sums) - min(sums) > 1e-3 * max(sums):
                raise SystemExit(f"{case}: the sides give other rows, {sums}")
            rate = {side: statistics.median(r["count"] / r["best"] for r in found[side]) for side in SIDES}
            peak = {side: statistics.median(r["peak_mb"] for r in found[side]) for side in SIDES}
            ratio = statistics.median(theirs["best"] / ours["best"] for theirs, ours in zip(found["pytorch"], found["ours"]))
            results.append({"case": case, "threads": threads, "clock": options.clock, "device": options.device, "faster_than_pytorch": ratio,
                            "per_second": rate, "peak_mb": peak})
            print(f"{case:12}{threads:8}" + "".join(f"{rate[side]:12.2f}" for side in SIDES) + f"{ratio:12.2f}"
                  + "".join(f"{peak[side]:12.0f}" for side in SIDES), flush=True)
    out = options.folder / "results.json"
    out.write_text(json.dumps(results, indent=1) + "\n")
    print(f"written to {out}")


if __name__ == "__main__":
    main()
