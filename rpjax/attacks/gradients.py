"""What one record's gradient shows of it, whatever noise came after its layers.

The gradient of a layer's weights is made of the layer's own *input*: noise that is
added behind a layer, of any size, changes by what this input is multiplied and never
what it is. Three readings, for someone who sees the gradient of a single record and the
weights at which it was taken. float64 on the host.
"""

import numpy as np
import numpy.typing as npt
from jaxtyping import Float

Kernel = Float[np.ndarray, "kh kw i o"]


def dense_input(kernel: npt.ArrayLike, bias: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The input of a dense layer from its gradients by kernel and bias: exact.

    With g the gradient by the layer's output they are ``x g'`` (inputs, outputs) and
    ``g``, so that ``x = (x g') g / |g|^2``, sign and scale included.
    """
    outer, g = np.asarray(kernel, np.float64), np.asarray(bias, np.float64)
    recovered: npt.NDArray[np.float64] = outer @ g / (g @ g)
    return recovered


def label(bias: npt.ArrayLike) -> int:
    """The label from the gradient by the last bias: its only negative entry.

    Under cross-entropy that gradient is ``softmax(logits) - onehot(label)`` (Zhao,
    Mopuri, Bilen, arXiv 2001.02610).
    """
    return int(np.argmin(np.asarray(bias)))


def unexplained(kernel: npt.ArrayLike, feature_map: npt.ArrayLike) -> float:
    """The share of a convolution's gradient that this input cannot have made.

    Each output channel's gradient is a combination of the windows that the convolution
    saw, with unknown coefficients. What is left after projecting onto the span of these
    windows, relative to the whole, is 0 for the true input. For another one it is not,
    as long as there are fewer windows than entries in one (h w < kh kw i).

    Args:
        kernel: gradient (kh, kw, i, o) by the kernel; padding SAME, stride 1.
        feature_map: (h, w, i), what the layer is suspected to have seen.
    """
    gradient = np.asarray(kernel, np.float64)
    windows = _windows(np.asarray(feature_map, np.float64), gradient.shape[:2])
    flat = gradient.reshape(windows.shape[1], -1)
    basis, values, _ = np.linalg.svd(windows.T, full_matrices=False)
    basis = basis[:, values > 1e-6 * values[0]]  # float32 made them
    rest = flat - basis @ (basis.T @ flat)
    return float(np.linalg.norm(rest) / np.linalg.norm(flat))


def _windows(
    x: npt.NDArray[np.float64], window: tuple[int, ...]
) -> npt.NDArray[np.float64]:
    """All windows of a feature map, (h w, kh kw i), in the order of an HWIO kernel."""
    around = [((k - 1) // 2, k // 2) for k in window]
    padded = np.pad(x, (*around, (0, 0)))
    seen = np.lib.stride_tricks.sliding_window_view(padded, window, axis=(0, 1))
    rows: npt.NDArray[np.float64] = np.moveaxis(seen, 2, -1)
    return rows.reshape(x.shape[0] * x.shape[1], -1)
