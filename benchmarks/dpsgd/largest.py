"""The largest batch that fits: doubling, then bisection."""

from collections.abc import Callable

MOST = 1 << 17
RESOLUTION = 8


def largest(fits: Callable[[int], bool], first: int) -> int | None:
    """A batch that fits while one larger by 1/8 does not; None if not even one does.

    fits: asked of one batch at a time; first: where to begin.
    """
    good, bad = 0, MOST + 1
    size = first
    while good < size < bad:
        if fits(size):
            good, size = size, min(2 * size, MOST)
        else:
            bad, size = size, size // 2
    while bad - good > max(1, good // RESOLUTION):
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good or None


def of_memory(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice."""
    text = str(error).lower()
    words = ("resource_exhausted", "out of memory", "outofmemory", "ended with -9")
    return any(word in text for word in words)
