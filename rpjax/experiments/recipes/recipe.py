"""What a recipe is."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """Settings under a name, and where they are from.

    source: the paper, and what of the settings is not in it.
    settings: fields and values, as in a YAML file.
    """

    name: str
    source: str
    settings: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.name}: {self.source}"
