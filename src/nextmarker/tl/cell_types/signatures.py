"""Signatures of cell types: which markers a type has and lacks, from text, tables and files of other programs."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd

from nextmarker._errors import check_option, listed, no_such

if TYPE_CHECKING:
    from collections.abc import Sequence

Signatures: TypeAlias = "Mapping[str, str | Mapping[str, str]] | pd.DataFrame | str | Path"

ENTRIES = ("parent", "markers")
# scimap's words, as the sign and whether one marker of those with the word is enough
WORDS = {"pos": ("+", False), "allpos": ("+", False), "anypos": ("+", True)}
WORDS |= {"neg": ("-", False), "allneg": ("-", False), "anyneg": ("-", True)}
SIGNS = {1: "+", -1: "-"}

_TERM = re.compile(r"\s*(?:(?P<or>or\s)|(?P<name>[^,;\[\]()]+?)\s*(?P<sign>[+-])(?=[\s,;\])]|$)|(?P<mark>[,;\[\]()]))")


@dataclass(frozen=True)
class Condition:
    """One condition of a signature: at least one of its alternatives holds."""

    alternatives: tuple[tuple[str, str], ...]
    """Markers with their sign, `"+"` or `"-"`."""
    optional: bool = False
    """Whether the condition may only support a type, not exclude it."""

    @property
    def text(self) -> str:
        """The condition as it is written in a signature."""
        text = " or ".join(f"{marker}{sign}" for marker, sign in self.alternatives)
        return f"[{text}]" if self.optional else text


@dataclass(frozen=True)
class CellType:
    """A cell type, its conditions, and the type that it is a subtype of."""

    name: str
    conditions: tuple[Condition, ...]
    parent: str | None = None

    @property
    def text(self) -> str:
        """The signature as text."""
        return " ".join(condition.text for condition in self.conditions)


def read_signatures(signatures: Signatures) -> list[CellType]:
    """Read cell types in their order; a type whose conditions include all those of another is its subtype.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TypeError
        If `signatures` is of another type.
    ValueError
        If a signature or file cannot be read, a parent is missing, or types are their own ancestors.
    """
    if isinstance(signatures, (str, Path)):
        types = _read_file(Path(signatures))
    elif isinstance(signatures, pd.DataFrame):
        types = _from_matrix(signatures)
    elif isinstance(signatures, Mapping):
        types = [_from_entry(str(name), entry) for name, entry in signatures.items()]
    else:
        msg = f"signatures is of type {type(signatures).__name__}. Give a dict, a DataFrame or a path."
        raise TypeError(msg)
    if not types:
        msg = 'signatures is empty. Give one or more: {"T cell": "CD3+ CD20-"}.'
        raise ValueError(msg)
    _check_parents(types)
    return [_with_parent(each, types) for each in types]


def parse(name: str, text: str) -> tuple[Condition, ...]:
    """Parse a signature such as `"CD45+ CD4+ or CD8+ CD20- [CD57+]"`.

    Examples
    --------
    >>> [condition.text for condition in parse("T cell", "CD45+, CD4+ or HLA-DR+ [CD57-]")]
    ['CD45+', 'CD4+ or HLA-DR+', '[CD57-]']
    """
    conditions: list[Condition] = []
    optional = joined = False
    position = 0
    text = text.strip()
    while position < len(text):
        term = _TERM.match(text, position)
        if term is None:
            fix = 'Write each marker with + or -, such as "CD3+ CD20-".'
            msg = f"The signature {text!r} of {name!r} cannot be read from {text[position:].strip()!r}. {fix}"
            raise ValueError(msg)
        position = term.end()
        if term["name"]:
            alternative = (term["name"].strip(), term["sign"])
            if joined and conditions:
                conditions[-1] = Condition((*conditions[-1].alternatives, alternative), optional)
            else:
                conditions.append(Condition((alternative,), optional))
        optional = term["mark"] == "[" or (optional and term["mark"] != "]")
        joined = bool(term["or"])
    return tuple(conditions)


def ancestors(cell_type: CellType, types: Sequence[CellType]) -> Iterator[CellType]:
    """Yield the parent of a type, its parent, and so on."""
    by_name = {each.name: each for each in types}
    while cell_type.parent is not None:
        cell_type = by_name[cell_type.parent]
        yield cell_type


def _from_entry(name: str, entry: object) -> CellType:
    if isinstance(entry, str):
        return CellType(name, parse(name, entry))
    if not isinstance(entry, Mapping):
        msg = f'The signature of {name!r} must be one text, such as "CD3+ CD20-", or a dict of parent and markers.'
        raise ValueError(msg)
    for key in entry:
        check_option(f"entry of {name!r}", key, ENTRIES)
    return CellType(name, parse(name, entry.get("markers", "")), entry.get("parent"))


def _read_file(path: Path) -> list[CellType]:
    if not path.is_file():
        msg = f"No file {str(path)!r}. In Python, signatures are a dict of type and markers."
        raise FileNotFoundError(msg)
    if path.suffix.lower() in (".yaml", ".yml"):
        return _from_yaml(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header
            table = pd.read_csv(path, sep=None, engine="python", dtype=str, encoding="utf-8-sig", index_col=False)
    except pd.errors.ParserWarning as error:
        msg = f"A row of {str(path)!r} has more values than the header has names. Name each column by its marker."
        raise ValueError(msg) from error
    except (pd.errors.ParserError, UnicodeDecodeError, ValueError) as error:
        msg = f"{str(path)!r} cannot be read as a table of signatures, .csv or .tsv: {error}."
        raise ValueError(msg) from error
    if table.iloc[:, 2:].apply(lambda column: column.str.strip().str.lower().isin(WORDS)).any(axis=None):
        return _from_scimap(table)
    return _from_matrix(table.set_index(table.columns[0]))


def _from_scimap(table: pd.DataFrame) -> list[CellType]:
    """Read scimap's phenotypes: a column of parents, one of types, and one for each marker."""
    table = table.apply(lambda column: column.str.strip())
    parents, names, words = table.iloc[:, 0], table.iloc[:, 1], table.iloc[:, 2:]
    return [
        CellType(name, _from_words(name, own.dropna()), parent if parent in set(names) else None)
        for name, parent, (_, own) in zip(names, parents, words.iterrows(), strict=True)
    ]


def _from_words(name: str, words: pd.Series) -> tuple[Condition, ...]:
    conditions = []
    for word, own in words.str.lower().groupby(words.str.lower(), sort=False):
        check_option(f"entry of {name!r}", word, WORDS)
        sign, one_is_enough = WORDS[str(word)]
        pairs = tuple((str(marker), sign) for marker in own.index)
        conditions += [Condition(pairs)] if one_is_enough else [Condition((pair,)) for pair in pairs]
    return tuple(conditions)


def _from_matrix(table: pd.DataFrame) -> list[CellType]:
    """Read a matrix of types and markers: 1 for positive, -1 for negative, 0 or nothing for either."""
    numbers = table.apply(pd.to_numeric, errors="coerce")
    wrong = np.argwhere((table.notna() & ~numbers.isin([1, 0, -1])).to_numpy())
    if len(wrong):
        row, column = wrong[0]
        entry = f"{table.columns[column]!r} of {table.index[row]!r} is {str(table.iat[row, column])!r}"
        msg = f"{entry} in the table of signatures. Use 1, -1, and 0 or nothing for either."
        raise ValueError(msg)
    return [
        CellType(str(name), tuple(Condition(((str(m), SIGNS[sign]),)) for m, sign in row.items() if sign in SIGNS))
        for name, row in numbers.iterrows()
    ]


def _from_yaml(path: Path) -> list[CellType]:
    """Read astir's YAML: lists of markers that a type has, and groups of types."""
    import yaml

    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        markers = content["cell_types"]
        groups = content.get("hierarchy") or {}
        parents = {child: group for group, children in groups.items() for child in children}
        groups = [CellType(str(name), ()) for name in groups]
        types = [
            CellType(str(name), tuple(Condition(((str(m), "+"),)) for m in own), parents.get(name))
            for name, own in markers.items()
        ]
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        msg = f"{str(path)!r} cannot be read as signatures: it needs cell_types, each with a list of markers."
        raise ValueError(msg) from error
    return [*groups, *types]


def _check_parents(types: Sequence[CellType]) -> None:
    names = [each.name for each in types]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        msg = f"Each cell type needs one signature; {listed(repeated)} has several."
        raise ValueError(msg)
    for each in types:
        if each.parent is not None and each.parent not in names:
            fix = "Add its signature, or correct parent."
            raise ValueError(no_such("cell type", each.parent, f"signatures, the parent of {each.name!r}", names, fix))
    for each in types:
        seen = {each.name}
        for parent in ancestors(each, types):
            if parent.name in seen:
                msg = f"{listed(sorted(seen))} are subtypes of each other. Correct their parents."
                raise ValueError(msg)
            seen.add(parent.name)
    for each in types:
        if not each.conditions and all(other.parent != each.name for other in types):
            msg = f"The signature of {each.name!r} has no marker. Write one or more, such as CD3+."
            raise ValueError(msg)


def _with_parent(cell_type: CellType, types: Sequence[CellType]) -> CellType:
    """Take the type with the most conditions, all of which this type has too, as its parent, if it has none."""
    own = set(cell_type.conditions)
    wider = [
        each for each in types if each.parent == cell_type.parent and each.conditions and set(each.conditions) < own
    ]
    if not wider:
        return cell_type
    parent = max(wider, key=lambda each: len(each.conditions))
    return CellType(cell_type.name, cell_type.conditions, parent.name)
