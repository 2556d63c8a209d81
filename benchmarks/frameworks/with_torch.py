"""Opacus: a net, an optimiser and a loss made private, eager, in any of its modes."""

from collections.abc import Sequence

import numpy as np
import torch
from opacus.accountants import create_accountant
from torch import nn

from benchmarks import torch_net
from benchmarks.dpsgd import with_torch
from benchmarks.frameworks.course import Course, Trainer

versions = with_torch.versions


def begin(course: Course) -> Trainer:
    """See `benchmarks.frameworks.course.Framework`."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    course.check_device(device == "cuda")
    torch.set_num_threads(course.threads)
    if device == "cuda":  # as XLA's default on such devices
        torch.set_float32_matmul_precision("high")
    torch.manual_seed(course.seed)
    images, labels = with_torch.on_device(course, device)
    net = with_torch.network(course, device)
    asked, optimiser, criterion = with_torch.private(
        course, net, with_torch.sgd(course, net), nn.CrossEntropyLoss()
    )

    def steps(batches: Sequence[np.ndarray]) -> None:
        for batch in batches:
            where = torch.from_numpy(batch).to(device)
            optimiser.zero_grad(set_to_none=True)
            pixels = torch_net.normalised(images[where], False)
            criterion(asked(pixels), labels[where]).backward()
            optimiser.step()
        torch_net.wait(device)

    def logits(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            pixels = torch_net.normalised(torch.from_numpy(images).to(device), False)
            return net(pixels).cpu().numpy()

    return Trainer(steps, logits, {})


def epsilon(course: Course, steps: int) -> tuple[float, str]:
    """See `benchmarks.frameworks.course.Framework`."""
    accountant = create_accountant("prv")
    accountant.history = [(course.noise_multiplier, course.sampling_probability, steps)]
    return float(accountant.get_epsilon(course.delta)), "PRV"
