"""Print the configuration of packages that ``olive run --package-config`` takes."""

from __future__ import annotations

import json
import sys


def main() -> int:
    """Print it and return the exit code."""
    try:
        from onnxprune.olive.passes import package_config
    except ModuleNotFoundError as error:
        sys.stderr.write(
            f"onnxprune: the pass needs Olive ({error}); install it: pip install olive-ai "
            "requests, or this package with its extra [olive]\n"
        )
        return 1
    sys.stdout.write(json.dumps(package_config(), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
