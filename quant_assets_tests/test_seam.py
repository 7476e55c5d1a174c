"""The seam is a file name: who may import Dagster, what may be imported at the top, who may read the environment."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import quant_assets
from quant_assets.settings import Settings

PACKAGE = Path(quant_assets.__file__).parent
IN_STAGES, AT_THE_TOP = {"assets.py", "checks.py", "sensors.py"}, {"definitions.py", "resources.py", "partitions.py", "cli.py", "assets.py"}
HEAVY = {
    "pandas",
    "lightgbm",
    "catboost",
    "mlflow",
    "sklearn",
    "matplotlib",
    "hmmlearn",
    "gluonts",
    "optuna",
    "torch",
    "statsmodels",
    "prophet",
    "cmdstanpy",
}
SOURCES = {path.relative_to(PACKAGE): ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}


def imported(tree: ast.AST, everywhere: bool) -> Iterator[str]:
    """The packages that a module imports: everywhere, or when it is loaded (not in functions, nor for type checkers)."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield str(node.module).partition(".")[0]
        elif everywhere or not (isinstance(node, ast.FunctionDef) or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))):
            yield from imported(node, everywhere)


def environment_reads(tree: ast.Module) -> Iterator[str]:
    """The variables that a module reads from the environment, constants of the module resolved."""
    constants = {
        node.targets[0].id: node.value for node in tree.body if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    for node in ast.walk(tree):
        key: ast.expr | None = None
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load) and ast.unparse(node.value).endswith("environ"):
            key = node.slice
        elif isinstance(node, ast.Call) and node.args and ast.unparse(node.func).endswith(("getenv", "environ.get", "environ.pop")):
            key = node.args[0]
        if key is not None:
            yield ast.literal_eval(constants.get(key.id, key) if isinstance(key, ast.Name) else key)


class TestProperties:
    def test_dagster_is_imported_at_the_seam_only(self) -> None:
        at_the_seam = {path for path in SOURCES if path.name in (AT_THE_TOP if len(path.parts) == 1 else IN_STAGES)}
        users = {path for path, tree in SOURCES.items() if any(name.startswith("dagster") for name in imported(tree, everywhere=True))}
        assert users
        assert users - at_the_seam == set()

    def test_heavy_libraries_are_imported_inside_functions(self) -> None:
        assert {str(path): found for path, tree in SOURCES.items() if (found := HEAVY & set(imported(tree, everywhere=False)))} == {}

    def test_settings_are_read_from_the_environment_in_one_place(self) -> None:
        names = {f"{prefix}{name.upper()}" for name in Settings.model_fields for prefix in ("QUANT_", "")}
        reads = {str(path): set(environment_reads(tree)) & names for path, tree in SOURCES.items() if path != Path("settings.py")}
        assert {path: found for path, found in reads.items() if found} == {}


class TestRegression:
    def test_what_the_tests_look_for_is_found_where_it_is(self) -> None:
        planted = ast.parse(
            "import os\nfrom dagster_dbt import x\nNAME = 'QUANT_HOME'\nif True:\n    import pandas\n"
            "def f():\n    import mlflow.lightgbm\n    return os.environ[NAME], os.environ.get('HOME'), os.getenv('QUANT_START', '')\n"
        )
        assert set(imported(planted, everywhere=False)) == {"os", "dagster_dbt", "pandas"}
        assert set(imported(planted, everywhere=True)) == {"os", "dagster_dbt", "pandas", "mlflow"}
        assert set(environment_reads(planted)) == {"QUANT_HOME", "HOME", "QUANT_START"}
