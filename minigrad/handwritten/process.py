"""Run a user's file in a process of its own: its code may hang, print, exit or crash, and the command goes on.

The child's stdin is empty. What it prints goes to a file of its own, and the result to another, as JSON.
`python -m minigrad.handwritten.process FUNCTION REQUEST RESULT STACKS DEADLINE` is the child.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from minigrad.handwritten.judge import judge_file, judge_pair
from minigrad.handwritten.source import CouldNotRun
from minigrad.handwritten.trial import Verdict


def judge_apart(request: Mapping[str, str | None], seconds: float) -> tuple[list[Verdict], str]:
    """(verdicts, what the user's code printed) of `judge_file(**request)` or `judge_pair(**request)`.

    Raises CouldNotRun as they do, and as `run_apart`.
    """
    found, printed = run_apart(verdicts_of, request, seconds)
    return [Verdict(**verdict) for verdict in found], printed


def verdicts_of(**request: Any) -> list[dict[str, Any]]:
    return list(map(asdict, judge_pair(**request) if "forward" in request else judge_file(**request)))


def run_apart(function: Callable[..., Any], request: Mapping[str, str | None], seconds: float) -> tuple[Any, str]:
    """(`function(**request)`, what the user's code printed), from a child process.

    function  of a module; its result must be JSON
    request   its arguments, with the user's "file" among them

    Raises CouldNotRun as the function does, and when the child takes longer than `seconds` or ends without a result.
    """
    with tempfile.TemporaryDirectory() as folder:
        result, printed, stacks = (Path(folder, name) for name in ("result", "printed", "stacks"))
        package = str(Path(__file__).resolve().parents[2])
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "MPLBACKEND": "Agg", "PYTHONPATH": os.pathsep.join(
            filter(None, [package, os.environ.get("PYTHONPATH")]))}
        command = [sys.executable, "-m", "minigrad.handwritten.process", f"{function.__module__}:{function.__name__}",
                   json.dumps(dict(request)), str(result), str(stacks), str(time.time() + seconds)]
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
        if not result.exists():
            last = text.strip().splitlines()[-1:] or [""]
            raise CouldNotRun(f"{request['file']} ended the process that ran it, with status {status}: {last[0]}")
        found = json.loads(result.read_text(encoding="utf-8"))
    if "problem" in found:
        raise CouldNotRun(found["problem"])
    return found["result"], text


def line_in(stacks: Path, file: str) -> str:
    """", in line 7" of the user's file, from the stack that the child wrote before its time was over."""
    text = stacks.read_text(encoding="utf-8", errors="replace") if stacks.exists() else ""
    found = re.search(rf'File "{re.escape(file)}", line (\d+)', text)
    return f", in line {found[1]}" if found else ""


def child(function: str, request: str, result: str, stacks: str, deadline: str) -> None:
    module, _, name = function.partition(":")
    with open(stacks, "w", encoding="utf-8") as file:
        faulthandler.dump_traceback_later(max(float(deadline) - time.time(), 0.1), file=file)
        try:
            found: dict = {"result": getattr(importlib.import_module(module), name)(**json.loads(request))}
        except CouldNotRun as problem:
            found = {"problem": str(problem)}
        faulthandler.cancel_dump_traceback_later()
    partial = Path(f"{result}.partial")
    partial.write_text(json.dumps(found), encoding="utf-8")
    partial.replace(result)


if __name__ == "__main__":
    child(*sys.argv[1:])
