#!/usr/bin/env python3
"""Backs a tree up through a server on this machine, beside the same without a server, and beside restic with rest-server.

    bench/server.py FIRST SECOND --diptych PATH [--restic PATH --rest-server PATH] [--rounds 3]

FIRST and SECOND are two states of a tree. Each tool gets a copy of the first, which `rsync` then makes the second, so that what is the
same in both stays as it is. Each round runs everything in turn; what is printed are the medians, in seconds: first backup,
nothing changed, second state, restore. The servers speak over loopback: diptych's with TLS, as it always does, rest-server without.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time

STEPS = ["full", "unchanged", "changed", "restore"]


def timed(command, env, cwd=None):
    begun = time.monotonic()
    done = subprocess.run(command, env=env, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        raise SystemExit(f"{command}: {done.returncode}\n{done.stdout.decode(errors='replace')}")
    return time.monotonic() - begun


class Diptych:
    def __init__(self, arguments, work, is_remote):
        self.program, self.work, self.is_remote = arguments.diptych, work, is_remote
        self.env = dict(os.environ, DIPTYCH_PASSWORD="x", XDG_CACHE_HOME=f"{work}/cache", XDG_STATE_HOME=f"{work}/seen")
        self.server = None
        os.mkdir(f"{work}/root")
        location = f"{work}/root/main"
        if is_remote:
            self.server = subprocess.Popen(
                [self.program, "serve", "--root", f"{work}/root", "--listen", "127.0.0.1:0", "--state", f"{work}/state", "--log", "none"],
                stderr=subprocess.PIPE, text=True)
            place, fingerprint = self.server.stderr.readline().removeprefix("serving at ").strip().split(", fingerprint ")
            token = subprocess.run([self.program, "token", "create", "bench", "--rights", "admin", "--state", f"{work}/state"],
                                   capture_output=True, text=True, check=True).stdout.strip()
            self.env |= {"DIPTYCH_TOKEN": token, "DIPTYCH_FINGERPRINT": fingerprint}
            location = f"{place}/main"
        self.env["DIPTYCH_REPO"] = location
        timed([self.program, "-q", "init"], self.env)

    def backup(self, tree):
        return timed([self.program, "backup", tree], self.env)

    def restore(self, target):
        return timed([self.program, "restore", "latest", "--target", target], self.env)

    def end(self):
        if self.server:
            with open(f"/proc/{self.server.pid}/status") as status:
                peak = next(line for line in status if line.startswith("VmHWM")).split()[1]
            self.server.terminate()
            self.server.wait()
            return f"server's memory {int(peak) // 1024} MiB"
        return ""


class Restic:
    def __init__(self, arguments, work):
        self.program = arguments.restic
        self.env = dict(os.environ, RESTIC_PASSWORD="x", RESTIC_CACHE_DIR=f"{work}/cache", RESTIC_REPOSITORY="rest:http://127.0.0.1:8099/")
        self.server = subprocess.Popen([arguments.rest_server, "--no-auth", "--path", f"{work}/repo", "--listen", "127.0.0.1:8099"],
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(1)
        timed([self.program, "init", "-q"], self.env)

    def backup(self, tree):
        return timed([self.program, "backup", "-q", tree], self.env)

    def restore(self, target):
        return timed([self.program, "restore", "-q", "latest", "--target", target], self.env)

    def end(self):
        self.server.terminate()
        self.server.wait()
        return ""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("first")
    parser.add_argument("second")
    parser.add_argument("--diptych", required=True)
    parser.add_argument("--restic")
    parser.add_argument("--rest-server")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", default="/dev/shm", help="where everything is kept while this runs")
    arguments = parser.parse_args()
    tools = {"local": lambda work: Diptych(arguments, work, False), "server": lambda work: Diptych(arguments, work, True)}
    if arguments.restic and arguments.rest_server:
        tools["restic"] = lambda work: Restic(arguments, work)
    results, notes = {name: {step: [] for step in STEPS} for name in tools}, {}
    for _ in range(arguments.rounds):
        for name, make in tools.items():
            work = tempfile.mkdtemp(dir=arguments.work)
            tree = f"{work}/tree"
            try:
                tool = make(work)
                for state, steps in [(arguments.first, ["full", "unchanged"]), (arguments.second, ["changed"])]:
                    subprocess.run(["rsync", "-aHAX", "--delete", f"{state}/", tree], check=True)
                    time.sleep(2)  # What was written just now counts as changed by whoever is careful.
                    for step in steps:
                        results[name][step].append(tool.backup(tree))
                results[name]["restore"].append(tool.restore(f"{work}/restored"))
                notes[name] = tool.end()
            finally:
                shutil.rmtree(work)
    print(f"{'':8}" + "".join(f"{step:>11}" for step in STEPS))
    for name, steps in results.items():
        print(f"{name:8}" + "".join(f"{statistics.median(steps[step]):11.2f}" for step in STEPS), notes[name])


if __name__ == "__main__":
    main()
