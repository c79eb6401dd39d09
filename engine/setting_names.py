"""The names of settings in the environment and in the TOML file: which are unknown, and which was meant.

A setting is named as in the TOML file (`storage.root`). Its variable is `MASKLETS_STORAGE__ROOT`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from pathlib import Path

from pydantic import ValidationError

PREFIX = "MASKLETS_"
# Kubernetes sets these in every pod for a service whose name begins with "masklets".
_KUBERNETES = re.compile(r".*_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)")
_ADDRESS = re.compile(r"(tcp|udp|sctp)://")  # the value of Kubernetes' MASKLETS_PORT


def variable_of(setting: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + setting.replace(".", "__").upper()


def check_variables(environ: Mapping[str, str], settings: Collection[str]) -> None:
    """Raises ValueError for a variable that is no setting but looks like one.

    It has `__`, or resembles a setting, or is the last part of a setting without its group: MASKLETS_DEVICE. Other
    variables may belong to other programs. settings: all of them, and their groups.
    """
    known = {variable_of(setting) for setting in settings}
    plain = {name.replace("__", "_"): name for name in sorted(known)}
    for name, value in environ.items():
        word = name.upper()
        if not word.startswith(PREFIX) or word in known or _KUBERNETES.fullmatch(word):
            continue
        if word.endswith("_PORT") and _ADDRESS.match(value):
            continue
        meant = _nearest(word.replace("__", "_").removeprefix(PREFIX), {n.removeprefix(PREFIX): n for n in plain})
        last = word.removeprefix(PREFIX)
        choices = sorted(variable for variable in known if variable.endswith(f"__{last}")) or meant and [plain[meant]]
        if "__" in word or choices:
            raise ValueError(f"unknown setting {name}" + (f": did you mean {' or '.join(choices)}?" if choices else ""))


def check_file(file: Path, written: Mapping[str, object], settings: Collection[str]) -> None:
    """Raises ValueError for a key of the TOML file that is no setting."""
    for key, value in written.items():
        # the names of projects are free, so pydantic finds what is wrong in them
        nested = isinstance(value, dict) and key in settings and key != "projects"
        for setting in [f"{key}.{name}" for name in value] if nested and isinstance(value, dict) else [key]:
            if setting not in settings:
                meant = _nearest(setting, {known: known for known in settings})
                raise ValueError(f"{file}: unknown key {setting}" + (f": did you mean {meant}?" if meant else ""))


def problems(error: ValidationError, environ: Mapping[str, str], file: Path) -> list[str]:
    """The invalid values among the settings, one line each, with the variable or the key of the file that holds it."""
    lines = []
    variables = {name.upper() for name in environ}
    for problem in error.errors():
        path = [str(part) for part in problem["loc"]]
        names = [variable_of(".".join(path[:count])) for count in range(len(path), 0, -1)]
        variable = next((name for name in names if name in variables), None)
        lines.append(f"{variable or f'{file}: ' + '.'.join(path)}: {problem['msg']}")
    return lines


def _nearest(word: str, known: Mapping[str, str]) -> str | None:
    """The known name that is most like the word; None if none is like it."""
    found = get_close_matches(word, known, n=1, cutoff=0.75)
    return known[found[0]] if found else None
