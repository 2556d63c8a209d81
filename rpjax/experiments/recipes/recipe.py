"""What a recipe is."""

from dataclasses import dataclass
from typing import Any, NamedTuple


class Facts(NamedTuple):
    """What a data set holds, so that a training can be planned where it is not.

    records: in its training part; shape: height, width and channels of an image.
    """

    records: int
    classes: int
    shape: tuple[int, int, int]


@dataclass(frozen=True)
class Recipe:
    """Settings under a name, and where they are from.

    source: the paper, and what of the settings is not in it.
    settings: fields and values, as in a YAML file; `methods` names one.
    data: what the data set holds that the settings are for.
    """

    name: str
    source: str
    settings: dict[str, Any]
    data: Facts

    def __str__(self) -> str:
        return f"{self.name}: {self.source}"
