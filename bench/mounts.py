#!/usr/bin/env python3
"""Mounts one tree in several ways and looks through it, beside the tree itself.

    bench/mounts.py TREE --diptych PATH [--big FILE] [--rounds 3] [--only NAME,...] [--limit 120]

As root, for the kernel's squashfs. Each round mounts everything in turn and runs `find -ls` and `tar c` (to a pipe) on a fresh
mount (cold: what was mounted is in the page cache, what the mount keeps is not) and once more (warm). With --big it also reads
a large file from its start to its end, and 4 KiB at random places with 8 readers. What is printed are the medians, in seconds, or
in MB/s and reads a second. A step that takes longer than the limit is given up. Needs squashfs-tools and squashfuse; casync,
restic and borg are compared where they are installed.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time

STEPS = ["find cold", "find warm", "tar cold", "tar warm"]


def run(command, **more):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **more)
    if done.returncode != 0:
        raise SystemExit(f"{command}: {done.returncode}\n{done.stdout.decode(errors='replace')}")
    return done.stdout


def timed(command, limit):
    """Seconds of a command whose output goes to a pipe; none if it takes too long."""
    begun = time.monotonic()
    reader = subprocess.Popen(["wc", "-c"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    writer = subprocess.Popen(command, stdout=reader.stdin, stderr=subprocess.DEVNULL)
    reader.stdin.close()
    try:
        writer.wait(timeout=limit)
        reader.wait(timeout=limit)
        return time.monotonic() - begun
    except subprocess.TimeoutExpired:
        return None
    finally:
        writer.kill()
        writer.wait()
        reader.kill()
        reader.wait()


class Live:
    def __init__(self, tree, work, arguments):
        self.place = tree

    def mount(self, place):
        return self.place

    def unmount(self, place):
        pass


class Diptych:
    def __init__(self, tree, work, arguments):
        self.program, self.archive = arguments.diptych, f"{work}/diptych"
        run([self.program, "-q", "create", self.archive, tree])

    def mount(self, place):
        run([self.program, "mount", self.archive, place])
        return place

    def unmount(self, place):
        run([self.program, "umount", place])


class DiptychRepository(Diptych):
    """A snapshot of an encrypted repository."""

    def __init__(self, tree, work, arguments):
        self.program, self.archive = arguments.diptych, "latest"
        os.environ |= {"DIPTYCH_REPO": f"{work}/repository", "DIPTYCH_PASSWORD": "x", "XDG_STATE_HOME": f"{work}/seen"}
        run([self.program, "-q", "init"])
        run([self.program, "-q", "backup", tree])


class Squashfs:
    def __init__(self, tree, work, arguments):
        self.image = f"{work}/squashfs"
        if not os.path.exists(self.image):
            run(["mksquashfs", tree, self.image, "-comp", "zstd", "-quiet", "-no-progress"])

    def mount(self, place):
        run(["mount", "-o", "loop", "-t", "squashfs", self.image, place])
        return place

    def unmount(self, place):
        run(["umount", place])


class Squashfuse(Squashfs):
    def mount(self, place):
        run(["squashfuse", self.image, place])
        return place


class InForeground:
    """A mount whose process stays."""

    def mount(self, place):
        self.process = subprocess.Popen(self.command(place), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=self.env)
        while not os.path.ismount(place):
            time.sleep(0.005)
        return self.inside(place)

    def inside(self, place):
        return place

    def unmount(self, place):
        run(["umount", "-l", place])
        self.process.terminate()
        self.process.wait()


class Casync(InForeground):
    def __init__(self, tree, work, arguments):
        self.env, self.index = dict(os.environ), f"{work}/tree.caidx"
        run(["casync", "make", f"--store={work}/casync.castr", self.index, tree], cwd=work)
        self.store = f"{work}/casync.castr"

    def command(self, place):
        return ["casync", "mount", f"--store={self.store}", self.index, place]


class Restic(InForeground):
    def __init__(self, tree, work, arguments):
        self.tree = tree
        self.env = dict(os.environ, RESTIC_REPOSITORY=f"{work}/restic", RESTIC_PASSWORD="x", XDG_CACHE_HOME=f"{work}/cache")
        run(["restic", "init"], env=self.env)
        run(["restic", "backup", tree], env=self.env)

    def command(self, place):
        return ["restic", "mount", place]

    def inside(self, place):
        return f"{place}/snapshots/latest{self.tree}"


class Borg(InForeground):
    def __init__(self, tree, work, arguments):
        self.tree = tree
        self.env = dict(os.environ, BORG_REPO=f"{work}/borg", BORG_PASSPHRASE="x", BORG_CACHE_DIR=f"{work}/cache")
        run(["borg", "init", "-e", "repokey"], env=self.env)
        run(["borg", "create", "-C", "zstd,1", "::a", tree], env=self.env)

    def command(self, place):
        return ["borg", "mount", "-f", "::a", place]

    def inside(self, place):
        return f"{place}{self.tree}"


WAYS = {
    "live": (Live, None),
    "diptych": (Diptych, None),
    "diptych snapshot": (DiptychRepository, None),
    "squashfs (kernel)": (Squashfs, "mksquashfs"),
    "squashfuse": (Squashfuse, "squashfuse"),
    "casync": (Casync, "casync"),
    "restic": (Restic, "restic"),
    "borg": (Borg, "borg"),
}


def walk(way, place, limit):
    """Seconds of each step."""
    found = []
    for command in (["find", None, "-ls"], ["tar", "cf", "-", None]):
        inside = way.mount(place)
        filled = [word or inside for word in command]
        for _ in ("cold", "warm"):
            found.append(timed(filled, limit))
        way.unmount(place)
    return found


def read_big(way, place, name, limit):
    """MB/s of a cold and a warm read, and random reads a second once all was read."""
    inside = way.mount(place)
    path = f"{inside}/{name}"
    size = os.path.getsize(path)
    rates = []
    for _ in ("cold", "warm"):
        seconds = timed(["cat", path], limit)
        rates.append(size / seconds / 1e6 if seconds else None)
    printed = run(["fio", "--name=random", f"--filename={path}", "--rw=randread", "--bs=4k", "--numjobs=8", "--runtime=5", "--time_based",
                   "--readonly", "--group_reporting", "--minimal", "--ioengine=psync"])
    rates.append(float(printed.decode().split(";")[7]))
    way.unmount(place)
    return rates


def first_answer(way, place):
    """Seconds from the command to the names in the root."""
    begun = time.monotonic()
    os.listdir(way.mount(place))
    seconds = time.monotonic() - begun
    way.unmount(place)
    return seconds


def middle(values):
    return statistics.median(values) if values and None not in values else None


def table(title, steps, rows, form):
    print(f"\n{title}\n\n| | {' | '.join(steps)} |\n| --- |{' --- |' * len(steps)}")
    for name, values in rows.items():
        shown = ["-" if value is None else form.format(value) for value in values]
        print(f"| {name} | {' | '.join(shown)} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tree")
    parser.add_argument("--diptych", default="diptych")
    parser.add_argument("--big", help="a large file, read from mounts of the directory that it is in")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help="names of what to compare, with commas between them")
    parser.add_argument("--limit", type=float, default=120, help="seconds that a step may take")
    arguments = parser.parse_args()
    wanted = arguments.only.split(",") if arguments.only else list(WAYS)
    names = [name for name in wanted if WAYS[name][1] is None or shutil.which(WAYS[name][1])]
    work = tempfile.mkdtemp(prefix="mounts-")
    place = f"{work}/place"
    os.mkdir(place)
    try:
        tree = os.path.realpath(arguments.tree)
        ways = {name: WAYS[name][0](tree, work, arguments) for name in names}
        seconds = {name: [] for name in ways}
        first = {name: [] for name in ways}
        for _ in range(arguments.rounds):
            for name, way in ways.items():
                first[name].append(first_answer(way, place))
                seconds[name].append(walk(way, place, arguments.limit))
        rows = {name: [middle(values) for values in zip(*found)] for name, found in seconds.items()}
        table("Seconds", STEPS, rows, "{:.2f}")
        table("Milliseconds to the first answer", ["mount, list the root"],
              {name: [middle(found) * 1000] for name, found in first.items()}, "{:.0f}")
        if arguments.big:
            big = os.path.realpath(arguments.big)
            rates = {}
            for name in names:
                below = tempfile.mkdtemp(dir=work)
                way = WAYS[name][0](os.path.dirname(big), below, arguments)
                found = [read_big(way, place, os.path.basename(big), arguments.limit) for _ in range(arguments.rounds)]
                rates[name] = [middle(values) for values in zip(*found)]
                shutil.rmtree(below)
            table("One large file", ["MB/s cold", "MB/s warm", "4 KiB reads a second"], rates, "{:.0f}")
    finally:
        subprocess.run(["umount", "-l", place], stderr=subprocess.DEVNULL)
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
