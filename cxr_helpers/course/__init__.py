"""The glue of the course: a folder for each chapter, and `core` for what all of them need."""

from importlib.util import find_spec

_BROUGHT = ("ipywidgets", "matplotlib", "nbformat", "psutil", "seaborn", "torchxrayvision")
if _missing := [name for name in _BROUGHT if find_spec(name) is None]:
    raise ImportError(
        f"the course needs {', '.join(_missing)}, which its extra brings: in the course's folder "
        "run  python -m pip install -c constraints.txt -e '.[course]'  (the helpers need no extra)"
    )
