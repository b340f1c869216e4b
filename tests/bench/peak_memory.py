#!/usr/bin/python3
"""Runs a command and samples its memory from outside until it ends.

Usage: peak_memory.py OUTPUT COMMAND...
Writes to OUTPUT: peak_anonymous=BYTES peak_mapped=BYTES samples=N seconds=S. Anonymous (RssAnon of
/proc/PID/status) is what only swap could take back; mapped (RssFile and RssShmem) are pages of
files, which the kernel drops when it needs them. Exit status: the command's.
"""
import pathlib
import subprocess
import sys
import time

INTERVAL_SECONDS = 0.005


def resident(status):
    """Anonymous and mapped bytes of a /proc/PID/status text."""
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    kilobytes = {key: int(fields.get(key, "0 kB").split()[0])
                 for key in ("RssAnon", "RssFile", "RssShmem")}
    return 1024 * kilobytes["RssAnon"], 1024 * (kilobytes["RssFile"] + kilobytes["RssShmem"])


def main():
    start = time.monotonic()
    anonymous = mapped = samples = 0
    with subprocess.Popen(sys.argv[2:]) as child:
        status = pathlib.Path(f"/proc/{child.pid}/status")
        while child.poll() is None:
            now = resident(status.read_text())
            anonymous, mapped = max(anonymous, now[0]), max(mapped, now[1])
            samples += 1
            time.sleep(INTERVAL_SECONDS)
    pathlib.Path(sys.argv[1]).write_text(
        f"peak_anonymous={anonymous} peak_mapped={mapped} samples={samples} "
        f"seconds={time.monotonic() - start:.1f}\n")
    return child.returncode


if __name__ == "__main__":
    sys.exit(main())
