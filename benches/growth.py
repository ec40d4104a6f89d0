"""Growth of a step's time and memory with the entities and with the rank, on random graphs, and where a machine ends.

    make bench-growth                              to 200,000 entities and rank 1000, one thread
    make bench-growth BENCH='--models structural'  without the student

Writes target/growth.json and target/growth.svg. The lines through the points are fits of a + b x; a graph has 4.6 pairs
of query and tail per entity, as MKG-W, so seconds per epoch grow with the entities once more.
"""

import argparse
import json
import math
import pathlib
import statistics
import subprocess
import sys

from process import measure

ENTITIES = [1_000, 5_000, 15_000, 50_000, 100_000, 200_000]
RANKS = [64, 128, 256, 512, 1000]
USUAL_ENTITIES, USUAL_RANK = 15_000, 128
PAIRS_PER_ENTITY, BATCH = 4.6, 1000
COLOURS = {"structural": "#2a6f97", "student": "#c1440e"}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entities", nargs="+", type=int, default=ENTITIES)
    parser.add_argument("--ranks", nargs="+", type=int, default=RANKS)
    parser.add_argument("--models", nargs="+", choices=list(COLOURS), default=list(COLOURS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--memory", type=float, default=24, help="GiB of the machine whose end is sought")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: for a machine that is not quiet")
    parser.add_argument("--programs", type=pathlib.Path, default=pathlib.Path("target/debug"))
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("target"))
    return parser.parse_args()


def points(options: argparse.Namespace) -> list:
    """One measurement of each model at each size; the workload of a size is removed after its last use."""
    program, folder = options.programs / "dsom-bench", options.out / "bench" / "synthetic"
    grid = [("entities", e, e, USUAL_RANK) for e in options.entities]
    grid += [("rank", r, USUAL_ENTITIES, r) for r in options.ranks]
    measured = []
    for axis, x, entities, rank in grid:
        make = [program, "synthetic", folder, "--entities", entities, "--steps", options.steps + 1]
        subprocess.run([str(part) for part in make], check=True)
        for model in options.models:
            case = ["--model", model, "--rank", rank, "--threads", options.threads, "--steps", options.steps]
            report = measure([program, "run", folder, *case], options.threads)
            seconds = statistics.median(s / p for s, p in zip(report["seconds"][1:], report["pairs"][1:])) * BATCH
            if options.clock == "cpu":
                seconds = report["cpu_seconds"] / sum(report["pairs"]) * BATCH
            measured.append({"axis": axis, "x": x, "model": model, "seconds_per_step": seconds,
                             "seconds_per_epoch": seconds * entities * PAIRS_PER_ENTITY / BATCH,
                             "peak_mb": report["peak_mb"]})
            print(f"{axis} {x} {model}: {seconds:.2f} s a step, {report['peak_mb']:.0f} MB", file=sys.stderr, flush=True)
        for file in folder.iterdir():
            file.unlink()
    return measured


def fit(xs: list, ys: list) -> tuple[float, float]:
    """Least squares of relative errors: y = a + b x."""
    weights = [1 / y**2 for y in ys]
    total = sum(weights)
    x_mean = sum(w * x for w, x in zip(weights, xs)) / total
    y_mean = sum(w * y for w, y in zip(weights, ys)) / total
    spread = sum(w * (x - x_mean) ** 2 for w, x in zip(weights, xs))
    b = sum(w * (x - x_mean) * (y - y_mean) for w, x, y in zip(weights, xs, ys)) / spread if spread else 0.0
    return y_mean - b * x_mean, b


def fits(measured: list, memory_gib: float) -> list:
    lines = []
    for axis in ["entities", "rank"]:
        for model in COLOURS:
            own = [p for p in measured if p["axis"] == axis and p["model"] == model]
            if len(own) < 2:
                continue
            for quantity in ["seconds_per_step", "peak_mb"]:
                a, b = fit([p["x"] for p in own], [p[quantity] for p in own])
                line = {"axis": axis, "model": model, "quantity": quantity, "a": a, "b": b}
                if quantity == "peak_mb" and b > 0:
                    line[f"{axis}_at_{memory_gib:g}_gib"] = int((memory_gib * 1024 - a) / b)
                lines.append(line)
    return lines


class Panel:
    """A logarithmic diagram as SVG elements."""

    WIDTH, HEIGHT, LEFT, BOTTOM = 360, 260, 60, 40

    def __init__(self, at: tuple, title: str, xs: list, ys: list):
        self.at, self.title, self.marks = at, title, sorted(set(xs))
        self.xs, self.ys = (min(xs) / 1.3, max(xs) * 1.3), (min(ys) / 1.5, max(ys) * 1.5)

    def place(self, x: float, y: float) -> tuple[float, float]:
        def share(value: float, between: tuple) -> float:
            ratio = value / between[0]
            return math.log(ratio, between[1] / between[0])

        return (self.at[0] + self.LEFT + share(x, self.xs) * (self.WIDTH - self.LEFT - 10),
                self.at[1] + self.HEIGHT - self.BOTTOM - share(y, self.ys) * (self.HEIGHT - self.BOTTOM - 30))

    def frame(self, x_name: str) -> list:
        elements = [text(self.at[0] + self.LEFT, self.at[1] + 18, self.title, "start", 13)]
        (left, bottom), (right, top) = self.place(self.xs[0], self.ys[0]), self.place(self.xs[1], self.ys[1])
        elements.append(f'<rect x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}" '
                        'fill="none" stroke="#999"/>')
        for tick in self.marks:
            x, _ = self.place(tick, self.ys[0])
            elements += [line([(x, bottom), (x, top)], "#ddd"), text(x, bottom + 14, label(tick), "middle", 10)]
        for tick in ticks(*self.ys):
            _, y = self.place(self.xs[0], tick)
            elements += [line([(left, y), (right, y)], "#ddd"), text(left - 5, y + 3, label(tick), "end", 10)]
        return [*elements, text((left + right) / 2, bottom + 30, x_name, "middle", 11)]

    def series(self, own: list, quantity: str, a: float, b: float, colour: str) -> list:
        low, high = own[0]["x"], own[-1]["x"]
        curve = [low * (high / low) ** (i / 40) for i in range(41)]
        curve = [self.place(x, min(max(a + b * x, self.ys[0]), self.ys[1])) for x in curve]
        dots = [self.place(p["x"], p[quantity]) for p in own]
        return [line(curve, colour), *(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in dots)]


def ticks(low: float, high: float) -> list:
    decades = [10.0**exponent for exponent in range(-4, 9)]
    return [tick for tick in decades if low <= tick <= high]


def label(value: float) -> str:
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"


def text(x: float, y: float, content: str, anchor: str, size: int) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}">{content}</text>'


def line(points: list, colour: str) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour}"/>'


def drawing(measured: list, lines: list) -> str:
    names = {"entities": f"entities (rank {USUAL_RANK})", "rank": f"complex rank ({USUAL_ENTITIES:,} entities)"}
    titles = {"seconds_per_step": "seconds per step of 1,000 pairs", "peak_mb": "peak memory, MB"}
    elements = []
    for column, axis in enumerate(names):
        own = [p for p in measured if p["axis"] == axis]
        for row, quantity in enumerate(titles):
            if len({p["x"] for p in own}) < 2:
                continue
            at = (column * Panel.WIDTH, row * Panel.HEIGHT)
            panel = Panel(at, titles[quantity], [p["x"] for p in own], [p[quantity] for p in own])
            elements += panel.frame(names[axis])
            for fitted in lines:
                if (fitted["axis"], fitted["quantity"]) == (axis, quantity):
                    of_model = [p for p in own if p["model"] == fitted["model"]]
                    elements += panel.series(of_model, quantity, fitted["a"], fitted["b"], COLOURS[fitted["model"]])
    width, height = 2 * Panel.WIDTH, 2 * Panel.HEIGHT + 30
    for i, (model, colour) in enumerate(COLOURS.items()):
        x = Panel.LEFT + i * 200
        elements += [f'<circle cx="{x}" cy="{height - 15}" r="4" fill="{colour}"/>',
                     text(x + 10, height - 11, "teacher (structural)" if model == "structural" else model, "start", 12)]
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">\n'
            '<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(elements) + "\n</svg>\n")


def main() -> None:
    options = arguments()
    measured = points(options)
    lines = fits(measured, options.memory)
    (options.out / "growth.json").write_text(json.dumps({"points": measured, "fits": lines}, indent=1) + "\n")
    (options.out / "growth.svg").write_text(drawing(measured, lines))
    for fitted in lines:
        end = [f"; {key.replace('_', ' ')}: {value:,}" for key, value in fitted.items() if key.endswith("_gib")]
        print(f"{fitted['model']:10} {fitted['quantity']:16} = {fitted['a']:.3g} + {fitted['b']:.3g} {fitted['axis']}"
              + "".join(end))
    print(f"written to {options.out / 'growth.svg'}")


if __name__ == "__main__":
    main()
