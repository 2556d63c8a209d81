"""From the bytes of an image file to pixels of one size, by Pillow."""

import contextlib
import io
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

GREY_MODES = ("1", "L", "LA", "La")
NOT_AN_IMAGE = "not a readable image"
DAMAGED = "not a readable image, but a damaged or truncated one"
TOO_DEEP = "more than 8 bits per pixel; convert it"


class Form(NamedTuple):
    """What every image is brought to: Pillow's mode ("L", "RGB", "RGBA") and its size.

    resize: whether images of another size are resized to this one.
    """

    mode: str
    height: int
    width: int
    resize: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the pixels of one image."""
        return self.height, self.width, len(self.mode)


class Facts(NamedTuple):
    """What a full decoding finds. reason: why the image cannot be used, or ""."""

    height: int = 0
    width: int = 0
    grey: bool = True
    reason: str = ""


class UnusableError(Exception):
    """An image that cannot be decoded; the message says why, but not which."""


def pixels(content: bytes, form: Form) -> np.ndarray:
    """The image as uint8 (height, width, channels); transparency is dropped for RGB.

    Resized (bilinear) so that its shorter side fits, and cut in the centre: the largest
    centred part of the wanted proportions becomes the image. A JPEG that is at least
    twice too large is decoded at a half, a quarter or an eighth of its size first.

    Raises:
        UnusableError: if it is not an image, or a damaged one.
    """
    with _opened(content) as image:
        size = (form.width, form.height)
        if form.resize and image.format == "JPEG":
            image.draft(None, size)
        image = image.convert(form.mode)
        if image.size != size:
            if not form.resize:
                raise UnusableError(
                    f"{image.height} x {image.width} pixels and not "
                    f"{form.height} x {form.width}"
                )
            image = _covering(image, size)
        return np.asarray(image).reshape(form.shape)


def examined(content: bytes) -> Facts:
    """Decodes all of an image, since a truncated file can have a perfect header."""
    try:
        with _opened(content) as image:
            facts = Facts(image.height, image.width, image.mode in GREY_MODES)
            if image.mode[0] in "IF":
                return facts._replace(reason=TOO_DEEP)
            if image.format == "JPEG":  # an eighth of the work, all of the bytes
                image.draft(None, (1, 1))
            image.load()
            return facts
    except UnusableError as error:
        return Facts(reason=str(error))


def _covering(image: Any, size: tuple[int, int]) -> Any:
    """`image`: a PIL.Image.Image; Pillow is imported only once images are read."""
    from PIL import Image

    (width, height), (wide, high) = image.size, size
    across, down = min(width, height * wide / high), min(height, width * high / wide)
    left, top = (width - across) / 2, (height - down) / 2
    box = (left, top, min(width, left + across), min(height, top + down))
    return image.resize(size, Image.Resampling.BILINEAR, box=box)


@contextlib.contextmanager
def _opened(content: bytes) -> Iterator[Any]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content)) as image:
            yield image
    except UnidentifiedImageError as error:
        raise UnusableError(NOT_AN_IMAGE) from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnusableError(DAMAGED) from error
