import subprocess
import sys


def test_the_protocol_needs_neither_flower_nor_torch() -> None:
    program = (
        "import sys, strategies.secure_aggregation.client, strategies.secure_aggregation.server; "
        "print(sorted({'flwr', 'torch', 'ray', 'transformers', 'scipy'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
