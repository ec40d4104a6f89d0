#!/usr/bin/env python3
"""Submits experiments to a Slurm of this machine's own, and holds what comes out against runs without it.

    python3 tests/slow/slurm.py --programs target/debug [--only grid,limit] [--keep]

A controller and three nodes run in a folder of their own on free ports, from Debian's packages slurmctld, slurmd, slurm-client and
munge; nothing outside the folder is written, and what was started is ended. Says "skipped" where a package or root is missing, and
fails there if DSOM_REQUIRE_SLURM is set. Some six minutes on two cores.
"""

import argparse
import collections
import contextlib
import hashlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

NEEDED = ["munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "sinfo"]
CONF = """
ClusterName=dsom
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={dir}/munge/socket
CredType=cred/munge
StateSaveLocation={dir}/state
SlurmdSpoolDir={dir}/spool/%n
SlurmctldPidFile={dir}/slurmctld.pid
SlurmdPidFile={dir}/slurmd.%n.pid
SlurmctldLogFile={dir}/log/slurmctld
SlurmdLogFile={dir}/log/%n
# No control groups: a job is its process group.
ProctrackType=proctrack/pgid
TaskPlugin=task/none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
KillWait=10
MinJobAge=3600
SchedulerParameters=bf_interval=2,sched_interval=2,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
{nodes}
PartitionName=main Nodes=ALL Default=YES State=UP PriorityTier=10 DefMemPerCPU=500
PartitionName=low Nodes=ALL State=UP PriorityTier=1 DefMemPerCPU=500 PreemptMode=REQUEUE GraceTime=20
"""
# A student that trains for half a minute, and nothing before it but the graph.
SLOW = """
title = "slow"
seeds = [0]
[[dataset]]
name = "nations"
recipe = ["pipelines/nations.toml"]
raw = "data/nations"
[[variant]]
name = "alone"
set = { distill = { term.kind = "none", rank = 512, epochs = 450, patience = 450 } }
"""


def call(*command, **more):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, **more)


def said(*command):
    return call(*command, check=True).stdout


def wait_for(what, holds, seconds):
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not after {seconds} s\n{call('squeue').stdout}")
        time.sleep(0.3)


@contextlib.contextmanager
def cluster(folder):
    """A controller and three nodes of two processors; `SLURM_CONF` names it."""
    started = []

    def start(*command):
        with open(folder / "log" / f"{len(started)}.out", "w") as log:
            started.append(subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            start_new_session=True))

    for name in ["state", "log", "munge", "spool/node1", "spool/node2", "spool/node3"]:
        (folder / name).mkdir(parents=True)
    (folder / "munge").chmod(0o700)
    with contextlib.ExitStack() as stack:
        free = [stack.enter_context(socket.socket()) for _ in range(4)]
        for one in free:
            one.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1] for one in free]
    host = socket.gethostname().split(".")[0]
    nodes = [f"NodeName=node{n} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[n]} CPUs=2 RealMemory=8000" for n in (1, 2, 3)]
    conf = folder / "slurm.conf"
    conf.write_text(CONF.format(host=host, dir=folder, ports=ports, nodes="\n".join(nodes)))
    os.environ["SLURM_CONF"] = str(conf)
    munge = folder / "munge"
    munge.joinpath("key").write_bytes(os.urandom(1024))
    munge.joinpath("key").chmod(0o600)
    try:
        start("munged", "--foreground", "--force", f"--key-file={munge}/key", f"--socket={munge}/socket", f"--log-file={munge}/log",
              f"--pid-file={munge}/pid", f"--seed-file={munge}/seed")
        wait_for("munge", (munge / "socket").exists, 10)
        start("slurmctld", "-D", "-c", "-f", conf)
        for n in (1, 2, 3):
            start("slurmd", "-D", "-N", f"node{n}", "-f", conf)
        wait_for("nodes", lambda: call("sinfo", "-h", "-N", "-p", "main", "-o", "%t").stdout.split() == ["idle"] * 3, 30)
        yield
    finally:
        call("scancel", "--name", "grid", "--name", "slow")
        for process in reversed(started):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


class Lab:
    def __init__(self, programs, folder):
        self.program, self.folder = pathlib.Path(programs).resolve() / "dsom-experiment", folder
        self.slow = folder / "slow.toml"
        self.slow.write_text(SLOW)

    def profile(self, text):
        path = self.folder / "pro file.toml"
        path.write_text(text)
        return path

    def experiment(self, file, out, *more):
        done = call(self.program, file, "--out", out, *more)
        assert done.returncode == 0, f"{done.args}: {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
        return done

    def submit(self, file, out, profile, *more):
        """Returns the numbers of the jobs that a call submitted, by name."""
        return submitted(self.experiment(file, out, "--slurm", profile, *more).stderr)

    def same(self, out, local):
        """Models, figures and tables of a run are those of the same one without Slurm."""
        names = {"model.safetensors", "features.safetensors", "metrics.json", "ranks.parquet", "results.parquet", "table.md", "table.tex"}
        digests = [{path.relative_to(root): hashlib.sha256(path.read_bytes()).hexdigest()
                    for path in root.rglob("*") if path.name in names and ".shard" not in str(path)} for root in (out, local)]
        assert len(digests[1]) > 5 and digests[0] == digests[1], sorted(set(digests[0].items()) ^ set(digests[1].items()))
        return len(digests[1])


def submitted(said):
    """The numbers of jobs by name, of lines such as `12 nations/seed-0/graph: LOG`."""
    jobs = [line.split()[:2] for line in said.splitlines() if line[0].isdigit() and ": " in line]
    return {name[:-1]: number for number, name in jobs}


def queue():
    return [line.split("|") for line in said("squeue", "--noheader", "--format=%i|%T|%r|%k").splitlines()]


def settle(seconds=300):
    """Waits for an empty queue. A requeued job waits two minutes by itself; here it is told to begin, a little later."""
    waiting = {}

    def empty():
        for number, state, reason, _ in (jobs := queue()):
            if state == "PENDING" and reason == "BeginTime" and time.monotonic() - waiting.setdefault(number, time.monotonic()) > 4:
                call("scontrol", "update", f"job={number}", "StartTime=now")
                del waiting[number]
        return not jobs

    wait_for("the queue to be empty", empty, seconds)


def states(numbers):
    """How jobs ended, and how often they were started anew."""
    fields = [dict(word.split("=", 1) for word in said("scontrol", "show", "job", number).split() if "=" in word) for number in numbers]
    return [(job["JobState"], int(job["Restarts"])) for job in fields]


def grid(lab):
    """The demo's grid: two calls at once, features and soft labels in shards, spaces in paths, a cancelled student, the same call again."""
    out, file, student = lab.folder / "with space" / "grid", "pipelines/experiments/demo.toml", "nations/seed-0/student-all-0"
    profile = lab.profile('[default]\ntime = 30\n[features]\narray = "1-2"\n[soft-labels]\narray = "1-2"\n[teachers]\ncpus-per-task = 1\nsetup = "export DSOM_DEVICE=cpu"\n')
    command = [lab.program, file, "--out", out, "--slurm", profile]
    calls = [subprocess.Popen([str(word) for word in command], stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ends = [(one.communicate()[1], one.returncode) for one in calls]
    assert [code for _, code in ends] == [0, 0], ends
    jobs = [submitted(end) for end, _ in ends]
    names = collections.Counter(name for one in jobs for name in one)
    # What was done before the second call had its turn is asked for again, and fresh.
    assert len(names) == 46 and all(count == 1 for name, count in names.items() if "student" in name), names
    call("scancel", next(one[student] for one in jobs if student in one), check=True)
    settle(900)
    assert "(2 of 3 seeds)" in (out / "table.md").read_text() and (out / "report.html").is_file()
    again = lab.submit(file, out, profile)
    assert list(again) == [student, "tables"], again
    settle()
    local = lab.folder / "local" / "grid"
    lab.experiment(file, local)
    files = lab.same(out, local)
    log = (out / "logs/nations-seed-0-features.shards.log.2").read_text()
    assert "ended with 0" in log, log
    return f"{len(names)} jobs, {files} files with the bytes of the local run"


def bad(lab):
    """A bad input leaves an empty queue; what Slurm refuses is refused before the first job."""
    raw, out = lab.folder / "raw", lab.folder / "bad" / "grid"
    shutil.copytree("data/nations", raw)
    (raw / "train.tsv").write_text("no\ttriple\n")
    jobs = lab.submit("pipelines/experiments/demo.toml", out, lab.profile(""), "--seed", "0", "--data", f"nations={raw}")
    settle(60)
    ended = collections.Counter(state for state, _ in states(jobs.values()))
    assert ended == {"FAILED": 2, "CANCELLED": len(jobs) - 2}, ended
    refused = call(lab.program, lab.slow, "--out", out, "--slurm", lab.profile('[tables]\npartition = "nope"\n'))
    assert refused.returncode == 2 and "partition" in refused.stderr and not queue(), refused
    return f"{len(jobs)} jobs ended by themselves, and none was submitted to a partition that is not there"


def stopped(lab, name, profile, act):
    """A student that is stopped in mid-training ends with the bytes of one that is not."""
    out = lab.folder / name / "slow"
    jobs = lab.submit(lab.slow, out, lab.profile(profile))
    number = jobs["nations/seed-0/student-alone-0"]
    events = out / "nations/seed-0/student-alone-0/events.jsonl"
    wait_for("training", lambda: events.exists() and len(events.read_text().splitlines()) > 5, 60)
    act(number)
    settle()
    (state, restarts), log = states([number])[0], (out / "logs/nations-seed-0-student-alone-0.log").read_text()
    assert state == "COMPLETED" and restarts > 0 and "stopped as asked" in log and "continues" in log, (state, restarts, log)
    local = lab.folder / "local" / "slow"
    if not local.exists():
        lab.experiment(lab.slow, local)
    lab.same(out, local)
    return f"started anew {restarts} times, the same bytes"


def limit(lab):
    """A time limit of a minute, of which Slurm tells well ahead."""
    return stopped(lab, "limit", '[distill]\ntime = 1\nsignal = "B:USR1@50"\n', lambda number: None)


def requeue(lab):
    """`scontrol requeue`."""
    return stopped(lab, "requeue", "", lambda number: call("scontrol", "requeue", number, check=True))


def preemption(lab):
    """Preemption by a job of a better partition, with a grace of twenty seconds."""
    def preempt(number):
        node = said("squeue", "--noheader", "--job", number, "--format=%N").strip()
        said("sbatch", "--partition=main", f"--nodelist={node}", "--exclusive", "--job-name=slow", "--output=/dev/null", "--wrap", "sleep 3")
    return stopped(lab, "preemption", '[distill]\npartition = "low"\n', preempt)


CASES = [grid, bad, limit, requeue, preemption]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", default="bin")
    parser.add_argument("--only", default=",".join(case.__name__ for case in CASES))
    parser.add_argument("--keep", action="store_true", help="leave the folder")
    options = parser.parse_args()
    os.environ["PATH"] += ":/usr/sbin"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # What was started is ended even so.
    missing = [name for name in NEEDED if not shutil.which(name)] + (["root"] if os.geteuid() else [])
    if missing:
        print(f"skipped: no {', '.join(missing)} (Debian: slurmctld slurmd slurm-client munge)")
        return bool(os.environ.get("DSOM_REQUIRE_SLURM"))
    folder, failed = pathlib.Path(tempfile.mkdtemp(prefix="dsom-slurm-")), 0
    try:
        with cluster(folder / "cluster"):
            lab = Lab(options.programs, folder)
            for case in (case for case in CASES if case.__name__ in options.only.split(",")):
                started = time.monotonic()
                try:
                    print(f"{case.__name__}: {case(lab)}, {time.monotonic() - started:.0f} s", flush=True)
                except AssertionError as error:
                    failed += 1
                    print(f"FAILED {case.__name__}: {error}", flush=True)
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
