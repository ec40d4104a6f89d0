"""Times the engine against both PyTorch references on the same steps, each in a process of its own.

    make bench                                            every case: hours on two cores
    make bench BENCH='--case mkg-w-512 --threads 1'       one of them

A measurement is a few training steps of one model: a teacher of each modality, or the student with its policy. The
soft labels are those of these steps' queries alone, so a graph whose whole cache would be 13 GB can be timed as well.
Steps differ in size, since the grouped ones hold every tail of their queries: seconds are per epoch, so many steps as
an epoch has pairs of query and tail. Ours is timed as it runs by default, and with its options: products in bf16, and
the policy on the teachers' scores, as the references have it, instead of their query vectors. Sides take turns; a ratio is the median over the rounds. What was measured is kept
in target/bench/measured.jsonl, and an interrupted start goes on there, until a program or a reference changes.
"""

import argparse
import functools
import hashlib
import json
import pathlib
import statistics
import subprocess
import sys

from process import measure
from runs import prepare

HERE = pathlib.Path(__file__).parent
REFERENCES = ["best", "research"]
# Our side as it runs by default, and with options.
OURS = {"ours": [], "ours, bf16": ["--precision", "bf16"], "ours, policy on scores": ["--policy-state", "scores"]}
SIDES = [*OURS, *REFERENCES]
CASES = {
    "mkg-w-128": ("mkg-w", 128),
    "mkg-w-512": ("mkg-w", 512),
    "fb15k-237-256": ("fb15k-237", 256),
    "mkg-w-2000": ("mkg-w", 2000),
}
# What a whole run at the recipes' rank is compared with (see the README), and what needs no published data.
WHOLE = {"mkg-w-256": ("mkg-w", 256)}
DEMO = {"nations-128": ("nations", 128)}
KNOWN = CASES | WHOLE | DEMO


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="+", choices=KNOWN, help="default: all but those of a whole run and of the demo")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--runs", type=int, default=3, help="rounds, of which medians are taken")
    parser.add_argument("--steps", type=int, default=5, help="steps to time in each process")
    parser.add_argument("--raw", type=pathlib.Path, default=pathlib.Path("../shared/data"), help="raw datasets")
    parser.add_argument("--run", nargs="+", default=[], metavar="DATASET=FOLDER", help="finished runs to cut from")
    parser.add_argument("--programs", type=pathlib.Path, default=pathlib.Path("target/debug"))
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("target/bench"))
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("target/bench.json"))
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: for a machine that is not quiet")
    parser.add_argument("--fresh", action="store_true", help="forget what was measured")
    parser.add_argument("--check", action="store_true", help="compare the losses of the three sides instead")
    return parser.parse_args()


class Bench:
    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.program = options.programs / "dsom-bench"
        self.folder = options.folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.runs = dict(text.split("=", 1) for text in options.run)
        self.kept = self.folder / "measured.jsonl"
        if options.fresh:
            self.kept.unlink(missing_ok=True)
        self.identity = digest([self.program, *sorted((HERE / "pytorch").glob("*.py"))])
        self.measured = {}
        if self.kept.exists():
            for line in self.kept.read_text().splitlines():
                record = json.loads(line)
                if record["identity"] == self.identity:
                    self.measured[tuple(record["key"])] = record["report"]

    def cases(self) -> dict:
        chosen = {name: case for name, case in KNOWN.items() if name in (self.options.case or CASES)}
        there = {name: case for name, case in chosen.items() if self.has_data(case[0])}
        for name in chosen.keys() - there.keys():
            print(f"{name}: no raw dataset in {self.options.raw} and no --run", file=sys.stderr)
        if not there:
            print("no dataset is there: the demo's graph stands in for them, too small to tell much", file=sys.stderr)
        return there or DEMO

    def has_data(self, dataset: str) -> bool:
        return dataset in self.runs or dataset == "nations" or (self.options.raw / dataset).is_dir()

    @functools.cache
    def workload(self, dataset: str) -> pathlib.Path:
        """The dataset's batches, cut anew when there are too few steps."""
        folder = self.folder / "workloads" / dataset
        if self.steps_in(folder) < self.options.steps + 1:
            run = pathlib.Path(self.runs.get(dataset, self.folder / "runs" / dataset))
            if dataset not in self.runs:
                raw = pathlib.Path("data/nations") if dataset == "nations" else self.options.raw / dataset
                prepare(dataset, raw, run, self.options.programs)
            steps = ["--steps", str(self.options.steps + 1)]
            subprocess.run([str(part) for part in [self.program, "cut", run, folder, *steps]], check=True)
        return folder

    def steps_in(self, folder: pathlib.Path) -> int:
        plan = folder / "workload.json"
        if not plan.exists():
            return 0
        plan = json.loads(plan.read_text())
        # A graph of few steps is walked through again and again.
        whole = sum(len(query[2]) for batch in plan["batches"] for query in batch) == plan["pairs"]
        return sys.maxsize if whole else len(plan["batches"])

    def command(self, side: str, workload: pathlib.Path, model: str, rank: int, threads: int, *more: str) -> list:
        if side in OURS:
            begin = [self.program, "run"]
            more = [*OURS[side], *(argument for argument in more if argument != "--same-batches")]
        else:
            begin = [sys.executable, HERE / "pytorch" / f"{side}.py"]
        case = ["--model", model, "--rank", rank, "--threads", threads, "--steps", self.options.steps]
        return [*begin, workload, *case, *more]

    def measure(self, key: tuple) -> dict:
        """One process, or what is kept of it."""
        case, side, model, threads, _, _ = key
        if key not in self.measured:
            dataset, rank = KNOWN[case]
            report = measure(self.command(side, self.workload(dataset), model, rank, threads), threads)
            self.measured[key] = report
            with self.kept.open("a") as kept:
                kept.write(json.dumps({"identity": self.identity, "key": key, "report": report}) + "\n")
        return self.measured[key]

    @functools.cache
    def plan(self, dataset: str) -> dict:
        return json.loads((self.workload(dataset) / "workload.json").read_text())

    def measure_all(self, cases: dict) -> None:
        keys = []
        for case, (dataset, _) in cases.items():
            models = [*self.plan(dataset)["teachers"], "student"]
            for threads in self.options.threads:
                for number in range(self.options.runs):
                    for model in models:
                        sides = sides_of(model)
                        keys += [(case, side, model, threads, self.options.steps, number) for side in sides]
        todo = [key for key in keys if key not in self.measured]
        for number, key in enumerate(todo, 1):
            case, side, model, threads, _, _ = key
            print(f"[{number}/{len(todo)}] {case} {model}, {threads} thread(s), {side}", file=sys.stderr, flush=True)
            self.measure(key)

    def epoch(self, report: dict, pairs: int) -> float:
        """Seconds per epoch; the first step warms up."""
        if self.options.clock == "cpu":
            return report["cpu_seconds"] / sum(report["pairs"]) * pairs
        return statistics.median(s / p for s, p in zip(report["seconds"][1:], report["pairs"][1:])) * pairs

    def results(self, cases: dict) -> list:
        results = []
        for case, (dataset, rank) in cases.items():
            plan = self.plan(dataset)
            for threads in self.options.threads:
                for name, models in [("teachers", list(plan["teachers"])), ("student", ["student"])]:
                    for ours in [side for side in sides_of(models[0]) if side in OURS]:
                        results.append(self.result(case, plan, threads, name, models, ours))
                results[-1]["products"] = self.products(case, plan, rank, threads)
        return results

    def result(self, case: str, plan: dict, threads: int, name: str, models: list, ours: str) -> dict:
        numbers = range(self.options.runs)
        sides = {"ours": ours} | {side: side for side in REFERENCES}

        def reports(side: str, number: int) -> list:
            return [self.measure((case, sides[side], model, threads, self.options.steps, number)) for model in models]

        seconds = {side: [sum(self.epoch(r, plan["pairs"]) for r in reports(side, n)) for n in numbers] for side in sides}
        peak = {side: statistics.median(max(r["peak_mb"] for r in reports(side, n)) for n in numbers) for side in sides}

        def ratio(side: str) -> float:
            return statistics.median(theirs / ours for theirs, ours in zip(seconds[side], seconds["ours"]))

        return {
            "name": f"{case} {name}{ours.removeprefix('ours')}",
            "threads": threads,
            "ratio_vs_research": round(ratio("research"), 3),
            "ratio_vs_best": round(ratio("best"), 3),
            "memory_ratio_vs_research": round(peak["research"] / peak["ours"], 3),
            "memory_ratio_vs_best": round(peak["best"] / peak["ours"], 3),
            "runs": self.options.runs,
            "clock": self.options.clock,
            "steps": self.options.steps,
            "seconds_per_epoch": {side: round(statistics.median(seconds[side]), 3) for side in sides},
            "peak_mb": {side: round(peak[side], 1) for side in sides},
        }

    def products(self, case: str, plan: dict, rank: int, threads: int) -> dict:
        """The products of the structural teacher's step alone: their share of it, their rate, the machine's."""
        queries = round(statistics.mean(len(batch) for batch in plan["batches"]))
        shape = ["--queries", queries, "--entities", plan["entities"], "--width", 2 * rank, "--threads", threads]
        command = [str(part) for part in [self.program, "products", *shape]]
        figures = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        steps = [
            statistics.median(self.measure((case, "ours", "structural", threads, self.options.steps, n))["seconds"][1:])
            for n in range(self.options.runs)
        ]
        figures["share_of_step"] = figures["seconds"] / statistics.median(steps)
        return {name: round(value, 3) for name, value in figures.items()}

    def check(self, cases: dict) -> None:
        """All sides start from the same parameters and take the same batches: their losses must be equal."""
        for case, (dataset, rank) in cases.items():
            workload = self.workload(dataset)
            for model in [*self.plan(dataset)["teachers"], "student"]:
                more = ["--all"] if model == "student" else []
                losses = {}
                for side in ["ours", *REFERENCES]:
                    same = ["--same-batches"] if side == "research" else []
                    command = self.command(side, workload, model, rank, self.options.threads[0], *more, *same)
                    losses[side] = measure(command, self.options.threads[0])["losses"]
                for side in REFERENCES:
                    gaps = [abs(a - b) / max(abs(a), 1) for x, y in zip(losses["ours"], losses[side]) for a, b in zip(x, y)]
                    print(f"{case} {model}: {len(losses['ours'])} steps, {side} differs by at most {max(gaps):.1e}")
                    if not max(gaps) < 1e-3:
                        raise SystemExit(f"other losses:\n{losses['ours']}\n{losses[side]}")


def sides_of(model: str) -> list:
    """Only the student has a policy."""
    return [side for side in SIDES if model == "student" or side != "ours, policy on scores"]


def digest(files: list) -> str:
    state = hashlib.sha256()
    for file in files:
        state.update(pathlib.Path(file).read_bytes())
    return state.hexdigest()[:16]


def table(results: list) -> str:
    rows = [["", "threads", "ours s/epoch", "best", "research", "ours MB", "best", "research",
             "faster than best", "than research", "smaller than research"]]
    sides = ["ours", *REFERENCES]
    for r in results:
        rows.append([r["name"], str(r["threads"]), *(f"{r['seconds_per_epoch'][side]:.1f}" for side in sides),
                     *(f"{r['peak_mb'][side]:.0f}" for side in sides),
                     *(f"{r[key]:.2f}x" for key in ["ratio_vs_best", "ratio_vs_research", "memory_ratio_vs_research"])])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths)))
             for row in rows]
    for r in results:
        if "products" in r:
            p = r["products"]
            lines.append(f"{r['name'].split()[0]}, {r['threads']} thread(s): the structural step's products are "
                         f"{p['share_of_step']:.0%} of it, at {p['gflops']:.0f} of {p['gflops_square']:.0f} GFLOP/s")
    return "\n".join(lines)


def main() -> None:
    bench = Bench(arguments())
    cases = bench.cases()
    if bench.options.check:
        bench.check(cases)
        return
    for dataset in dict.fromkeys(dataset for dataset, _ in cases.values()):
        bench.workload(dataset)
    bench.measure_all(cases)
    results = bench.results(cases)
    bench.options.out.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))
    print(f"written to {bench.options.out}")


if __name__ == "__main__":
    main()
