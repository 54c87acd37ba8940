"""Write the page of all exercises with folded answers.

    python -m minigrad.exercises.page > docs/exercises.md
"""

from __future__ import annotations

from minigrad.exercises import CHAPTERS, EXERCISES, Exercise

INTRODUCTION = """\
# Exercises

For [the course](bptt.md), chapter by chapter, from a one-liner to a small experiment. The command checks your answer:

```sh
minigrad exercise                       # list them
minigrad exercise 3.2 > my.py           # the task, and a file to start from
minigrad exercise 3.2 my.py             # check it
```

Replace each `...` of the file with code of your own. The file runs in a process of its own, under a time limit. If it
is wrong, you get a sentence; where you write a backward pass, the sentence comes from [the audit](audit.md), which says
which fault gives your numbers. There are many right answers; one is folded below each task.

This page is written by `python -m minigrad.exercises.page`. The exercises are in
[minigrad/exercises/](../minigrad/exercises), one block each; the tests run every answer.
"""


def page() -> str:
    parts = [INTRODUCTION]
    for chapter, title in CHAPTERS.items():
        parts.append(f"## {chapter}. {title}\n")
        parts += [section(e) for e in EXERCISES.values() if e.number.startswith(f"{chapter}.")]
    return "\n".join(parts)


def section(exercise: Exercise) -> str:
    return (f"### {exercise.number} {exercise.title}\n\n{exercise.task}\n\n<details>\n<summary>Answer</summary>\n\n"
            f"```python\n{exercise.answer}```\n\n{exercise.why}\n\n</details>\n")


if __name__ == "__main__":
    print(page(), end="")
