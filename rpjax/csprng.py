"""Standard normals from a cryptographic generator, drawn on the host.

The generator is SHAKE-256 (FIPS 202) with the 256 secret bits and the step's number as
its input: any draw follows from these two alone, so every device and every process that
has them gets the same numbers, and a run can resume anywhere.
"""

import functools
import hashlib
import threading

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Float, UInt32, UInt64

# keeps these draws apart from whatever else may once be derived from the same bits
PURPOSE = b"rpjax.csprng.secure_normal/1"

_turn = threading.Lock()


def secure_normal(
    secret: UInt32[Array, " 8"], step: int | Array, size: int
) -> Float[Array, " size"]:
    """Standard normals for the noise of one step, from a cryptographic generator.

    Used as `rpjax.keys.secret_normal`: inside jit, loops, `jax.vmap` (each member its
    own secret) and `jax.shard_map` (the same numbers on every device). The host draws
    them when the program comes to the step.

    What holds: nobody is known to tell SHAKE-256 from chance without the secret in its
    input, whatever other outputs he has seen (keyed sponges: Bertoni, Daemen, Peeters,
    Van Assche, 2011). So the noise of all other steps does not help to predict that of
    one. Of threefry in `jax.random`, made for simulations, nobody claims as much. Each
    normal is the inverse distribution function of 64 bits of its own in float64,
    rounded once to float32: of magnitudes from 1e-8 to 6 no float32 is left out, so the
    draw alone has none of the holes by which Mironov ("On Significance of the Least
    Significant Bits for Differential Privacy", CCS 2012) takes noise apart.

    What does not: the draw is scaled and added in float32. Scaling makes new holes, and
    an entry of the sum that nearly cancels its noise shows its own low-order bits. Who
    is given noisy sums to the last bit can use both; a guarantee there needs noise on a
    grid of integers (Canonne, Kamath, Steinke, "The Discrete Gaussian for Differential
    Privacy", 2020), which this is not. The sensitivity of a float32 sum is itself only
    that of real numbers up to rounding. Magnitudes beyond 9.2 are never drawn. The
    coins of Poisson sampling stay threefry's. And nothing helps against who reads the
    memory of the process, or the secret in a checkpoint.
    """
    return jax.pure_callback(
        functools.partial(_on_host, size),
        jax.ShapeDtypeStruct((size,), jnp.float32),
        secret,
        jnp.asarray(step).astype(jnp.uint32),
        vmap_method="broadcast_all",
    )


def host_normal(
    secret: UInt32[np.ndarray, " 8"], step: int, size: int
) -> Float[np.ndarray, " size"]:
    """The numbers of `secure_normal`, without a device."""
    message = PURPOSE + secret.astype("<u4").tobytes() + step.to_bytes(8, "little")
    return _normals(np.frombuffer(hashlib.shake_256(message).digest(8 * size), "<u8"))


def _normals(words: UInt64[np.ndarray, " size"]) -> Float[np.ndarray, " size"]:
    # 63 bits as a number in (0, 1/2], whose small ones are fine; the last bit is a sign
    uniform = ((words >> np.uint64(1)).astype(np.float64) + 0.5) * 2.0**-64
    signs = 1.0 - 2.0 * (words & np.uint64(1)).astype(np.float64)
    normals: np.ndarray = signs * scipy.special.ndtri(uniform)
    return normals.astype(np.float32)


def _on_host(size: int, secret: Array, step: Array) -> np.ndarray:
    """A draw of each member, (*members, size)."""
    secrets, steps = np.asarray(secret), np.asarray(step)
    # the devices of a process ask for the same draw at the same time: one makes it
    with _turn:
        drawn = _last(secrets.tobytes(), steps.tobytes(), size)
    return drawn.reshape(*steps.shape, size)


@functools.lru_cache(maxsize=1)
def _last(secrets: bytes, steps: bytes, size: int) -> np.ndarray:
    members = zip(
        np.frombuffer(secrets, np.uint32).reshape(-1, 8),
        np.frombuffer(steps, np.uint32),
        strict=True,
    )
    each = [host_normal(bits, int(step), size) for bits, step in members]
    drawn = np.stack(each)
    drawn.flags.writeable = False
    return drawn
