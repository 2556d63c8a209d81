"""One way to measure rpjax, to keep what was measured, and to draw it."""

BENCHMARKS = {
    "steps": "a step of plain training, Strategy I, Strategy II, DP-SGD: time, memory",
    "dpsgd": "DP-SGD by rpjax's engines and in other libraries, beside a plain step",
    "frameworks": "whole trainings by DP-SGD in five frameworks: curves, time an epoch",
    "pytorch": "the same ResNet in rpjax and in PyTorch, step beside step",
    "epoch": "seconds an epoch for one net, an ensemble, or a bank of shadow models",
    "ensembles": "members by mapping and convolution, against as many single runs",
    "members": "gradients of members and of single examples, outside any loop of steps",
    "input_pipeline": "JPEG files decoded by threads and processes, and how steps wait",
    "compile": "time to the first step, with an empty compilation cache and a full one",
    "scaling": "work and communication of each of 1 to 8 devices, from the program",
    "roofline": "how much of the device's measured peak a training step reaches",
    "generators": "what a Strategy I step costs by generator of its random numbers",
    "guarantees": "the noise that guarantees need, for the norms of real images",
    "reconstruction": "images from gradients and noisy features, by mechanism",
    "features": "accuracy against epsilon: noisy features, and DP-SGD beside them",
    "imbalance": "rare classes by method and loss: recalls, and an attack on each",
    "transfer": "DP-SGD from a public start: accuracy by epsilon and frozen groups",
    "noise": "what DP-SGD's noise of a step costs by its source",
}
"""Name and sentence of each; the module `benchmarks.NAME` holds it as BENCHMARK."""

ALIASES = {"compare-frameworks": "frameworks"}
