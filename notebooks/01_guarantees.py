# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What noise in the blocks does not hide
#
# This notebook reads training images, labels and neighbours out of noisy residual nets,
# and shows how much noise on the input it takes to prove something.
#
# The theorems, with their proofs, are in `docs/guarantees.md`.
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/rpjax/rpjax/blob/main/notebooks/01_guarantees.ipynb)

# %%
import importlib
import sys

if "google.colab" in sys.modules:
    # rpjax asks for JAX 0.7.2 or later, so Colab keeps its own JAX and its accelerator
    # %pip install -q "rpjax @ git+https://github.com/rpjax/rpjax"
    importlib.invalidate_caches()

# %%
import os

import flax.linen as nn
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import rpjax as rp
from rpjax.attacks import gradients
from rpjax.experiments import environment

FAST = bool(os.environ.get("RPJAX_FAST"))  # fewer suspects, to test the code
SUSPECTS, BLOCKS, GAMMAS = (20, 1, (5.0,)) if FAST else (200, 3, (0.5, 500.0))
WHO = 7  # the record whose step is released

plt.rcParams.update({"figure.dpi": 110, "font.size": 9, "legend.frameon": False})
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False})
COLOURS = ("#3f444b", "#0072b2", "#d55e00", "#009e73")

data = rp.data.load("digits")
records = data.train
images = rp.Inputs().clean(jnp.asarray(records.images[:SUSPECTS]))


def show(pictures):
    """A row of pictures with their titles, each on its own grey scale."""
    _, panels = plt.subplots(1, len(pictures), figsize=(7, 2))
    for panel, (title, picture) in zip(panels, pictures.items(), strict=True):
        picture = np.reshape(picture, (8, 8))
        size = np.abs(picture).max()
        panel.imshow(picture, cmap="gray_r", vmin=-size, vmax=size)
        panel.set_title(title)
        panel.set_axis_off()
    plt.show()


# %% [markdown]
# ## One step
#
# The adversary of differential privacy sees a training step: the weights before it and
# the gradient that it took. Below, a step of rpjax's own learner on one record. A
# momentum optimiser keeps the gradient of its first step in its state.


# %%
def released(net, inputs=None):
    """Parameters, and their gradient in a step on the record in question."""
    learner = rp.supervised(net, optax.sgd(0.1, momentum=0.9), inputs)
    one = records.take([WHO])
    state = jax.jit(learner.init)(rp.keys.root(0), one.images)
    batch = rp.learners.Batch(one.images, one.labels, one.ids, np.ones(1, bool))
    after, _ = jax.jit(learner.step)(rp.keys.root(0), state, batch)
    return state.params, jax.device_get(after.opt_state[0].trace)


# %% [markdown]
# ## The image
#
# One residual block on the image as a vector: `x + F(x) + γ n`. Its gradient is an
# outer product with its input, and the input is the clean image: noise that comes
# behind a layer changes by what this image is multiplied, and not what it is.


# %%
class OneBlock(nn.Module):
    perturbation: rp.Additive

    @nn.compact
    def __call__(self, keys, images, train=False):
        x = images.reshape(len(images), -1)
        f = nn.Dense(x.shape[-1], name="block")(x)
        if keys is not None:
            f = f + jax.vmap(self.perturbation.noise)(keys, f)
        return nn.Dense(10, name="head")(x + f)


key = rp.keys.per_record(rp.keys.root(1), np.array([WHO], np.int32))[0]
for gamma in GAMMAS:
    _, gradient = released(OneBlock(rp.Additive(gamma)))
    block = gradient["block"]
    recovered = gradients.dense_input(block["kernel"], block["bias"])
    error = np.abs(recovered - np.ravel(images[WHO])).max()
    print(f"γ = {gamma:5}: largest error of a pixel {error:.0e}")
    noise = rp.Additive(gamma).noise(key, images[WHO])
    shown = {
        "training image": images[WHO],
        f"with noise γ = {gamma:g}": images[WHO] + noise,
        "from the gradient": recovered,
    }
    show(shown)

# %% [markdown]
# ## The record, in a ResNet
#
# The gradient of a convolution is made of windows of its input, with unknown factors.
# For a suspected record the input of the first block's convolutions follows from the
# weights, and its windows explain the whole gradient, or they do not.

# %%
stages = (1,) * BLOCKS
net = rp.models.ResNet(stages, (16, 32, 64)[:BLOCKS], classes=10)
noisy = net.clone(perturbation=rp.Additive(5.0))
params, gradient = released(noisy)


@jax.jit
def inside(images):
    """What the second convolution of the first block sees: no noise has come yet."""
    wanted = {"capture_intermediates": lambda module, _: module.name == "norm1"}
    _, seen = net.apply({"params": params}, None, images, **wanted)
    return nn.relu(seen["intermediates"]["block0"]["norm1"]["__call__"][0])


kernel = gradient["block0"]["conv1"]["kernel"]
rest = [gradients.unexplained(kernel, np.asarray(x)) for x in inside(images)]
guilty = int(np.argmin(rest))
print(
    f"record {guilty} of {SUSPECTS} explains all but {rest[guilty]:.0e} of the gradient"
)
print(f"the next best leaves {np.sort(rest)[1]:.2f}; the true record is {WHO}")

figure, axes = plt.subplots(figsize=(6, 2.6), layout="constrained")
others = np.delete(np.arange(SUSPECTS), guilty)
axes.scatter(others, np.delete(rest, guilty), 6, COLOURS[0], label="other records")
axes.scatter([guilty], [rest[guilty]], 40, COLOURS[2], label=f"record {guilty}")
axes.set(yscale="log", xlabel="suspected record", ylabel="share left unexplained")
axes.legend(loc="center right")
plt.show()

# %% [markdown]
# ## The label
#
# The gradient of the last bias is `softmax(logits) - onehot(label)`: negative at the
# label and nowhere else, whatever noise came before. Labels are therefore public to
# every theorem on features.

# %%
figure, axes = plt.subplots(figsize=(6, 2.2), layout="constrained")
bias = gradient["head"]["bias"]
axes.bar(range(10), bias, color=[COLOURS[2] if b < 0 else COLOURS[0] for b in bias])
axes.axhline(0, color="0.6", linewidth=0.8)
axes.set(xticks=range(10), xlabel="class", ylabel="gradient of its bias")
plt.show()
print("label by the gradient", gradients.label(bias), "- true", records.labels[WHO])

# %% [markdown]
# ## Two views with one noise
#
# Were a record's kept noise added to shifted images, the noise would cancel between two
# views, however large. Summed along each row, what is left is the image, but for one
# number a row. (rpjax adds the noise first, and shifts the noisy copy.)

# %%
image = np.asarray(images[WHO, ..., 0], np.float64)
kept = np.random.default_rng(0).normal(0, 100, image.shape)
views = [np.roll(image, -shift, axis=1) + kept for shift in (0, 1)]
summed = np.cumsum(views[1] - views[0], axis=1)
# on their left, digits are black: it fixes the missing number of each row
recovered = np.roll(summed, 1, axis=1) - 1
recovered[:, 0] = -1
show(
    {
        "first view": views[0],
        "second view": views[1],
        "their difference": views[1] - views[0],
        "summed": recovered,
    }
)

# %% [markdown]
# ## Neighbours in a batch
#
# Noise in proportion to a batch's own standard deviation, as in the EnResNet code,
# makes everyone's output depend on everyone. Below, the first of eight records is
# exchanged, and the largest change in the outputs of the others is measured.


# %%
def scaled_by_the_batch(key, x):
    return x + 0.5 * jnp.std(x) * jax.random.normal(key, x.shape)


def a_key_for_each(key, x):
    keys = rp.keys.per_record(key, jnp.arange(len(x)))
    return x + jax.vmap(rp.Additive(0.5).noise)(keys, x)


eight = images[:8]
exchanged = eight.at[0].set(-eight[0])
for layer in (scaled_by_the_batch, a_key_for_each):
    one, two = (jax.jit(layer)(rp.keys.root(1), x) for x in (eight, exchanged))
    change = np.abs(one - two)[1:].max()
    print(f"{layer.__name__:<20} largest change in the other seven {change:.3f}")

# %% [markdown]
# ## Strategy II at zero
#
# Noise in proportion to an activation is no noise at zero. One feature is 0 for one
# record and 0.3 for its neighbour; the histograms are of many draws. Without a floor a
# single draw tells the two apart, always. A floor helps, at a price that
# `rpjax.privacy.multiplicative` knows.

# %%
figure, panels = plt.subplots(1, 2, figsize=(7, 2.2), layout="constrained")
for axes, floor in zip(panels, (0.0, 0.1), strict=True):
    step = rp.Multiplicative(0.5, floor)
    for colour, x in zip(COLOURS[1:], (0.0, 0.3), strict=False):
        feature = jnp.full((4000,), x)
        draws = np.asarray(feature + step.noise(rp.keys.root(0), feature))
        bins = np.linspace(-0.3, 0.8, 56)
        axes.hist(draws, bins, color=colour, alpha=0.7, label=f"feature {x:g}")
    axes.set(title=f"floor {floor:g}", xlabel="after the noise", yscale="log")
panels[0].legend(loc="upper right")
plt.show()

# %% [markdown]
# ## What it takes
#
# Noise on the input proves something: μ = diameter / π for a copy that is kept, with
# the distance of two whole images over the noise of one pixel. This is the digit at the
# noise of some epsilons (δ = 1e-5), each on its own grey scale.

# %%
use = rp.privacy.residual.NoisyInputs(diameter=16.0, draw="record")
draw = np.asarray(rp.Additive(1.0).noise(key, images[WHO]))
pictures = {"clean": images[WHO]}
for epsilon in (1000, 200, 50, 4):
    noise = use.noise_for(epsilon, 1e-5)
    pictures[f"ε = {epsilon}\nπ = {noise:.2g}"] = images[WHO] + noise * draw
show(pictures)

# %% [markdown]
# And what a theorem lets pass: no attack on the features finds more than this. The
# broken line is guessing.

# %%
figure, axes = plt.subplots(figsize=(6.5, 3), layout="constrained")
fpr = np.logspace(-4, 0, 200)
for colour, epsilon in zip(COLOURS, (1, 4, 10, 25), strict=True):
    curve = use.curve(use.noise_for(epsilon, 1e-5))
    axes.plot(fpr, curve.tpr(fpr), color=colour, label=f"ε = {epsilon}, {curve}")
axes.plot(fpr, fpr, color="0.6", linestyle="dashed", linewidth=0.8)
axes.set(
    xscale="log", xlabel="false-positive rate", ylabel="largest true-positive rate"
)
figure.legend(loc="outside right center")
plt.show()

# %% [markdown]
# ## What to take home
#
# - A layer is trained on what comes before its noise. Block noise protects answers, and
#   proves nothing about the training images.
# - Noise on the input is what a proof rests on. On raw pixels it takes more than leaves
#   a digit visible; on few features of a public net it takes much less.
# - No noise in the net covers labels, and none of this is about who was in the training
#   set: see `docs/guarantees.md` and `docs/guarantees_leaks.md`.

# %%
for name, version in environment.versions().items():
    print(f"{name:<15} {version}")
