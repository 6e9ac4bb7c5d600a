"""Wording of errors: what was expected, what was found, and the call that fixes it; and of numbers of things."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches
from pathlib import Path

SHOWN = 8
"""Maximum number of names shown from a list."""
CLOSE = 0.7
"""Minimum similarity of a name that is suggested; that of CD3 and CD4 is lower."""


def listed(names: Iterable[object], most: int = SHOWN) -> str:
    """List names in quotes; of many, only the first few.

    Examples
    --------
    >>> listed(["CD3", "CD20"]), listed([])
    ("'CD3', 'CD20'", 'nothing')
    >>> listed(range(39))
    '0, 1, 2, 3, 4, 5, 6, 7 and 31 more'
    """
    quoted = [repr(str(name) if isinstance(name, str) else name) for name in names]  # numpy's text too
    more = f" and {len(quoted) - most} more" if len(quoted) > most else ""
    return (", ".join(quoted[:most]) or "nothing") + more


def counted(number: int, what: str) -> str:
    """Say how many there are of something.

    Examples
    --------
    >>> counted(1, "image"), counted(1200, "cell")
    ('1 image', '1,200 cells')
    """
    return f"{number:,} {what}{'s' if number != 1 else ''}"


def in_images(number: int, total: int) -> str:
    """Say in how many of the images.

    Examples
    --------
    >>> in_images(1, 1), in_images(3, 3), in_images(1, 3)
    ('in the image', 'in all 3 images', 'in 1 of 3 images')
    """
    if number < total:
        return f"in {number} of {total} images"
    return "in the image" if total == 1 else f"in all {total} images"


def no_such(
    kind: str,
    wanted: Iterable[str] | str,
    where: str,
    there: Iterable[object],
    fix: str,
    most: int = SHOWN,
    taken: Collection[str] = (),
) -> str:
    """Message that names are missing, what there is instead, and which call or argument fixes it.

    Names that are `taken`, as those of other markers, are not suggested.

    Examples
    --------
    >>> no_such("channel", "cd3", "image 'a'", ["CD3", "DNA"], "Name others: markers=[...].")
    "No channel 'cd3' in image 'a'; there is 'CD3', 'DNA'. Did you mean 'CD3'? Name others: markers=[...]."
    """
    names, known = [wanted] if isinstance(wanted, str) else list(wanted), list(map(str, there))
    sought = f"{kind}{'s' if len(names) > 1 else ''} {listed(names)}".strip()
    guess = _guess(names, [name for name in known if name not in taken])
    return f"No {sought} in {where}; there is {listed(known, most)}. {guess}{fix}"


def no_path(path: Path, kind: str = "file", fix: str = "Correct the path.") -> FileNotFoundError:
    """Make the error for a path that does not exist: names its first part that is missing, and what there is."""
    while not path.parent.is_dir():
        path = path.parent
    there = sorted(entry.name for entry in path.parent.iterdir() if entry.name[0] != ".")
    return FileNotFoundError(no_such(kind, path.name, f"{str(path.parent)!r}", there, fix))


def check_option(argument: str, value: object, options: Collection[str]) -> None:
    """Raise an error for a value that is not one of the options.

    Raises
    ------
    ValueError
        If it is none of them.
    """
    if value not in options:
        msg = f"{argument}={value!r} must be one of {listed(options)}. {_guess([str(value)], list(options))}".rstrip()
        raise ValueError(msg)


def check_value(argument: str, value: object, holds: bool, rule: str) -> None:
    """Raise an error for a value that breaks a rule.

    Parameters
    ----------
    holds
        Whether the value follows the rule.
    rule
        The rule in words, after "must be".

    Raises
    ------
    ValueError
        If it does not follow the rule.
    """
    if not holds:
        msg = f"{argument}={value!r} must be {rule}."
        raise ValueError(msg)


def check_each_once(argument: str, names: Collection[str]) -> None:
    """Raise an error if a list of names is empty or a name repeats.

    Raises
    ------
    ValueError
        If one of these is the case.
    """
    check_value(argument, names, 0 < len(names) == len(set(names)), "one name or more, each once")


def _guess(wanted: Iterable[str], there: Iterable[str]) -> str:
    """Suggest similar names, whether upper or lower case."""
    known = {name.casefold(): name for name in there}
    close = {known[match]: None for name in wanted for match in get_close_matches(name.casefold(), known, cutoff=CLOSE)}
    return f"Did you mean {' or '.join(map(repr, close))}? " if close else ""
