"""Checks of arguments: each gives the value as it is wanted, or raises an error that names it."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from fastrnn.parameter import Array

T = TypeVar("T")


def check_number(value: Any, name: str, wanted: str, fits: Callable[[float], bool]) -> float:
    """`value` as a float that `fits`, or an error that names it and says what was `wanted`."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise TypeError(f"{name}: expected {wanted}, got {value!r}")
    if not fits(float(value)):
        raise ValueError(f"{name}: expected {wanted}, got {value!r}")
    return float(value)


def check_positive(value: Any, name: str) -> float:
    """`value` as a finite float above 0, or an error that names it."""
    return check_number(value, name, "a positive finite number", lambda x: 0 < x < math.inf)


def check_from_zero(value: Any, name: str) -> float:
    """`value` as a finite float from 0, or an error that names it."""
    return check_number(value, name, "a finite number from 0", lambda x: 0 <= x < math.inf)


def check_probability(value: Any, name: str) -> float:
    """`value` as a float in [0, 1), or an error that names it."""
    return check_number(value, name, "a number in [0, 1)", lambda x: 0 <= x < 1)


def check_flag(value: Any, name: str) -> bool:
    """`value`, which must be True or False, or an error that names it."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}: expected True or False, got {value!r}")
    return bool(value)


def check_whole(value: Any, name: str, least: int) -> int:
    """`value` as an int from `least`, or an error that names it."""
    try:
        found = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an integer from {least}, got {value!r}") from None
    if isinstance(value, bool) or found < least:
        raise ValueError(f"{name}: expected an integer from {least}, got {value!r}")
    return found


def check_list(values: Any, name: str, check: Callable[[Any, str], T]) -> tuple[T, ...]:
    """The entries of a list, each of which passes `check`."""
    if isinstance(values, str) or not isinstance(values, Sequence | np.ndarray):
        raise TypeError(f"{name}: expected a list, got {values!r}")
    return tuple(check(value, f"{name}[{i}]") for i, value in enumerate(values))


def check_size(value: Any, name: str) -> int:
    """`value` as a positive int below 2**31, or an error that names it."""
    try:
        size = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected a positive integer, got {value!r}") from None
    if isinstance(value, bool) or not 1 <= size < 2**31:
        raise ValueError(f"{name}: expected an integer from 1 to 2147483647, got {value!r}")
    return size


# Entries of one array of parameters or state: more is taken for a mistake, not for a wish.
MAX_ENTRIES = 2**30


def check_entries(name: str, shape: tuple[int, ...]) -> None:
    """Refuses a `shape` of more than MAX_ENTRIES, naming the argument that makes it so large."""
    if math.prod(shape) > MAX_ENTRIES:
        raise ValueError(
            f"{name}: expected arrays of at most {MAX_ENTRIES:,} entries, got one of {shape}"
        )


def check_choice(value: Any, choices: Sequence[str], name: str) -> str:
    """`value`, which must be one of `choices`, or an error that names it."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")
    return value


def is_bfloat16(dtype: DTypeLike) -> bool:
    """Whether it is "bfloat16", which is no dtype of NumPy's."""
    return isinstance(dtype, str) and dtype == "bfloat16"


def check_dtype(dtype: DTypeLike) -> np.dtype:
    """float32 or float64, or an error that names it."""
    try:
        found = np.dtype(dtype)
    except TypeError:
        raise TypeError(f"dtype: expected float32 or float64, got {dtype!r}") from None
    if found not in (np.float32, np.float64):
        raise ValueError(f"dtype: expected float32 or float64, got {found}")
    return found


def check_input(x: Any, shape: tuple[int | None, ...], dtype: np.dtype, axes: str) -> Array:
    """`x` as an array of `dtype` whose sizes are `shape` (None: any from 1), or an error.

    `axes` is how the error names the wanted shape, for example ``(batch, time, 64)``.
    """
    try:
        array = np.asarray(x)
    except ValueError:  # a list whose parts make no array
        raise ValueError(f"x: expected {axes}, got a {type(x).__name__} of unequal parts") from None
    if array.dtype != dtype:
        raise TypeError(
            f"x: expected {dtype}, got {array.dtype}; convert with x.astype({dtype.name!r})"
        )
    fits = array.ndim == len(shape) and all(
        got >= 1 if want is None else got == want
        for got, want in zip(array.shape, shape, strict=True)
    )
    if not fits:
        raise ValueError(f"x: expected {axes}, got {array.shape}")
    return array


def check_seed(seed: Any) -> int | None:
    """`seed` as None or an int from 0, or an error that names it."""
    if seed is None:
        return None
    try:
        number = operator.index(seed)
    except TypeError:
        raise TypeError(f"seed: expected None or an integer from 0, got {seed!r}") from None
    if isinstance(seed, bool) or number < 0:
        raise ValueError(f"seed: expected None or an integer from 0, got {seed!r}")
    return number
