"""`--set key=value`: a field of a preset takes another value, checked by name and type."""

import ast
import difflib
import sys
from collections.abc import Sequence
from dataclasses import fields, replace

from cxr_helpers.course.core.settings import PRESETS, Settings, SettingsError

# Fields that take one of a few words; any other word would be met late, or pass for one of them.
WORDS = {
    ("pretrain", "optimizer"): ("adamw", "lars"),
    ("detect", "optimizer"): ("adamw", "sgd"),
    ("detect", "batch_norm"): ("train", "frozen", "sync"),
    ("detect", "keep"): ("last", "best"),
}


def with_overrides(settings: Settings, pairs: Sequence[str], *, stage: str) -> Settings:
    """Settings with some fields of the presets changed.

    Args:
        settings: as the switches give them.
        pairs: `field=value` of the preset of `stage`, or `stage.field=value` of any.
        stage: `pretrain`, `probe`, `detect` or `explain`.

    Raises:
        SettingsError: a pair has no `=`, names no field, or gives a value of another type.
    """
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise SettingsError(f"--set {pair}: write it as field=value")
        part, dot, field = name.strip().rpartition(".")
        part = part if dot else stage
        if part not in PRESETS["demo"]:
            raise SettingsError(f"--set {pair}: {part!r} is none of {', '.join(PRESETS['demo'])}")
        preset = getattr(settings, part)
        _check_name(pair, field, [f.name for f in fields(preset)])
        value = parsed(text, like=getattr(preset, field), told=f"--set {pair}")
        numbers = value if isinstance(value, tuple) else (value,)
        if any(not isinstance(number, str) and number < 0 for number in numbers):
            raise SettingsError(f"--set {pair}: give no number below 0")
        words = WORDS.get((part, field), (value,))
        if value not in words:
            raise SettingsError(f"--set {pair}: give one of {', '.join(words)}")
        settings = replace(settings, **{part: replace(preset, **{field: value})})
    return settings


def _check_name(pair: str, field: str, known: Sequence[str]) -> None:
    if field not in known:
        near = difflib.get_close_matches(field, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        raise SettingsError(f"--set {pair}: no field {field!r}; {hint}")


def parsed(text: str, *, like: object, told: str) -> object:
    """A value from its text, of the type of another value.

    Args:
        text: a number, `true` or `false`, a word, or numbers with commas between.
        like: the value that it replaces.
        told: what to name in an error.

    Raises:
        SettingsError: the text is of another type, empty, or a number that is too large.

    >>> parsed("8192,8192,8192", like=(512, 512, 128), told=""), parsed("1e-3", like=0.1, told="")
    ((8192, 8192, 8192), 0.001)
    """
    text = text.strip()
    if isinstance(like, str):
        if not text:
            raise SettingsError(f"{told}: give a word")
        return text
    if isinstance(like, bool):
        if text.lower() not in ("true", "false"):
            raise SettingsError(f"{told}: give true or false")
        return text.lower() == "true"
    if isinstance(like, tuple):
        parts = [part for part in text.strip("()").split(",") if part.strip()]
        if not parts:
            raise SettingsError(f"{told}: give at least one number")
        return tuple(parsed(part, like=like[0], told=told) for part in parts)
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError) as error:
        raise SettingsError(f"{told}: {text!r} is no number") from error
    whole = isinstance(like, int)
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        raise SettingsError(f"{told}: give {'a whole number' if whole else 'a number'}")
    if abs(value) > sys.float_info.max:
        raise SettingsError(f"{told}: {text} is too large")
    return value if whole else float(value)
