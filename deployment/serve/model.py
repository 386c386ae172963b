"""Prints what a fleet has to know of its model, as JSON: `python -m deployment.serve.model MODEL`."""

import json
import sys
from dataclasses import asdict

from deployment.command import model_facts
from personalization.errors import UserError


def main(model: str) -> int:
    """Print the facts and return 0, or one line of what is wrong and return 2."""
    try:
        print(json.dumps(asdict(model_facts(model))))
    except UserError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
