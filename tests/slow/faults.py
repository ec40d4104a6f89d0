#!/usr/bin/env python3
"""Treats the programs badly and looks what they make of it: signals, damaged files, senseless settings, failing system
calls, full and read-only disks. Whatever happens, a program ends with a documented exit code and without a panic, leaves
earlier stages alone, and once it ends with 0 its folder has the bytes of an undisturbed run and nothing else.

    python3 tests/slow/faults.py --programs target/debug [--seed 7] [--only signals,mutations] [--scale 0.1]

Prints the seed and every violation with its command; ends with 1 if there is one. Needs nothing but the standard library;
strace and root where they are there.
"""

import argparse
import collections
import concurrent.futures
import glob
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import tomllib
import zipfile

CODES = {0, 2, 65, 66, 70, 71, 74, 75}
SMALL = ["teachers.rank=4", "teachers.epochs=6", "distill.rank=4", "distill.epochs=6", "evaluate.examples=2",
         "distill.selection.hidden=8", "soft_labels.rows_per_file=1000"]
STAGES = [("dsom-import", "graph"), ("dsom-features", "features/textual"), ("dsom-features", "features/visual"),
          ("dsom-teachers", "teachers/structural"), ("dsom-teachers", "teachers/textual"), ("dsom-teachers", "teachers/visual"),
          ("dsom-soft-labels", "soft-labels"), ("dsom-distill", "student"), ("dsom-evaluate", "evaluation")]
# How often, at --scale 1.
COUNTS = {"signals": 500, "shards": 100, "mutations": 10000, "settings": 2000, "calls": 300, "disks": 24}


def digest(path):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


class Lab:
    """A run of its own: the demo's, or a copy of that of an `origin`."""

    def __init__(self, options, folder, origin=None):
        self.options, self.origin = options, origin
        self.run, self.raw, self.recipe = (os.path.join(folder, name) for name in ("run", "raw", "recipe.toml"))
        raw, recipe = (origin.raw, origin.recipe) if origin else ("data/nations", "pipelines/nations.toml")
        shutil.copytree(raw, self.raw)
        with open(recipe) as f, open(self.recipe, "w") as g:
            g.write(f.read().replace(raw, self.raw))
        if origin:
            shutil.copytree(origin.run, self.run)
        else:
            write_others(self.raw)

    def command(self, stage, *more):
        program, folder = STAGES[stage]
        call = [os.path.join(self.options.programs, program), "--run", self.run, "--recipe", self.recipe, "--threads", "1", "-q"]
        call += [word for key in SMALL for word in ("--set", key)]
        if program == "dsom-import":
            call += ["--raw", self.raw]
        if program in ("dsom-features", "dsom-teachers"):
            call += ["--modality", folder.split("/")[1]]
        return call + list(more)

    def finish(self):
        for stage in range(len(STAGES)):
            subprocess.run(self.command(stage), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def folder(self, stage):
        return os.path.join(self.run, STAGES[stage][1])

    def files(self, stage):
        """Returns what the stage's outputs are: names and digests, without logs and times."""
        found = {}
        for at, _, names in os.walk(self.folder(stage)):
            for name in names:
                if name not in ("stage.json", "events.jsonl"):
                    path = os.path.join(at, name)
                    found[os.path.relpath(path, self.run)] = digest(path)
        return found


class Campaign:
    def __init__(self, options, folder):
        self.options, self.lock = options, threading.Lock()
        self.counts, self.violations = collections.Counter(), []
        self.origin = Lab(options, os.path.join(folder, "origin"))
        self.origin.finish()
        # Paths in recipes differ between labs: each has outputs of its own, and must stay as they were.
        self.labs = [Lab(options, os.path.join(folder, f"lab{i}"), self.origin) for i in range(2)]
        for lab in self.labs:
            lab.expected = [self.origin.files(stage) for stage in range(len(STAGES))]
        self.free = list(self.labs)

    def count(self, what):
        with self.lock:
            self.counts[what] += 1

    def violation(self, what, call):
        with self.lock:
            self.violations.append(what)
            print(f"VIOLATION {what}\n    {' '.join(call)}", flush=True)

    def call(self, call, what, seconds=60, stop=None):
        """Runs a program, and asks it to stop after `stop` seconds if that is given; returns its exit code, or None after a violation."""
        process = subprocess.Popen(call, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for limit, end in [(stop, process.terminate)] * bool(stop) + [(seconds, process.kill)]:
            try:
                said = process.communicate(timeout=limit)[0]
                break
            except subprocess.TimeoutExpired:
                end()
        else:
            process.communicate()
            return self.violation(f"{what}: no end after {seconds} s", call)
        if process.returncode not in CODES or b"panicked" in said:
            return self.violation(f"{what}: exit {process.returncode}: {said[-300:].decode(errors='replace')}", call)
        return process.returncode

    def compare(self, lab, stages, what, call):
        """Says whether these stages are as in an undisturbed run."""
        for stage in stages:
            found, expected = lab.files(stage), lab.expected[stage]
            if found != expected or not os.path.exists(os.path.join(lab.folder(stage), "stage.json")):
                other = sorted(k for k in found.keys() | expected.keys() if found.get(k) != expected.get(k))
                self.violation(f"{what}: {STAGES[stage][1]} has other bytes: {other[:5]}", call)
                self.restore(lab, stage)

    def restore(self, lab, stage):
        shutil.rmtree(lab.folder(stage), ignore_errors=True)
        shutil.copytree(self.origin.folder(stage), lab.folder(stage))

    def until_done(self, lab, stage, what):
        """Repeats a stage's call until it ends with 0; then its folder is as in an undisturbed run."""
        call = lab.command(stage)
        for _ in range(3):
            if self.call(call, what) == 0:
                break
        else:
            self.violation(f"{what}: does not end with 0", call)
        self.compare(lab, range(stage + 1), what, call)

    def each(self, name, case):
        """Runs the cases of one kind, two at a time, each with a generator and a lab of its own."""
        total = max(1, round(COUNTS[name] * self.options.scale))

        def one(number):
            with self.lock:
                lab = self.free.pop()
            try:
                case(lab, random.Random(f"{self.options.seed} {name} {number}"))
            finally:
                with self.lock:
                    self.free.append(lab)
        began = time.time()
        with concurrent.futures.ThreadPoolExecutor(len(self.labs)) as pool:
            list(pool.map(one, range(total)))
        print(f"{name}: {total} cases in {time.time() - began:.0f} s", flush=True)

    # Signals at random moments, again and again until the stage is done.
    def signals(self, lab, draw):
        stage = draw.randrange(len(STAGES))
        what = f"signals at {STAGES[stage][1]}"
        shutil.rmtree(lab.folder(stage))
        for _ in range(draw.randrange(1, 4)):
            call = lab.command(stage)
            self.signal(call, what, draw)
            self.compare(lab, range(stage), what, call)
        self.until_done(lab, stage, what)

    def signal(self, call, what, draw):
        process = subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(draw.random() * draw.choice([0.02, 0.1, 0.3]))
        sent = draw.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
        process.send_signal(sent)
        code = process.wait(60)
        # A signal before the program listens ends it; that is the system's doing.
        self.count(f"{sent.name}: exit {code}")
        if code not in (0, 75, -sent):
            self.violation(f"{what}: {sent.name} ended it with {code}", call)

    # The same for shards and what puts them together; nothing is left of them.
    def shards(self, lab, draw):
        stage = draw.choice([number for number, (_, folder) in enumerate(STAGES) if folder in ("features/visual", "soft-labels")])
        what = f"signals at shards of {STAGES[stage][1]}"
        shutil.rmtree(lab.folder(stage))
        for more in [("--shard", "1/2"), ("--shard", "2/2"), ("--merge", "2")]:
            call = lab.command(stage, *more)
            self.signal(call, what, draw)
            if self.call(call, what) not in (0, None):
                self.violation(f"{what}: does not end with 0", call)
        self.compare(lab, range(stage + 1), what, call)
        for left in glob.glob(lab.folder(stage) + ".shard*"):
            self.violation(f"{what}: {left} is left", call)
            shutil.rmtree(left)

    # One damaged file, and the program that reads it.
    def mutations(self, lab, draw):
        others = readers_of(lab)
        stage = draw.randrange(len(STAGES) + len(others))
        if stage < len(STAGES):
            files, call = inputs_of(lab, stage), lab.command(stage, "--force")
        else:
            stage, call, files = others[stage - len(STAGES)]
        path = draw.choice(files)
        with open(path, "rb") as f:
            before = f.read()
        kept = os.stat(path)
        with open(path, "wb") as f:
            f.write(damaged(before, draw))
        if draw.random() < 0.5:
            os.utime(path, ns=(kept.st_atime_ns, kept.st_mtime_ns))
        name = os.path.relpath(path, os.path.dirname(lab.run))
        what = f"damaged {name}"
        code = self.call(call, what)
        self.count(f"mutation: exit {code}")
        with open(path, "wb") as f:
            f.write(before)
        os.utime(path, ns=(kept.st_atime_ns, kept.st_mtime_ns))
        # What lies outside the run is whatever it says; what a stage wrote is known by its digest.
        outside = stage is None or not path.startswith(lab.run)
        if code == 0 and not outside:
            self.compare(lab, [stage], what, call)
        if code in (2, 65, 66) and not outside:
            self.compare(lab, range(stage), what, call)
        if stage is not None:
            self.restore(lab, stage)

    # A key of the manual with a value that makes no sense.
    def settings(self, lab, draw):
        key, value = draw.choice(self.options.keys), draw.choice(SENSELESS)
        sections = {"import": [0], "features": [1, 2], "teachers": [3, 4, 5], "soft_labels": [6], "distill": [7], "evaluate": [8]}
        stage = draw.choice(sections.get(key.split(".")[0], range(len(STAGES))))
        what, call = f"{key}={value}", lab.command(stage, "--set", f"{key}={value}")
        code = self.call(call, what, stop=3)
        self.count(f"setting: exit {code}")
        if code in (2, 71):
            self.compare(lab, [stage], what, call)
        if code != 2:
            self.restore(lab, stage)

    # A system call that fails once.
    def calls(self, lab, draw):
        stage = draw.randrange(len(STAGES))
        name = draw.choice(["fsync", "rename", "unlink", "ftruncate", "flock", "openat", "read", "pread64", "write"])
        error, when = draw.choice(["EIO", "ENOSPC", "EMFILE", "EACCES"]), draw.choice([1, 1, 2, 3, 5, 8, 20])
        shutil.rmtree(lab.folder(stage))
        os.makedirs(lab.folder(stage))
        trace = ["strace", "-f", "-qq", "-o", "/dev/null"]
        if name in ("openat", "read", "pread64", "write"):
            # Only files of the run: the loader's own calls are not ours.
            paths = inputs_of(lab, stage) + [os.path.join(self.origin.run, file) for file in lab.expected[stage]]
            trace += [word for path in paths[:40] for word in ("-P", path.replace(self.origin.run, lab.run))]
        trace += ["-e", f"trace={name}", "-e", f"inject={name}:error={error}:when={when}"]
        what, call = f"{name} fails with {error} at call {when} in {STAGES[stage][1]}", trace + lab.command(stage)
        code = self.call(call, what)
        self.count(f"failing call: exit {code}")
        if code == 0:
            self.compare(lab, range(stage + 1), what, call)
        self.until_done(lab, stage, what)

    # A disk with too little room, then with enough; and one that cannot be written.
    def disks(self, lab, draw):
        stage = draw.randrange(len(STAGES))
        at, size = lab.folder(stage), sum(os.path.getsize(os.path.join(lab.run, f)) for f in lab.expected[stage])
        shutil.rmtree(at)
        os.makedirs(at)
        room = max(4096, int(size * draw.choice([0.01, 0.3, 0.6, 0.9])))
        what, call = f"{room} bytes for {STAGES[stage][1]}", lab.command(stage)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", at], check=True)
        try:
            code = self.call(call, what)
            self.count(f"full disk: exit {code}")
            if code not in (71, 74):
                self.violation(f"{what}: exit {code}", call)
            subprocess.run(["mount", "-o", "remount,size=1g", at], check=True)
            self.until_done(lab, stage, what)
            subprocess.run(["mount", "-o", "remount,ro", at], check=True)
            for more, expected in (((), 0), (("--force",), 74)):
                if self.call(lab.command(stage, *more), what) != expected:
                    self.violation(f"a read-only folder: not {expected}", lab.command(stage, *more))
        finally:
            subprocess.run(["umount", at], check=True)
        self.restore(lab, stage)


def inputs_of(lab, stage):
    """Lists the files that a stage reads."""
    if stage == 0:
        return [os.path.join(lab.raw, f"{name}.tsv") for name in ("entities", "relations", "train", "valid", "test")] + [lab.recipe]
    if STAGES[stage][1] == "features/textual":
        return [os.path.join(lab.raw, "texts.npy"), os.path.join(lab.run, "graph/entities.parquet"), lab.recipe]
    if STAGES[stage][1] == "features/visual":
        images = os.path.join(lab.raw, "images")
        return [os.path.join(images, name) for name in sorted(os.listdir(images))[:8]] + [os.path.join(lab.run, "graph/entities.parquet")]
    records = [os.path.join(at.folder(stage), "stage.json") for at in (lab, lab.origin)]
    with open(next(path for path in records if os.path.exists(path))) as f:
        manifest = json.load(f)
    paths = [os.path.join(lab.run, record["path"]) for record in manifest["inputs"]]
    above = sorted({os.path.join(os.path.dirname(path), "stage.json") for path in paths})
    return [path for path in paths + above if os.path.exists(path)]


OTHER_TEXTS = {
    "names.txt": "France\tLa France\nSpain\tEspaña\n", "other.txt": "0\tof a\n1\tof b\n", "other2id.txt": "x 0\ny 1\n",
    "links.txt": "x <SameAs> France .\ny Spain\n", "tokens.json": '{"France": [0, 1, 2]}', "vocab.txt": "[CLS]\nfall\n##en\n",
    "texts.json": '{"1": {"of": "France", "text": "A"}, "2": {"of": "Spain", "text": null}}',
    "questions.tsv": "France\tborders\nSpain\tborders\t?\n", "questions.jsonl": '{"head": "France", "relation": "borders"}\n',
    "triples.tsv": "France\tborders\tSpain\n", "candidates.txt": "France\nSpain\n",
}
OTHER_RECIPE = """[import]
names = [{ file = "names.txt" }]
descriptions = [{ file = "other.txt", ids = "other2id.txt", via = "links.txt" }, { file = "texts.json", field = "text", key_field = "of" }]
captions = [{ file = "tokens.json", vocabulary = "vocab.txt" }]
"""


def write_others(raw):
    """Writes inputs that the demo has not: texts of every format, rows as .npz and .pt, and questions."""
    for name, text in (OTHER_TEXTS | {"texts.toml": OTHER_RECIPE}).items():
        with open(os.path.join(raw, name), "w") as f:
            f.write(text)
    with open(os.path.join(raw, "texts.npy"), "rb") as f:
        rows = f.read()
    # The header, then numbers; PyTorch's file describes the same numbers in a pickle.
    length = 10 + int.from_bytes(rows[8:10], "little")
    kind, shape = re.search(rb"'<f(\d)'.*\((\d+), (\d+)\)", rows[:length]).group(1), re.findall(rb"\d+", rows[:length].split(b"(")[1])
    number = lambda n: b"J" + int(n).to_bytes(4, "little")
    word = lambda text: b"X" + len(text).to_bytes(4, "little") + text
    storage = {b"2": b"Half", b"4": b"Float", b"8": b"Double"}[kind] + b"Storage"
    pickle = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((" + word(b"storage") + b"ctorch\n" + storage + b"\n" + word(b"0") \
        + word(b"cpu") + number(1) + b"tQ" + number(0) + b"(" + number(shape[0]) + number(shape[1]) + b"t(" + number(shape[1]) \
        + number(1) + b"t\x89ccollections\nOrderedDict\n)RtR."
    for name, members in (("texts.npz", {"features.npy": rows}), ("texts.pt", {"a/data.pkl": pickle, "a/data/0": rows[length:]})):
        with zipfile.ZipFile(os.path.join(raw, name), "w", zipfile.ZIP_STORED) as archive:
            for member, content in members.items():
                archive.writestr(member, content)


def readers_of(lab):
    """Lists further calls with the files that they read, and the stage that they write, if any."""
    raw = lambda *names: [os.path.join(lab.raw, name) for name in names]
    predict = [os.path.join(lab.options.programs, "dsom-predict"), "--run", lab.run]
    report = [os.path.join(lab.options.programs, "dsom-report"), "--run", lab.run, "-q", "--out", *raw("report.html")]
    of_run = [os.path.join(lab.run, folder, name) for _, folder in STAGES for name in ("stage.json", "events.jsonl")]
    of_run += [os.path.join(lab.run, name) for name in ("graph/audit.json", "evaluation/metrics.json", "student/model.safetensors")]
    given = [(1, lab.command(1, "--force", "--set", f"features.textual.file={path}"), [path]) for path in raw("texts.npz", "texts.pt")]
    return given + [
        (0, lab.command(0, "--force", "--recipe", *raw("texts.toml")), raw("names.txt", "other.txt", "other2id.txt", "links.txt",
                                                                            "texts.json", "tokens.json", "vocab.txt", "texts.toml")),
        (None, predict + ["--questions", *raw("questions.tsv")], raw("questions.tsv")),
        (None, predict + ["--questions", *raw("questions.jsonl")], raw("questions.jsonl")),
        (None, predict + ["--score", *raw("triples.tsv")], raw("triples.tsv")),
        (None, predict + ["France", "borders", "--why", "--candidates", *raw("candidates.txt")], raw("candidates.txt")),
        (None, report, [path for path in of_run if os.path.exists(path)]),
    ]


def damaged(content, draw):
    """Returns the content with one thing wrong."""
    content = bytearray(content)
    at, length = draw.randrange(len(content) + 1), draw.choice([1, 2, 8, 64, 1000])
    kind = draw.randrange(8)
    if kind == 0 and content:
        content[at % len(content)] ^= 1 << draw.randrange(8)
    elif kind == 1:
        content[at:at + length] = draw.randbytes(length)
    elif kind == 2:
        del content[at:]
    elif kind == 3:
        del content[at:at + length]
    elif kind == 4:
        content[at:at] = content[at:at + length]
    elif kind == 5:
        content[at:at] = draw.choice([b"\0", b"\xff\xfe", b"\t", b"\n", b'"', b"}", b"[", b"-1", b"9" * 30, b"nan", b"\x1b[2J"])
    elif kind == 6:
        content[at:at + length] = bytes(length)
    else:
        content = bytearray(draw.choice([b"", b"\0" * 100, b"{}", b"[]", b"null", draw.randbytes(300)]))
    return content


SENSELESS = ["-1", "0", "1", "3", "1e308", "-1e308", "1e-320", "nan", "inf", "-inf", "9223372036854775807", "1000000000000",
             "4294967296", "true", "\"\"", "\"x\"", "\"../..\"", "[]", "[1]", "[\"x\",\"x\"]", "{}", "{x=1}", "\"" + "x" * 5000 + "\"",
             "\"structural\"", "0.5", "1979-05-27", "{kind=\"none\"}", "{kind=\"x\"}", "{kind=\"policy\",reward=-1}", "\"\\u0000\""]


def keys_of(table, lead=""):
    for name, value in table.items():
        yield lead + name
        if isinstance(value, dict):
            yield from keys_of(value, lead + name + ".")


def manual_keys():
    """Returns every key of the manual, those in its comments too."""
    with open("pipelines/default.toml") as f:
        text = f.read()
    keys, table = set(keys_of(tomllib.loads(text))), ""
    for line in text.splitlines():
        if heading := re.match(r"#? ?\[([a-z._-]+)\]", line):
            table = heading[1]
        elif key := re.match(r"# ([a-z_0-9]+) = ", line):
            keys.add(f"{table}.{key[1]}")
    return sorted(keys)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--programs", default="target/debug")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--only", default=",".join(COUNTS))
    parser.add_argument("--scale", type=float, default=1.0)
    options = parser.parse_args()
    options.programs, options.keys = os.path.abspath(options.programs), manual_keys()
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="dsom-faults-") as folder:
        campaign = Campaign(options, folder)
        for name in options.only.split(","):
            if name == "calls" and not shutil.which("strace"):
                print("calls: skipped, there is no strace")
            elif name == "disks" and os.geteuid() != 0:
                print("disks: skipped, mounting needs root")
            else:
                campaign.each(name, getattr(campaign, name))
    for what, count in sorted(campaign.counts.items()):
        print(f"{count:6} {what}")
    print(f"{len(campaign.violations)} violations")
    raise SystemExit(bool(campaign.violations))


if __name__ == "__main__":
    main()
