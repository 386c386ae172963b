"""Prints the root hash of a model: `python -m deployment.serve.model MODEL`."""

import sys

from deployment.command import model_id
from personalization.errors import UserError


def main(model: str) -> int:
    """Print the hash and return 0, or one line of what is wrong and return 2."""
    try:
        print(model_id(model))
    except UserError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
