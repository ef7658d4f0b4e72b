"""Names of classes that look like one class, and classes that nobody else has."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

# Data sets of more classes have them from a list, and every pair is compared.
_MOST_COMPARED = 300


def remarks_on_classes(classes: Sequence[str], of_domain: Mapping[str, Iterable[str]]) -> list[str]:
    """A sentence for each pair of near-equal names, and one for classes of one domain alone."""
    found, seen = [], set[str]()
    for name in sorted(classes) if len(classes) <= _MOST_COMPARED else ():
        alike = {other: how for other in sorted(classes) if (how := _difference(name, other))}
        if name in seen or not alike:
            continue
        seen |= {name, *alike}
        spellings = sorted([name, *alike], key=lambda text: (sum(map(str.isupper, text)), text))
        first = spellings[0]
        options = " ".join(f"--map-label {_quoted(f'{text}={first}')}" for text in spellings[1:])
        found.append(
            f"The classes {', '.join(map(repr, spellings[:-1]))} and {spellings[-1]!r} differ only "
            f"in {' or '.join(sorted(set(alike.values())))}; {options} makes them one."
        )
    owners: dict[str, list[str]] = {name: [] for name in classes}
    for domain_id, names in of_domain.items():
        for name in names:
            owners[name].append(domain_id)
    alone = {name: owner[0] for name, owner in owners.items() if len(owner) == 1}
    if alone and len(of_domain) > 1:
        which = ", ".join(f"{name} ({owner})" for name, owner in list(alone.items())[:8])
        more = f" and {len(alone) - 8} more" if len(alone) > 8 else ""
        have = "class is" if len(alone) == 1 else "classes are"
        found.append(
            f"{len(alone)} {have} in one domain alone, so that no other can teach "
            f"{'it' if len(alone) == 1 else 'them'}: {which}{more}."
        )
    return found


def remarks_on_persons(names: Sequence[str]) -> list[str]:
    """A sentence where names may be one person's, who would be a source and a target domain."""
    alike: dict[object, list[str]] = {}
    for name in sorted(names):
        number = _number(name)
        alike.setdefault(name.casefold() if number is None else number, []).append(name)
    found = [" and ".join(map(repr, same)) for same in alike.values() if len(same) > 1]
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    return [
        f"The persons {'; '.join(found[:5])}{more} differ only in case or in how a number is "
        "written: each is a domain of its own."
    ] if found else []  # fmt: skip


def _number(text: str) -> float | None:
    """The number that a plain name is; None for any other."""
    return float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else None


def _quoted(text: str) -> str:
    return f"'{text}'" if " " in text else text


def _difference(one: str, two: str) -> str:
    """In what two names differ, where it is little; "" otherwise."""
    if one == two:
        return ""
    if one.casefold() == two.casefold():
        return "case"
    if _number(one) is not None and _number(one) == _number(two):
        return "how a number is written"
    plain = [_plain(name) for name in (one, two)]
    if plain[0] == plain[1] and plain[0]:
        return "signs, blanks or accents"
    if min(map(len, plain)) >= 5 and all(name.isalpha() for name in plain) and _one_edit(*plain):
        return "one letter"
    return ""


def _plain(name: str) -> str:
    folded = unicodedata.normalize("NFKD", name.casefold())
    return re.sub(r"[\W_]", "", "".join(c for c in folded if not unicodedata.combining(c)))


def _one_edit(one: str, two: str) -> bool:
    """Whether a letter added, dropped, changed or swapped with the next turns one into two."""
    if len(one) > len(two):
        one, two = two, one
    if len(two) - len(one) > 1:
        return False
    start = next((i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), len(one))
    if len(one) < len(two):
        return one[start:] == two[start + 1 :]
    swapped = one[start + 1 : start + 2] + one[start : start + 1]
    return one[start + 1 :] == two[start + 1 :] or swapped + one[start + 2 :] == two[start:]
