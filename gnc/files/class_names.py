"""Names of classes from a file of text or JSON.

Knows neither classifiers nor commands.
"""

import json
from pathlib import Path
from typing import Any

from study.design.errors import StudyError


def read_labels(path: str, count: int) -> dict[int, str]:
    """Names of classes by their number: lines of text, a JSON list, or a JSON object of numbers to names or back."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"--labels must name a readable file of UTF-8 text, got {path!r}: {error}.") from None
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict | list):
        found = text.removesuffix("\n").replace("\r\n", "\n").split("\n")
    names = _numbered(found, path)
    wrong = [k for k in names if not 0 <= k < count]
    if wrong:
        raise StudyError(f"--labels must have at most one name per row ({count}), got a name for row {max(wrong)}.")
    return names


def _numbered(found: dict[str, Any] | list[Any], path: str) -> dict[int, str]:
    if isinstance(found, list):
        return {k: str(name) for k, name in enumerate(found)}
    if all(type(value) is int for value in found.values()):
        return {value: name for name, value in found.items()}
    if all(name.isdecimal() for name in found):
        return {int(name): str(value) for name, value in found.items()}
    raise StudyError(f"--labels must map numbers to names or names to numbers, got another JSON object in {path!r}.")
