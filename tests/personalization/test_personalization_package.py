import importlib
import subprocess
import sys


def test_the_package_gives_the_function_though_a_module_has_its_name():
    importlib.import_module("personalization.pipeline")
    from personalization import personalize as found

    assert found is importlib.import_module("personalization.pipeline").personalize


def test_the_package_alone_imports_nothing_large():
    code = "import sys, personalization; sys.exit(any(name in sys.modules for name in ('torch', 'numpy')))"
    subprocess.run([sys.executable, "-c", code], check=True)
