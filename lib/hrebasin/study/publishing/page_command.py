"""Temporary."""

import argparse
import sys
from pathlib import Path

from ...files import only_writer
from .page import redraw
from .publish import publish


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m hrebasin.study.publishing.page", description=__doc__.splitlines()[0]
    )
    parser.add_argument("action", choices=("figures", "publish"))
    parser.add_argument("source", type=Path, help="data sets: published ones, or a run's folder for publish")
    parser.add_argument("target", type=Path, help="folder to write to")
    parser.add_argument("--images", default="", help="for publish: what readers are told of the images")
    parser.add_argument("--add", action="store_true", help="for publish: beside the groups that are there")
    given = parser.parse_args(arguments)
    try:
        with only_writer(given.target):
            if given.action == "figures":
                redraw(given.source, given.target)
            else:
                publish(given.source, given.target, source=given.images, add=given.add)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
