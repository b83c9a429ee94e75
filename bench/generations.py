#!/usr/bin/env python3
"""Many generations of small scattered changes: what a repository grows by.

    bench/generations.py TREE [--generations 60] [--percent 1] [--diptych PATH] [-- options of backup ...]

Copies TREE beside a new repository, then changes one file in a hundred, another one each time, and backs up, sixty times.
Prints, as multiples of what the first backup stored (before compression: of the tree): bytes that all later runs
stored, bytes that they read, and how long they took.
"""
import argparse, hashlib, json, os, shutil, subprocess, sys, tempfile, time

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tree")
    parser.add_argument("--generations", type=int, default=60)
    parser.add_argument("--percent", type=float, default=1.0)
    parser.add_argument("--diptych", default="diptych")
    parser.add_argument("--place", help="where to work; a temporary directory by default")
    words = sys.argv[1:]
    split = words.index("--") if "--" in words else len(words)
    arguments = parser.parse_args(words[:split])
    arguments.options = words[split + 1 :]
    place = tempfile.mkdtemp(prefix="generations.", dir=arguments.place)
    try:
        run(arguments, place)
    finally:
        shutil.rmtree(place)

def run(arguments, place):
    live, repository = os.path.join(place, "live"), os.path.join(place, "repository")
    shutil.copytree(arguments.tree, live, symlinks=True)
    # What was changed just before the base began is read again: give the clock time to move on.
    time.sleep(3)
    first = backup(arguments, repository, live, "--init", "--no-encryption")
    tree = first["archives"][0]["content_bytes"]
    files = sorted(
        os.path.join(folder, name)
        for folder, _, names in os.walk(live)
        for name in names
        if os.path.isfile(os.path.join(folder, name)) and not os.path.islink(os.path.join(folder, name))
    )
    stored = read = changed_bytes = 0
    began = time.monotonic()
    seconds = 0.0
    for generation in range(arguments.generations):
        for path in files:
            digest = hashlib.blake2b(f"{generation}/{path[len(live):]}".encode(errors="surrogateescape")).digest()
            if int.from_bytes(digest[:8], "little") < arguments.percent / 100 * 2**64:
                changed_bytes += os.path.getsize(path)
                with open(path, "ab") as file:
                    file.write(f"generation {generation}\n".encode())
        time.sleep(2.5)
        report = backup(arguments, repository, live)
        stored += report["stored_bytes"]
        read += sum(of["bytes"] for of in report["archives"][0]["read"].values())
        seconds += report["seconds"]
    print(f"{arguments.generations} generations of {arguments.percent} % of the files ({time.monotonic() - began:.0f} s)")
    print(f"changed files have {changed_bytes / tree:.2f} of the tree's bytes")
    print(f"stored: {stored / first['stored_bytes']:.2f} times the first backup")
    print(f"read:   {read / tree:.2f} times the tree")
    print(f"time:   {seconds / arguments.generations:.2f} s a run, {first['seconds']:.2f} s the first")

def backup(arguments, repository, live, *more):
    command = [arguments.diptych, "backup", "--json", "-r", repository, *arguments.options, *more, live]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}")
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["event"] == "summary"
    return summary

if __name__ == "__main__":
    main()
