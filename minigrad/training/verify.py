"""Check the files of a run before anything is built from them, since its folder may come from somebody else."""

from __future__ import annotations

import contextlib
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.data import Sequences
from minigrad.engine.messages import brief, one_line, refusing
from minigrad.files.atomic import CheckpointError, file_errors, read_json, refuse_special
from minigrad.training import checkpoint, trust
from minigrad.training.extension import read_extensions
from minigrad.training.folder import CONFIG, find_checkpoint
from minigrad.training.sequence_model import LAYERS
from minigrad.training.settings import Settings, fits
from minigrad.training.trainer import strip_prefix
from minigrad.training.user_code import fingerprint, split_name

PARTS = {"settings": dict, "sources": dict, "model": dict, "characters": str | None}  # types in config.json
MODEL = {"inputs": int, "outputs": int, "symbols": bool}  # types in its part `model`
# types in the trainer's part of a checkpoint, except the nesting of its state
STATE = {"step": int, "ended": str, "sequences": int, "tokens": int, "seconds": float, "optimizer": dict,
         "model_rngs": dict, "position": int, "drawn": dict}


def open_config(place: Path, trusted: bool) -> tuple[Path, dict[str, Any]]:
    """(folder, config) of a run, given its folder or a checkpoint in it. Every command opens runs with it.

    Raises CheckpointError if config.json is missing or invalid, or if the cell's file has changed or is not trusted.
    """
    folder = place.parent if place.is_file() else place
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"{folder} is not the folder of a run, as it has no {CONFIG}: begin one with minigrad "
                              f"train --out {folder}")
    config = read_config(folder / CONFIG)
    file, sources = config["settings"].cell_file, config["sources"]
    if file is not None:
        with refusing(f"{folder / CONFIG} names a cell that cannot be read", CheckpointError):
            digest = fingerprint(file)
        if sources.get(file, digest) != digest:
            raise CheckpointError(changed_message(file, folder))
        mine = digest in sources.values() and trust.trained_with(file, digest)
        if not (mine or trusted):
            raise CheckpointError(f"{folder / CONFIG} names the Python file {file}, and you have not trained with it "
                                  "on this machine, so it was not run: read it, and if you trust it, give --trust (in "
                                  "Python trust=True)")
    return folder, config


def read_config(file: Path) -> dict[str, Any]:
    """Read config.json, with its settings as Settings. Raises CheckpointError if it is invalid."""
    with file_errors(file, "cannot be read"):
        text = file.read_bytes()
    with refusing(f"{file} is not a config of minigrad", CheckpointError):
        config = read_json(text)
        if not isinstance(config, dict):
            raise ValueError("it is not an object")
        extensions = config.get("extensions", [])
        config = checked_fields("", config, PARTS)
        if extensions != []:
            config["extensions"] = read_extensions(extensions)
        config["model"] = checked_fields("model.", config["model"], MODEL)
        checked_fields("settings.", config["settings"], {one.name: object for one in fields(Settings)})
        config["settings"] = settings = Settings.of(**config["settings"])
        if not all(isinstance(digest, str) for digest in config["sources"].values()):
            raise ValueError("sources must map files to hashes")
        symbols, characters = config["model"]["symbols"], config["characters"]
        if min(config["model"]["inputs"], config["model"]["outputs"]) < 1:
            raise ValueError("model.inputs and model.outputs must be above 0")
        if (characters is not None) != (settings.task == "text") and settings.task != Sequences.name:
            raise ValueError("characters belong to the task text, and only to it")
        if characters is not None:
            characters.encode()  # raises for a lone surrogate, which no text contains
            if not symbols or not len(set(characters)) == len(characters) == config["model"]["inputs"]:
                raise ValueError("its characters do not match the symbols of its model")
    return config


def open_checkpoint(place: Path, folder: Path, config: dict[str, Any]
                    ) -> tuple[Path, dict[str, np.ndarray], Any] | None:
    """(path, arrays, meta) of the last checkpoint of a run, or of the one that `place` names; None if it has none yet.

    Raises CheckpointError if the checkpoint does not belong to the run, or is missing or damaged; the error suggests
    the previous one, if that is whole.
    """
    path = find_checkpoint(folder, place)
    if path is None:
        return None
    try:
        arrays, meta = load_checkpoint(path)
    except CheckpointError as problem:
        before, offer = checkpoint.previous(path), ""
        with contextlib.suppress(CheckpointError):
            step = load_checkpoint(before)[1]["trainer"]["step"]
            offer = f"; the one before it, of step {step}, is whole: give {before} in its place"
        raise CheckpointError(f"{problem}{offer}") from None
    with belonging(path):
        refuse_other(config, arrays, meta)
    return path, arrays, meta


def load_checkpoint(path: Path) -> tuple[dict[str, np.ndarray], Any]:
    """Load a checkpoint of a run. Raises CheckpointError if an entry of its meta is missing or has the wrong type."""
    arrays, meta = checkpoint.load(path)
    try:
        if not isinstance(meta, dict):
            raise ValueError("it has no settings and no trainer")
        checked_fields("", meta, {"settings": dict, "trainer": dict})
        state = checked_fields("trainer.", meta["trainer"], STATE)
        if "state" not in meta["trainer"]:
            raise ValueError("trainer.state is missing")
        counts = [state[name] for name in ("step", "sequences", "tokens", "seconds", "position")]
        if not 0 <= min(counts) <= max(counts) < 2**62:
            raise ValueError(f"its counts are {brief(counts)}")
        if state["ended"] not in ("", "done", "solved", "stopped", "interrupted"):
            raise ValueError(f"it has ended as {brief(state['ended'])}")
    except ValueError as problem:
        raise CheckpointError(f"{path} is not a checkpoint of a run: {one_line(str(problem), 200)}") from None
    return arrays, meta


def checked_fields(prefix: str, values: dict[str, Any], kinds: dict[str, Any]) -> dict[str, Any]:
    """The values named in `kinds`. Raises ValueError if one is missing or has the wrong type."""
    for name, kind in kinds.items():
        if name not in values:
            raise ValueError(f"{prefix}{name} is missing")
        if not fits(values[name], kind):
            raise ValueError(f"{prefix}{name} cannot be {brief(values[name])}")
    return {name: values[name] for name in kinds}


def belonging(path: Path) -> contextlib.AbstractContextManager:
    """Raises CheckpointError, for any exception inside, that this checkpoint is not of the run in its folder."""
    return refusing(f"{path} does not belong to the run that {path.parent / CONFIG} describes", CheckpointError)


def refuse_other(config: dict[str, Any], arrays: dict[str, np.ndarray], meta: Any) -> None:
    """Raises ValueError unless a checkpoint has the settings of config.json and at least as many weights as its model
    needs. Checked before the model is built, since false sizes could allocate any amount of memory."""
    settings, model = config["settings"], config["model"]
    if without_paths(Settings.of(**meta["settings"])) != without_paths(settings):
        raise ValueError("its settings differ")
    linear = arrays.get("model/linear.weight", np.zeros(0))
    if linear.shape != (model["outputs"], settings.hidden):
        raise ValueError(f"it has weights of shape {linear.shape} for {model['outputs']} outputs of "
                         f"{settings.hidden} units")
    embedding = settings.embedding if model["symbols"] else None
    least = model["inputs"] * embedding if embedding else 0
    if settings.cell in LAYERS:
        least += settings.hidden * (settings.hidden + (embedding or model["inputs"]))
        least += settings.hidden * 2 * settings.hidden * (settings.layers - 1)
    if least > (found := sum(array.size for array in strip_prefix("model/", arrays).values())):
        raise ValueError(f"it has {found:,} weights, and the model has {least:,} or more")


def without_paths(settings: Settings) -> dict[str, Any]:
    """Settings without file paths: a run may be moved, and the content of the files is compared by hash."""
    values = settings.as_dict()
    if named_cell := split_name(settings.cell):
        values["cell"] = named_cell[1]
    if "file" in settings.options:
        values["options"]["file"] = None
    return values


def refuse_values(arrays: dict[str, np.ndarray], dtypes: dict[str, np.dtype]) -> None:
    """Raises ValueError for an array in `dtypes`, by name, that is not finite or has another dtype than there."""
    for name, dtype in dtypes.items():
        if name in arrays and arrays[name].dtype != dtype:
            raise ValueError(f"{name} is {arrays[name].dtype}, and the model has {dtype}")
        if name in arrays and not np.isfinite(arrays[name]).all():
            raise ValueError(f"{name} contains NaN or infinity")


def refuse_data(folder: Path, config: dict[str, Any], task: Any = None) -> None:
    """Raises CheckpointError if the text or the sequences of a run are a device or a pipe, since reading it might not
    end, or if they have changed since the run began, as `task`, made from them, shows."""
    file = config["settings"].options.get("file")
    if file is not None:
        refuse_special(file)
    if getattr(task, "fingerprint", None) is not None and task.fingerprint not in config["sources"].values():
        raise CheckpointError(changed_message(task.source, folder))


def changed_message(source: str, folder: Path) -> str:
    return f"{source} has changed since the run in {folder} began: restore it, or begin a new run"
