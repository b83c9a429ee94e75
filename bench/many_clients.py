#!/usr/bin/env python3
"""Backs many small trees up at once through one server on this machine, and one alone before that.

    bench/many_clients.py --diptych PATH [--clients 100] [--megabytes 30] [--one-token]

Each client has a tree of random bytes, a cache and, unless --one-token is given, a token of its own. What is printed are megabytes a
second in all, of one and of the many, and the most memory that the server took.
"""

import argparse
import os
import subprocess
import tempfile
import time

FILES = 6


class Server:
    def __init__(self, program, work):
        self.program, self.work = program, work
        self.env = dict(os.environ, DIPTYCH_PASSWORD="x", XDG_STATE_HOME=f"{work}/seen")
        os.mkdir(f"{work}/root")
        self.process = subprocess.Popen(
            [program, "serve", "--root", f"{work}/root", "--listen", "127.0.0.1:0", "--state", f"{work}/state", "--log", "none"],
            stderr=subprocess.PIPE, text=True)
        words = self.process.stderr.readline().split()
        self.env.update(DIPTYCH_REPO=words[2].rstrip(",") + "/main", DIPTYCH_FINGERPRINT=words[-1])

    def token(self, rights):
        words = [self.program, "token", "create", "client", "--rights", rights, "--namespace", "main", "--state", f"{self.work}/state"]
        return subprocess.check_output(words, text=True).strip()

    def start(self, words, token, cache):
        env = dict(self.env, DIPTYCH_TOKEN=token, XDG_CACHE_HOME=f"{self.work}/{cache}")
        return subprocess.Popen([self.program, *words, "--quiet"], env=env)

    def backups(self, numbers, tokens):
        """Seconds that the backups of these trees take, all at once."""
        begun = time.monotonic()
        clients = [self.start(["backup", f"{self.work}/tree-{number}"], token, f"cache-{number}") for number, token in zip(numbers, tokens)]
        if any([client.wait() for client in clients]):
            raise SystemExit("a backup has failed")
        return time.monotonic() - begun

    def peak(self):
        """The most memory that it has taken, in MiB."""
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) >> 10 for line in status if line.startswith("VmHWM"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--diptych", required=True)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--megabytes", type=int, default=30, help="of each client's tree")
    parser.add_argument("--one-token", action="store_true", help="which all clients share")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        server = Server(os.path.abspath(arguments.diptych), work)
        try:
            if server.start(["init"], server.token("admin"), "cache").wait():
                raise SystemExit("the repository cannot be made")
            for number in range(arguments.clients + 1):
                os.mkdir(f"{work}/tree-{number}")
                for file in range(FILES):
                    with open(f"{work}/tree-{number}/{file}", "wb") as out:
                        out.write(os.urandom(arguments.megabytes * 1_000_000 // FILES))
            first = server.token("append")
            tokens = [first if arguments.one_token else server.token("append") for _ in range(arguments.clients)]
            alone = server.backups([0], [first])
            together = server.backups(range(1, arguments.clients + 1), tokens)
            print(f"one alone: {arguments.megabytes / alone:.0f} MB/s")
            print(f"{arguments.clients} at once: {arguments.clients * arguments.megabytes / together:.0f} MB/s; server: {server.peak()} MiB")
        finally:
            server.process.terminate()
            server.process.wait()


if __name__ == "__main__":
    main()
