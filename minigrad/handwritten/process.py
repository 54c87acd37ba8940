"""Judge a file in a process of its own: the user's code may hang, print, exit or crash, and the command goes on.

The child's stdin is empty. What it prints goes to a file of its own, and its verdicts to another, as JSON.
`python -m minigrad.handwritten.process REQUEST VERDICTS` is the child.
"""

from __future__ import annotations

import faulthandler
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from minigrad.handwritten.judge import Verdict, judge_file, judge_pair
from minigrad.handwritten.source import CouldNotRun


def judge_apart(request: dict[str, str | None], seconds: float) -> tuple[list[Verdict], str]:
    """(verdicts, what the user's code printed) of `judge_file(**request)` or `judge_pair(**request)`.

    Raises CouldNotRun as they do, and when the child takes longer than `seconds` or ends without verdicts.
    """
    with tempfile.TemporaryDirectory() as folder:
        verdicts, printed, stacks = (Path(folder, name) for name in ("verdicts", "printed", "stacks"))
        package = str(Path(__file__).resolve().parents[2])
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "MPLBACKEND": "Agg", "PYTHONPATH": os.pathsep.join(
            filter(None, [package, os.environ.get("PYTHONPATH")]))}
        command = [sys.executable, "-m", "minigrad.handwritten.process", json.dumps(request), str(verdicts),
                   str(stacks), str(time.time() + seconds)]
        with printed.open("wb") as output:
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment)
        try:
            status = child.wait(seconds + 1)
        except subprocess.TimeoutExpired:
            raise CouldNotRun(f"{request['file']} was still being run or judged after {seconds:g} s"
                              f"{line_in(stacks, str(request['file']))}: give it longer with --seconds") from None
        finally:
            child.kill()
            child.wait()
        text = printed.read_text(encoding="utf-8", errors="replace")
        if not verdicts.exists():
            last = text.strip().splitlines()[-1:] or [""]
            raise CouldNotRun(f"{request['file']} ended the process that ran it, with status {status}: {last[0]}")
        found = json.loads(verdicts.read_text(encoding="utf-8"))
    if "problem" in found:
        raise CouldNotRun(found["problem"])
    return [Verdict(**verdict) for verdict in found["verdicts"]], text


def line_in(stacks: Path, file: str) -> str:
    """", in line 7" of the user's file, from the stack that the child wrote before its time was over."""
    text = stacks.read_text(encoding="utf-8", errors="replace") if stacks.exists() else ""
    found = re.search(rf'File "{re.escape(file)}", line (\d+)', text)
    return f", in line {found[1]}" if found else ""


def child(request: str, verdicts: str, stacks: str, deadline: str) -> None:
    with open(stacks, "w", encoding="utf-8") as file:
        faulthandler.dump_traceback_later(max(float(deadline) - time.time(), 0.1), file=file)
        asked = json.loads(request)
        try:
            judged = judge_pair(**asked) if "forward" in asked else judge_file(**asked)
            found: dict = {"verdicts": list(map(asdict, judged))}
        except CouldNotRun as problem:
            found = {"problem": str(problem)}
        faulthandler.cancel_dump_traceback_later()
    partial = Path(f"{verdicts}.partial")
    partial.write_text(json.dumps(found), encoding="utf-8")
    partial.replace(verdicts)


if __name__ == "__main__":
    child(*sys.argv[1:])
