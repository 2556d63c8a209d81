"""PyTorch without privacy, and Opacus, on PyTorch's copy of the net.

ways: "plain", or Opacus's `grad_sample_mode`: "hooks", "functorch", "ghost", "ew".
"""

import contextlib
import importlib.metadata
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks import torch_net
from benchmarks.dpsgd.task import Task, Training, apart

Step = Callable[[torch.Tensor, torch.Tensor], None]
"""(pixels, labels) -> a step of the training."""


def versions() -> dict[str, str]:
    found = {"torch": torch.__version__}
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        found["opacus"] = importlib.metadata.version("opacus")
    return found


def start(task: Task) -> Training:
    """See `benchmarks.dpsgd.task.Library`."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    task.check_device(device == "cuda")
    torch.set_num_threads(task.threads)
    if device == "cuda":  # as XLA's default on such devices
        torch.set_float32_matmul_precision("high")
    images, labels = on_device(task, device)
    batches = [torch.from_numpy(where).to(device) for where in task.batches()]
    step, _ = stepper(task, device)

    def seconds(steps: int) -> float:
        torch_net.wait(device)
        began = time.perf_counter()
        for number in range(steps):
            where = batches[number % len(batches)]
            step(torch_net.normalised(images[where], False), labels[where])
        torch_net.wait(device)
        return time.perf_counter() - began

    def peak() -> int | None:
        return torch.cuda.max_memory_allocated() if device == "cuda" else None

    return Training(seconds, 10_000, peak, {})


def clipped_sum_differs_by(task: Task) -> float:
    """See `benchmarks.dpsgd.task.Library`."""
    images, labels = on_device(task, "cpu")
    step, momenta = stepper(task, "cpu")
    step(torch_net.normalised(images, False), labels)
    sums = {name: task.batch_size * value.numpy() for name, value in momenta().items()}
    return apart(sums, torch_net.named(task.tree("expected")))


def stepper(task: Task, device: str) -> tuple[Step, Callable[[], dict[str, Any]]]:
    """A step, and what gives each parameter's momentum by its name in `named`."""
    net = network(task, device)
    parameters = dict(net.named_parameters())
    inner = sgd(task, net)
    asked, optimiser, criterion = net, inner, nn.CrossEntropyLoss()
    if task.way != "plain":
        asked, optimiser, criterion = private(task, net, inner, criterion)
    low = task.dtype == "bfloat16"

    def step(pixels: torch.Tensor, labels: torch.Tensor) -> None:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=low):
            logits = asked(pixels)
        criterion(logits.float(), labels).backward()
        optimiser.step()

    def momenta() -> dict[str, Any]:
        return {
            torch_net.plain_name(name): inner.state[parameter]["momentum_buffer"]
            for name, parameter in parameters.items()
        }

    return step, momenta


def network(task: Task, device: str) -> Any:
    shape = (task.stages, task.widths, task.classes, task.image_shape[-1])
    net = torch_net.Net(*shape, groups=task.groups, stem=task.stem)
    torch_net.load(net, task.tree("parameters"))
    return net.to(device).train()


def sgd(task: Task, net: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        net.parameters(), lr=task.learning_rate, momentum=task.momentum, fused=True
    )


def private(task: Task, net: Any, optimiser: Any, criterion: Any) -> tuple[Any, ...]:
    """Opacus's net, optimiser and loss, for batches that are always full."""
    from opacus import PrivacyEngine
    from torch.utils.data import DataLoader, TensorDataset

    # told to Opacus for the number to divide by; the batches are taken as everywhere
    size = task.batch_size
    whole = TensorDataset(torch.empty(task.records // size * size, 1))
    made = PrivacyEngine().make_private(
        module=net,
        optimizer=optimiser,
        criterion=criterion,
        data_loader=DataLoader(whole, batch_size=size),
        noise_multiplier=task.noise_multiplier,
        max_grad_norm=task.clip_norm,
        poisson_sampling=False,
        grad_sample_mode=task.way,
    )
    return (*made[:2], made[2] if task.way == "ghost" else criterion)


def on_device(task: Task, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = task.images()
    return torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device)
