"""The command line: a command is a frozen dataclass and a function that runs it."""

import sys
from collections.abc import Sequence

from rpjax.errors import InputError

COMMANDS = {
    "compare": "train five ways, attack each, prove what can be proved, and report",
    "train": "train by one method",
    "evaluate": "accuracy of what was trained",
    "attack": "attack what was trained",
    "account": "what a training would guarantee, without training",
    "data": "check image files, and prepare them for many trainings",
    "report": "write the tables and pictures of a results.json again",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 0 if it worked, 2 for bad input, 130 if interrupted."""
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
    from rpjax.cli import commands  # slow: brings the rest

    try:
        commands.run(argv[0], argv[1:])
    except (InputError, OSError) as error:
        return _failed(str(error))
    except KeyboardInterrupt:
        print("\nrpjax: interrupted; go on with --resume", file=sys.stderr)
        return 130
    return 0


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
