"""The command `trueup`; `python -m reconciler` is the same."""

import sys


def main() -> None:
    """Run the command, or say what is missing where only the agent's own dependencies are installed."""
    try:
        from reconciler.cli import main as run
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("", "agent", "reconciler", "schema"):
            raise
        sys.stderr.write(
            f"error: trueup needs {missing}, and only what the agent needs is installed here; "
            "run in a checkout: pip install '.[reconciler]'\n"
        )
        sys.exit(1)
    run()


if __name__ == "__main__":
    main()
