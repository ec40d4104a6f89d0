"""Times a structural teacher, its evaluation and its way to quality against PyKEEN, the program of others.

    make bench-peers                                                  an hour and a half on two quiet cores
    make bench-peers BENCH='--case mkg-w-128 --threads 2 --runs 3'    one of the cases
    make bench-peers BENCH='--case --quality wn9'                     the way to quality alone

Both train ComplEx by cross-entropy over all entities with inverse relations, Adagrad and N3, from embeddings of the same deviation, with
the same number of queries a step. Sides take turns. An epoch of ours is one by dsom-teachers; of PyKEEN's, which is long, some steps are
timed. The evaluation is of the test split: PyKEEN's evaluator alone, our whole program. Memory is the peak of anonymous memory of either
side's processes. Ratios are theirs over ours, medians over the rounds. Validation is not counted in the time to quality on either side.
"""

import argparse
import json
import math
import pathlib
import statistics
import sys

from growth import line, text
from process import whole

HERE = pathlib.Path(__file__).parent
CASES = {f"{dataset}-{rank}": (dataset, rank) for dataset in ["mkg-w", "fb15k-237"] for rank in [128, 512]}
# Epochs of each side on the way to quality, and PyKEEN's weight of N3: on WN9 the best of 0.001, 0.01 and 0.1, elsewhere ours.
QUALITY = {"wn9": (45, 30, 0.1), "mkg-w": (24, 15, 0.01), "fb15k-237": (24, 12, 0.01)}
COLOURS = {"ours": "#2a6f97", "PyKEEN": "#c1440e"}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--quality", nargs="*", choices=QUALITY, default=list(QUALITY))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--runs", type=int, default=3, help="rounds, of which medians are taken")
    parser.add_argument("--batches", type=int, default=6, help="steps of PyKEEN to time")
    parser.add_argument("--raw", type=pathlib.Path, default=pathlib.Path("../shared/data"), help="raw datasets")
    parser.add_argument("--programs", type=pathlib.Path, default=pathlib.Path("target/debug"))
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("target/bench/peers"))
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("target/peers.json"))
    return parser.parse_args()


class Bench:
    def __init__(self, options: argparse.Namespace):
        self.options = options

    def graph(self, dataset: str) -> None:
        """Imports a dataset, unless that is done."""
        self.stage("import", dataset, 2, "--raw", self.options.raw / dataset)

    def stage(self, program: str, dataset: str, threads: int, *more) -> tuple[str, float, float]:
        command = [self.options.programs / f"dsom-{program}", "--run", self.options.folder / dataset, "--threads", threads, "-q", "-q"]
        return whole([*command, "--recipe", f"pipelines/{dataset}.toml", *more], threads)

    def ours(self, dataset: str, rank: int, threads: int, epochs: int) -> tuple[list, float]:
        """Every epoch of a structural teacher, and its peak of memory."""
        settings = {"rank": rank, "epochs": epochs, "validate_every": 1, "patience": epochs}
        settings = [word for key, value in settings.items() for word in ("--set", f"teachers.{key}={value}")]
        _, _, peak = self.stage("teachers", dataset, threads, "--modality", "structural", "--force", *settings)
        events = (self.options.folder / dataset / "teachers/structural/events.jsonl").read_text().splitlines()
        return [json.loads(event) for event in events], peak

    def theirs(self, dataset: str, rank: int, threads: int, *more) -> tuple[list, float]:
        graph = self.options.folder / dataset / "graph"
        command = [sys.executable, "-W", "ignore", HERE / "pytorch/peer.py", graph, "--rank", rank, "--threads", threads]
        output, _, peak = whole([*command, *more], threads)
        return [json.loads(row) for row in output.splitlines()], peak

    def case(self, dataset: str, rank: int, threads: int) -> dict:
        epochs, evaluations, memories = [], [], []
        for number in range(self.options.runs):
            (report,), their_peak = self.theirs(dataset, rank, threads, "--batches", self.options.batches)
            events, peak = self.ours(dataset, rank, threads, 1)
            _, seconds, evaluation_peak = self.stage("evaluate", dataset, threads, "--model", "structural", "--split", "test", "--force")
            epochs.append((report["epoch_seconds"], events[0]["seconds"]))
            evaluations.append((report["evaluation_seconds"], seconds))
            memories.append((their_peak, max(peak, evaluation_peak)))
            print(f"{dataset} {rank}, {threads} thread(s), {number + 1} of {self.options.runs}: "
                  + ", ".join(f"{name} {a:.1f} / {b:.1f}" for name, (a, b) in
                              [("epoch", epochs[-1]), ("evaluation", evaluations[-1]), ("MB", memories[-1])]), file=sys.stderr, flush=True)
        ratios = {f"{name}_ratio": ratio(pairs) for name, pairs in [("epoch", epochs), ("evaluation", evaluations), ("memory", memories)]}
        medians = {name: [round(statistics.median(side), 2) for side in zip(*pairs)]
                   for name, pairs in [("epoch_seconds", epochs), ("evaluation_seconds", evaluations), ("memory_mb", memories)]}
        return {"peer": "PyKEEN", "dataset": dataset, "rank": rank, "threads": threads, **ratios, "runs": self.options.runs, **medians}

    def quality(self, dataset: str) -> dict:
        """Validation MRR against seconds of training, on all threads asked for."""
        epochs, their_epochs, n3 = QUALITY[dataset]
        rank, threads = 128, max(self.options.threads)
        events, _ = self.ours(dataset, rank, threads, epochs)
        reports, _ = self.theirs(dataset, rank, threads, "--epochs", their_epochs, "--every", 1, "--n3", n3)
        seconds, ours = 0.0, []
        for event in events:
            seconds += event["seconds"]
            ours.append((seconds, event["valid_mrr"]))
        curves = {"ours": ours, "PyKEEN": [(report["seconds"], report["valid_mrr"]) for report in reports]}
        best = max(mrr for curve in curves.values() for _, mrr in curve)
        times = {share: {side: reached(curve, share * best) for side, curve in curves.items()} for share in [0.95, 0.99]}
        result = {"peer": "PyKEEN", "dataset": dataset, "rank": rank, "threads": threads, "curves": curves}
        for share, sides in times.items():
            name = f"time_to_{share:.0%}".rstrip("%")
            result |= {f"{name}_seconds": [sides["PyKEEN"], sides["ours"]],
                       f"{name}_ratio": round(sides["PyKEEN"] / sides["ours"], 2) if all(sides.values()) else None}
        return result


def ratio(pairs: list) -> float:
    return round(statistics.median(theirs / ours for theirs, ours in pairs), 2)


def reached(curve: list, mrr: float) -> float | None:
    return next((round(seconds, 2) for seconds, there in curve if there >= mrr), None)


def drawing(results: list) -> str:
    """A panel for each dataset: validation MRR, its last 15 %, against seconds on a logarithmic axis."""
    width, height, left, bottom, elements = 340, 240, 45, 36, []
    for number, result in enumerate(results):
        curves = result["curves"]
        best = max(mrr for curve in curves.values() for _, mrr in curve)
        curves = {side: [point for point in curve if point[1] >= 0.85 * best] for side, curve in curves.items()}
        first, last = (limit(seconds for curve in curves.values() for seconds, _ in curve) for limit in [min, max])
        x0, y0 = number * width + left, height - bottom

        def place(seconds: float, mrr: float) -> tuple[float, float]:
            share = math.log(seconds / first, last / first)
            return x0 + 5 + share * (width - left - 20), y0 - (mrr / best - 0.85) / 0.15 * (y0 - 40)

        title = f"{result['dataset']}: validation MRR, {result['threads']} threads"
        elements += [text(x0, 18, title, "start", 13), text(x0 + (width - left) / 2, height - 6, "seconds of training", "middle", 11)]
        for share in [0.85, 0.9, 0.95, 1]:
            (x, y), (right, _) = place(first, share * best), place(last, share * best)
            elements += [line([(x - 5, y), (right, y)], "#ddd"), text(x - 9, y + 3, f"{share * best:.3f}", "end", 10)]
        for seconds in [tick * 10**power for power in range(5) for tick in [1, 2, 5]]:
            if first <= seconds <= last:
                elements.append(text(place(seconds, best)[0], y0 + 14, f"{seconds}", "middle", 10))
        for side, curve in curves.items():
            points, colour = [place(*point) for point in curve], COLOURS[side]
            elements += [line(points, colour), *(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2" fill="{colour}"/>' for x, y in points)]
            elements.append(text(points[0][0] + 6, points[0][1] + 4, side, "start", 12))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width * len(results)} {height}" font-family="sans-serif">\n'
            '<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(elements) + "\n</svg>\n")


def main() -> None:
    options = arguments()
    bench, results = Bench(options), []
    for name in options.case:
        dataset, rank = CASES[name]
        bench.graph(dataset)
        results += [bench.case(dataset, rank, threads) for threads in options.threads]
        options.out.write_text(json.dumps(results, indent=1) + "\n")
    for dataset in options.quality:
        bench.graph(dataset)
        results.append(bench.quality(dataset))
        options.out.write_text(json.dumps(results, indent=1) + "\n")
    options.out.with_suffix(".svg").write_text(drawing([result for result in results if "curves" in result]))
    for result in results:
        print(", ".join(f"{key} {value}" for key, value in result.items() if key != "curves"))
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
