"""The rules that keep the packages apart and their files short, read off the source."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "personalization": set(),
    "data_loaders": set(),
    "persofl": {"personalization", "data_loaders"},
    "studies": {"personalization", "data_loaders", "persofl"},
}
HEAVY = {"mlflow", "optuna", "matplotlib"}
FOREIGN = {  # what a package may need when it is imported; all else is imported where it is used
    "personalization": {"torch", "numpy", "ot"},
    "data_loaders": {"torch", "numpy", "pandas", "pyarrow"},
    "persofl": {"torch", "numpy", "pandas", "pytorch_lightning"},
}
FILES = [path for package in MAY_IMPORT for path in sorted((ROOT / package).rglob("*.py"))]


def package_of(path):
    return path.relative_to(ROOT).parts[0]


def parse(path):
    return ast.parse(path.read_text(), str(path))


def imported(node):
    """Top-level names of absolute imports in a tree."""
    for item in ast.walk(node):
        if isinstance(item, ast.Import):
            yield from (alias.name.split(".")[0] for alias in item.names)
        elif isinstance(item, ast.ImportFrom) and item.level == 0:
            yield item.module.split(".")[0]


def at_import_time(tree):
    """Names imported when the module is, not inside a function nor for type checkers only."""

    def visit(node):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from imported(node)
        for child in ast.iter_child_nodes(node):
            yield from visit(child)

    return set(visit(tree))


def test_all_packages_are_here():
    assert {package_of(path) for path in FILES} == set(MAY_IMPORT)
    assert len(FILES) > 50


def functions(path):
    tree = parse(path)
    return [item for item in ast.walk(tree) if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef))]


def offenders(broken, files=FILES):
    """What breaks a rule, as ``file: what``."""
    return [f"{path.relative_to(ROOT)}: {what}" for path in files for what in broken(path)]


def test_imports_go_downwards():
    def upwards(path):
        own = package_of(path)
        return sorted(set(imported(parse(path))) & (set(MAY_IMPORT) - MAY_IMPORT[own] - {own}))

    assert offenders(upwards) == []


def test_inside_a_package_imports_are_relative():
    def absolute(path):
        return [own for own in imported(parse(path)) if own == package_of(path)]

    def escaping(path):
        depth = len(path.relative_to(ROOT).parts) - 1
        nodes = (item for item in ast.walk(parse(path)) if isinstance(item, ast.ImportFrom))
        return [ast.unparse(item) for item in nodes if item.level > depth]

    assert offenders(absolute) + offenders(escaping) == []


def test_only_what_a_package_is_built_on_is_imported_with_it():
    def foreign(path):
        known = set(sys.stdlib_module_names) | set(MAY_IMPORT) | FOREIGN[package_of(path)]
        return sorted(at_import_time(parse(path)) - known)

    assert offenders(foreign, [path for path in FILES if package_of(path) in FOREIGN]) == []


def test_files_are_short():
    def lines(path):
        count = len(path.read_text().splitlines())
        return [f"{count} lines"] if count > 400 else []

    assert offenders(lines) == []


def test_functions_are_short():
    """Lines of code, docstring apart."""

    def long(path):
        for item in functions(path):
            body = item.body[ast.get_docstring(item) is not None :]
            length = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            if length > 60:
                yield f"{item.name} has {length} lines"

    assert offenders(long) == []


def test_functions_have_few_arguments():
    """At most eight besides self; configuration is a dataclass."""

    def many(path):
        for item in functions(path):
            arguments = [*item.args.posonlyargs, *item.args.args, *item.args.kwonlyargs]
            own = [argument for argument in arguments if argument.arg not in ("self", "cls", "ctx")]
            if len(own) > 8:
                yield f"{item.name} has {len(own)} arguments"

    assert offenders(many) == []


def loaded_by(statement):
    code = f"{statement}; import sys; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, timeout=120
    )
    return set(done.stdout.split())


def test_importing_the_engine_stays_light():
    """Nothing heavy but what Lightning itself brings."""
    ours = loaded_by("import persofl") - loaded_by("import pytorch_lightning, torchmetrics")
    assert not ours & HEAVY
    assert "studies" not in ours


def test_distances_need_neither_lightning_nor_our_engine():
    assert not loaded_by("import personalization") & {"pytorch_lightning", "persofl", "data_loaders", *HEAVY}
    assert not loaded_by("import data_loaders") & {"pytorch_lightning", "persofl", "personalization", *HEAVY}


def test_papers_are_cited():
    """Every algorithm names its source in the head of its file; local training has none."""
    for path in sorted((ROOT / "persofl" / "algorithms").glob("*.py")):
        tree = parse(path)
        registers = [
            item
            for item in ast.walk(tree)
            if isinstance(item, ast.ClassDef)
            and any("register_algorithm" in ast.unparse(decorator) for decorator in item.decorator_list)
        ]
        for item in registers:
            assert ast.get_docstring(item), f"{item.name} needs a docstring"
            if item.name != "Local":
                assert "References:" in ast.get_docstring(tree), f"{path.name} names no paper"
        assert len(registers) <= 1, "one algorithm, one file"
