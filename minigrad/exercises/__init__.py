"""The exercises of the course by number: `EXERCISES`. A file for each chapter, a block for each exercise."""

from minigrad.exercises import (  # noqa: F401  (each registers its exercises)
    chapter_1,
    chapter_2,
    chapter_3,
    chapter_4,
    chapter_5,
    chapter_6,
    chapter_7,
    chapter_8,
    chapter_9,
)
from minigrad.exercises.exercise import CHAPTERS, EXERCISES, Exercise

__all__ = ["CHAPTERS", "EXERCISES", "Exercise"]
