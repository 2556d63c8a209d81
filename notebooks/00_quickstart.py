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
# # rpjax in two minutes
#
# This notebook trains a small image classifier with and without residual perturbation,
# asks what is proved about its training data, and attacks it to see what leaks.
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/rpjax/rpjax/blob/main/notebooks/00_quickstart.ipynb)

# %%
import importlib
import sys

if "google.colab" in sys.modules:
    # rpjax asks for JAX 0.7.2 or later, so Colab keeps its own JAX and its accelerator
    # %pip install -q "rpjax @ git+https://github.com/rpjax/rpjax"
    importlib.invalidate_caches()

# %%
import os

import matplotlib.pyplot as plt
import numpy as np
import optax

import rpjax as rp
from rpjax.experiments import environment

FAST = bool(os.environ.get("RPJAX_FAST"))  # fewer records and epochs, to test the code
RECORDS, EPOCHS = (120, 2) if FAST else (400, 60)
BATCH, GAMMA = 20, 2.0

plt.rcParams.update({"figure.dpi": 110, "font.size": 9, "legend.frameon": False})
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False})
COLOURS = ("#3f444b", "#0072b2", "#d55e00", "#009e73")

# %% [markdown]
# ## Data
#
# scikit-learn's digits, 8 × 8 pixels. We keep few records on purpose: a net that has
# seen little data remembers more of it, and there is something for the attacks to find.
#
# Half of the records train the target: its **members**. The other half are
# **non-members**. Two shadow models, which the attacker trains, get random halves of
# their own.

# %%
data = rp.data.load("digits").limit(train=RECORDS)
pool = data.train
who = rp.data.design(len(pool), shadows=2, seed=0)
members = pool.take(who.members)
print(f"{len(members)} members, {len(who.non_members)} non-members")
print(f"{len(data.test)} records to test on")

figure, panels = plt.subplots(1, 10, figsize=(7, 1))
for panel, image, label in zip(panels, pool.images, pool.labels, strict=False):
    panel.imshow(image[..., 0], cmap="gray_r")
    panel.set_title(data.class_names[label])
    panel.set_axis_off()
plt.show()

# %% [markdown]
# ## Train
#
# A learner is three pure functions (`init`, `step`, `predict`), and `rp.fit` trains any
# of them. The noise seed is secret by default; it is fixed here so that the numbers
# below come out again.

# %%
steps = EPOCHS * (len(members) // BATCH)
schedule = optax.cosine_decay_schedule(0.1, steps)
sgd = optax.sgd(schedule, momentum=0.9, nesterov=True)
training = {"batch_size": BATCH, "steps": steps, "seed": 0, "noise_seed": "fixed"}

model = rp.models.resnet(depth=8, classes=data.classes)
plain = rp.fit(rp.supervised(model, sgd), pool, lists=who.members, **training)
print("test accuracy    ", plain.evaluate(data.test))
print("training accuracy", plain.evaluate(members))

# %% [markdown]
# ## Perturb
#
# Strategy I adds Gaussian noise of standard deviation γ to the output of every residual
# block: `x + F(x) + γ n`. The noise is a function of the record's key. Below, one draw
# on an image (in the net it falls on the feature maps): the same key gives the same
# noise, another key another. (γ is 0.5 here, for the digit to stay visible.)

# %%
noise_of = rp.Additive(0.5).noise
image = pool.images[0] / np.float32(127.5) - 1
one, other = rp.keys.per_record(rp.keys.root(0), np.array([0, 1], np.int32))
draws = {
    "record": np.zeros_like(image),
    "key of record 0": noise_of(one, image),
    "same key again": noise_of(one, image),
    "key of record 1": noise_of(other, image),
}

figure, panels = plt.subplots(1, 4, figsize=(7, 2))
for panel, (name, noise) in zip(panels, draws.items(), strict=True):
    panel.imshow((image + noise)[..., 0], cmap="gray_r", vmin=-2, vmax=2)
    panel.set_title(name)
    panel.set_axis_off()
plt.show()

# %%
noisy_model = model.clone(perturbation=rp.Additive(GAMMA))
perturbed = rp.fit(rp.supervised(noisy_model, sgd), pool, lists=who.members, **training)


def answer(companions, seed=0):
    """Class probabilities of record 0, asked together with these others."""
    batch = pool.take([0, *companions])
    return np.exp(rp.answers(perturbed.learner, perturbed.state, batch, seed=seed)[0])


first = answer(companions=range(1, 32))
for what, again in {
    "asked again": answer(range(1, 32)),
    "other companions": answer(range(40, 71)),
    "another seed": answer(range(1, 32), seed=1),
}.items():
    print(f"{what:<17} largest change of a probability {abs(again - first).max():.1e}")

# %% [markdown]
# ## Evaluate
#
# An accuracy comes with its exact 95 % interval. A perturbed net can be asked as it was
# trained, several times with the answers averaged, or with its noise switched off.

# %%
queries = {
    "one noisy answer": rp.Query(),
    "mean of 8": rp.Query(draws=8),
    "noise switched off": rp.Query(noise=False),
}
for name, query in queries.items():
    print(f"{name:<20}", perturbed.evaluate(data.test, query))

# %% [markdown]
# ## What is proved
#
# About this net: nothing. Noise on the blocks comes after the first layers, and they
# are trained on the clean image; their gradient shows it for every γ.

# %%
print(perturbed.guarantee(delta=1e-5))

# %% [markdown]
# What can be proved rests on noise on the *input*. If every image is seen only as
# `image + π n`, everything computed from it is μ-GDP with μ = diameter / π, when one
# draw per record is kept for the whole training. The diameter is the largest distance
# of two images: here 64 pixels in [-1, 1], so 16. The guarantee is about the weights;
# their owner may then answer without noise.

# %%
diameter = rp.privacy.residual.box_diameter(64, -1, 1)
meaningful = rp.privacy.residual.input_noise_for(
    epsilon=4.0, delta=1e-5, diameter=diameter, draw="record"
)
print("    π      μ        ε  test accuracy")
for noise in (1.0, meaningful):
    inputs = rp.Inputs(noise=noise)
    learner = rp.supervised(noisy_model, sgd, inputs, draw="record")
    run = rp.fit(learner, pool, lists=who.members, **training)
    proof = run.guarantee(delta=1e-5)
    accuracy = run.evaluate(data.test, rp.Query(noise=False))
    print(f"{noise:5.1f}  {proof.mu:5.2f}  {proof.epsilon:7.1f}  {accuracy}")

# %%
print(proof)

# %% [markdown]
# So there is a real theorem, and it is expensive: with the ε of the last line this net
# learns next to nothing from so few records. At noise that leaves the net useful the
# figure promises little, and whatever protection there is has to be measured.

# %% [markdown]
# ## Attack
#
# Four attacks try to tell members from non-members. Each is tuned on two shadow models
# that were trained exactly like the target, whose members are known. AUC 0.5 is a
# guess. T1 is one answer of the deployed model; at T4 the attacker has the weights and
# switches the noise off.

# %%
plain_bank = rp.attacks.shadows(plain.learner, pool, who, **training)
perturbed_bank = rp.attacks.shadows(perturbed.learner, pool, who, **training)
quiet = rp.Query(noise=False)
settings = {
    "Plain": rp.attacks.expose(plain, plain_bank, pool),
    "Strategy I, T1": rp.attacks.expose(perturbed, perturbed_bank, pool),
    "Strategy I, T4": rp.attacks.expose(perturbed, perturbed_bank, pool, quiet),
}
print(f"{'':<15} {'attack':<17} {'AUC':<24} members found at 1 % false alarms")
for setting, found in settings.items():
    for name, exposure in found.items():
        share = f"{exposure.tpr(0.01).tpr:.1%}"
        print(f"{setting:<15} {name:<17} {exposure.auc!s:<24} {share}")


# %% [markdown]
# The curves below have logarithmic axes, because what matters is how many members can
# be named with few false accusations: the left edge. Loss and confidence agree wherever
# the net is right.


# %%
def draw_roc(axes, curves):
    """ROC curves on logarithmic axes; zero lies on the edge."""
    low = 1 / len(who.non_members)
    styles = zip(COLOURS, (3.2, 2.2, 1.4, 0.8), strict=True)
    for (colour, width), (name, exposure) in zip(styles, curves.items(), strict=False):
        fpr, tpr = rp.intervals.roc(exposure.member_scores, exposure.non_member_scores)
        fpr, tpr = np.maximum(fpr, low), np.maximum(tpr, low)
        axes.step(fpr, tpr, where="post", color=colour, lw=width, label=name)
    axes.plot([low, 1], [low, 1], color="0.6", linewidth=0.8, label="guessing")
    axes.set(xscale="log", yscale="log", xlim=(low, 1), ylim=(low, 1))
    axes.set(xlabel="false-positive rate", ylabel="true-positive rate")
    axes.legend(loc="lower right")


figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
draw_roc(left, settings["Plain"])
left.set_title("Plain: four attacks")
draw_roc(right, {name: found["loss"] for name, found in settings.items()})
right.set_title("Loss attack: three settings")
plt.show()

# %% [markdown]
# Accuracy against the AUC of the strongest attack, with 95 % intervals; up and left is
# better.

# %%
accuracies = {
    "Plain": plain.evaluate(data.test),
    "Strategy I, T1": perturbed.evaluate(data.test),
    "Strategy I, T4": perturbed.evaluate(data.test, quiet),
}


def bar(estimate):
    """How far an interval reaches below and above its value."""
    return [[estimate.value - estimate.low], [estimate.high - estimate.value]]


figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
for colour, (name, found) in zip(COLOURS, settings.items(), strict=False):
    x = max((exposure.auc for exposure in found.values()), key=lambda auc: auc.value)
    y = accuracies[name]
    axes.errorbar(
        x.value, y.value, bar(y), bar(x), "o", color=colour, label=name, capsize=2
    )
axes.axvline(0.5, color="0.6", linewidth=0.8)
axes.set(xlabel="AUC of the strongest attack (0.5 = guessing)", ylabel="test accuracy")
figure.legend(loc="outside right center")
plt.show()

# %% [markdown]
# ## What to take home
#
# - The noise of a forward pass protects answers. Whoever holds the weights switches it
#   off (T4), and only what the noise did to training is left.
# - An attack that succeeds shows a leak. An attack that fails shows that this attack
#   failed; these four are simple ones.
# - A proof needs noise on the input, and never covers labels or whether a record was
#   there. See `docs/guarantees.md` and `docs/attacks.md`.
# - Look at the intervals before the values: with 200 members an AUC is known to about
#   ±0.05, so a difference of a few hundredths between two nets is no finding.
#
# The full comparison with ensembles and DP-SGD is one command: `rpjax compare`.

# %%
for name, version in environment.versions().items():
    print(f"{name:<15} {version}")
