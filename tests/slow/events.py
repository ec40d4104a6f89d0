"""Reads the event files that dsom-report wrote with TensorBoard's own reader and compares them with what they were written
from.

Usage: events.py RUN EVENTS   (needs the packages of requirements.txt beside this file)
"""

import json
import math
import pathlib
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def close(found: float, expected: float) -> bool:
    return math.isclose(found, expected, rel_tol=1e-6, abs_tol=1e-9)


def main(run: pathlib.Path, events: pathlib.Path) -> None:
    folders = {folder.name: folder for folder in [*run.glob("teachers/*"), *run.glob("student*")]}
    for written in sorted(events.iterdir()):
        reader = EventAccumulator(str(written))
        reader.Reload()
        tags = reader.Tags()["scalars"]
        lines = (folders[written.name] / "events.jsonl").read_text().splitlines()
        epochs = {epoch["epoch"]: epoch for epoch in map(json.loads, lines)}
        compared = 0
        for tag in [tag for tag in tags if tag.startswith("epoch/")]:
            name = tag.removeprefix("epoch/")
            found = {scalar.step: scalar.value for scalar in reader.Scalars(tag)}
            expected = {epoch: figures[name] for epoch, figures in epochs.items() if name in figures}
            assert found.keys() == expected.keys(), f"{written.name} {tag}: epochs {found.keys()}"
            assert all(close(found[epoch], expected[epoch]) for epoch in found), f"{written.name} {tag}"
            compared += len(found)
        metrics = json.loads((run / "evaluation/metrics.json").read_text())["models"][written.name]
        [mrr] = reader.Scalars("test/mrr")
        assert close(mrr.value, metrics["test"]["both"]["mrr"]), f"{written.name} test/mrr"
        times = [scalar.wall_time for scalar in reader.Scalars("epoch/loss")]
        assert times == sorted(times) and times[0] > 1.6e9, f"{written.name}: times {times[:3]}"
        print(f"{written.name}: {len(tags)} curves, {compared} numbers equal to events.jsonl")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
