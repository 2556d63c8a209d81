"""What a compiled program says of itself: its collectives and their bytes."""

import re
from typing import NamedTuple

KINDS = "all-gather|all-to-all|all-reduce|collective-permute|reduce-scatter"
COLLECTIVES = re.compile(rf"= ([^=]*?) ({KINDS})(?:-start)?\(")
SHAPE = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
BITS = re.compile(r"\d+")


class Collective(NamedTuple):
    """One exchange between devices. size: bytes of its result on each device."""

    kind: str
    size: int


def collectives(text: str) -> list[Collective]:
    """Every exchange in the text of a compiled program, in its order.

    >>> collectives("%a = (f32[2,3]{1,0}, f32[]) all-reduce(%x, %y), to_apply=%add")
    [Collective(kind='all-reduce', size=28)]
    """
    return [
        Collective(found[2], sum(map(_size, SHAPE.findall(found[1]))))
        for found in COLLECTIVES.finditer(text)
    ]


def _size(shape: tuple[str, str]) -> int:
    dtype, sizes = shape
    count = 1
    for size in filter(None, sizes.split(",")):
        count *= int(size)
    bits = BITS.search(dtype)
    return count * max(1, int(bits[0]) // 8 if bits else 1)
