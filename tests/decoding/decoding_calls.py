"""Where in the packages bytes or JSON are decoded, by what is called there."""

import ast
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType

ROOT = Path(__file__).parents[2]
PACKAGES = ("client", "deployment", "personalization", "server", "simulations", "strategies")
# The last two parts of the name of a call, or the last alone.
CALLS = frozenset(
    {
        "json.loads",
        "json.load",
        "tomllib.loads",
        "tomllib.load",
        "np.load",
        "np.fromfile",
        "np.frombuffer",
        "npy.read_array",
        "Image.open",
        "torch.load",
        "onnx.load",
        "load_pem_private_key",
        "load_pem_public_key",
        "load_pem_x509_certificate",
        "load_ssh_private_key",
        "b64decode",
        "fromhex",
        "from_bytes",
        "from_json",
        "unpack",
        "unpack_from",
        "iter_unpack",
        "FromString",
        "ParseFromString",
        "message_from_proto",
        "inflate",
    }
)
Place = tuple[str, int]


def decoding_functions() -> dict[Place, str]:
    """The functions that decode, by file and first line, as `path::name`."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            for function in decoding_in(path.read_text()):
                first = min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)])
                found[name, first] = f"{name}::{function.name}"
    return found


def decoding_in(source: str) -> Iterator[ast.FunctionDef]:
    """The innermost functions of a module with such a call in them."""
    module = ast.parse(source)
    calls = CALLS | set(_from_safetensors(module))
    for function in ast.walk(module):
        if isinstance(function, ast.FunctionDef) and any(_decodes(node, calls) for node in _own(function)):
            yield function


def called_functions(work: Callable[[], object]) -> set[Place]:
    """Do something, and return the functions of the packages that were called meanwhile."""
    seen: set[CodeType] = set()

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            seen.add(frame.f_code)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    inside = [code for code in seen if code.co_filename.startswith(f"{ROOT}/")]
    return {(Path(code.co_filename).relative_to(ROOT).as_posix(), code.co_firstlineno) for code in inside}


def _own(function: ast.FunctionDef) -> Iterator[ast.AST]:
    """What is in a function, without what is in functions inside it."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        if not isinstance(node, ast.FunctionDef):
            yield node
            waiting += ast.iter_child_nodes(node)


def _from_safetensors(module: ast.Module) -> Iterator[str]:
    """Names under which a module has imported what reads this format."""
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "safetensors":
            yield from (alias.asname or alias.name for alias in node.names if not alias.name.startswith("save"))


def _decodes(node: ast.AST, calls: frozenset[str]) -> bool:
    if not isinstance(node, ast.Call):
        return False
    parts = ast.unparse(node.func).split(".")
    return not calls.isdisjoint({parts[-1], ".".join(parts[-2:])})
