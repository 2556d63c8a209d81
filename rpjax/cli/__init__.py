"""The command line: a command is a frozen dataclass and a function that runs it."""

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from rpjax.cli import frameworks
from rpjax.errors import FailedElsewhere, InputError, Preempted

COMMANDS = {
    "compare": "train five ways, attack each, prove what can be proved, and report",
    "train": "train by one method",
    "evaluate": "accuracy of what was trained",
    "attack": "attack what was trained",
    "audit": "plant canaries, attack models by the hundred, bound epsilon from below",
    "account": "what a training would guarantee, without training",
    "plan": "what a training would take: steps, memory and time, without training",
    "features": "noise once on public features: accuracy against a proved epsilon",
    "verify": "prove by experiment that DP-SGD's training is what it claims",
    "compare-frameworks": "train alike in other frameworks; needs a source checkout",
    "data": "check image files, prepare them for many trainings, make some up",
    "report": "write the tables and pictures of a run or an audit again",
    "sweep": "write one configuration for each point of a grid of settings",
    "job": "run one job of a sweep, or go on with it",
    "merge": "put a sweep's finished jobs together",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        0 if it worked, 1 if a verification failed, 2 for bad input, 75 if it was told
        to stop by SIGTERM and saved where it was, 130 if it was interrupted.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(_overview())
        return 0
    if argv[0] == "--version":
        from rpjax.version import __version__

        print(f"rpjax {__version__}")
        return 0
    if argv[0] not in COMMANDS:
        return _failed(f"{argv[0]!r} is no command; known: {', '.join(COMMANDS)}")
    try:
        if argv[0] == frameworks.NAME:
            return frameworks.run(argv[1:])
        from rpjax.cli import commands  # slow: brings the rest

        keep_programs()
        return commands.run(argv[0], argv[1:])
    except FailedElsewhere:
        return 2  # the process that failed says why
    except Preempted as error:
        return commands.preempted(str(error))
    except (InputError, OSError) as error:
        return _failed(str(error))
    except KeyboardInterrupt:
        print("\nrpjax: interrupted; go on with --resume", file=sys.stderr)
        return 130


def keep_programs() -> None:
    """Keep compiled programs for the next command, unless the user says where or not.

    In ~/.cache/rpjax, or where JAX_COMPILATION_CACHE_DIR says; empty, it keeps none.
    Importing rpjax sets nothing.
    """
    import jax

    named = os.environ.get("JAX_COMPILATION_CACHE_DIR") is not None
    if named or jax.config.jax_compilation_cache_dir:
        return
    home = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    jax.config.update("jax_compilation_cache_dir", str(Path(home) / "rpjax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def program() -> int:
    """What the console script does: `main`, and an end that keeps nobody waiting."""
    try:
        code = main()
    except Exception:
        if not _several():
            raise
        traceback.print_exc()
        code = 1
    if code and _several():
        from rpjax import distributed

        distributed.leave(code)
    return code


def _several() -> bool:
    distributed = sys.modules.get("rpjax.distributed")
    return distributed is not None and distributed.joined()


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = (f"  {name:<{width}}  {what}" for name, what in COMMANDS.items())
    return "\n".join(
        [
            "usage: rpjax COMMAND [options]",
            "",
            "Train private image models by residual perturbation and by DP-SGD; say",
            "what is proved, what an attacker learns and what it costs.",
            "",
            *lines,
            "",
            "rpjax COMMAND --help explains a command. Start with: rpjax compare",
        ]
    )


def _failed(message: str) -> int:
    print(f"rpjax: error: {' '.join(message.split())}", file=sys.stderr)
    return 2
