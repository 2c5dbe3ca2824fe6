"""The rules of the house: what the source may not contain, how large it may get, who may import whom."""

import ast
import io
import os
import pickle
import re
import subprocess
import sys
import zipfile
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from forecart import artifacts
from forecart.errors import ArtifactError
from forecart.sequences.histories import Histories

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
MAX_FUNCTION_LINES, MAX_FILE_LINES = 60, 400

FORBIDDEN_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
FORBIDDEN_CALLS = {
    "eval",
    "exec",
    "torch.load",
    "torch.jit.load",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "pandas.read_pickle",
    "pd.read_pickle",
}


def is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def find_breaches(source: str) -> list[str]:
    """What of row S1 a module breaks, as `line: what`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [
                (node, name.name) for name in node.names if name.name.split(".")[0] in FORBIDDEN_MODULES
            ]
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{name.name}" for name in node.names}
            is_module = (node.module or "").split(".")[0] in FORBIDDEN_MODULES
            found += [(node, name) for name in sorted(names) if is_module or name in FORBIDDEN_CALLS]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in FORBIDDEN_CALLS:
            found.append((node, ast.unparse(node.func)))
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle" and not is_false(node.value):
            found.append((node.value, "allow_pickle"))
    return [f"{node.lineno}: {what}" for node, what in found]


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "import joblib.memory",
        "from pickle import loads",
        "from torch import load",
        "torch.load(path)",
        "torch.load(path, weights_only=True)",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=is_trusted)",
        "eval(text)",
        "yaml.load(text)",
    ],
)
def test_the_check_finds_what_it_is_there_for(line):
    assert find_breaches(f"x = 1\n{line}\n")


def test_the_check_leaves_the_rest_alone():
    assert not find_breaches("model.eval()\nnp.load(path, allow_pickle=False)\njson.load(handle)\n")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT / "src").as_posix())
def test_nothing_in_the_source_can_run_what_it_reads(path):
    assert find_breaches(path.read_text(encoding="utf-8")) == []


class Exploit:
    """Its unpickling creates a file."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self):
        return (Path.touch, (self.proof,))


def pickled(proof):
    return pickle.dumps(Exploit(proof))


def pickled_array(proof):
    handle = io.BytesIO()
    np.save(handle, np.array([Exploit(proof)], dtype=object), allow_pickle=True)
    return handle.getvalue()


def torch_archive(proof):
    """A `.pt` file: a zip with a pickle in it."""
    handle = io.BytesIO()
    with zipfile.ZipFile(handle, "w") as archive:
        archive.writestr("archive/data.pkl", pickled(proof))
        archive.writestr("archive/version", "3")
    return handle.getvalue()


def npz_archive(proof):
    handle = io.BytesIO()
    with zipfile.ZipFile(handle, "w") as archive:
        archive.writestr("values.npy", pickled_array(proof))
    return handle.getvalue()


def safetensors_bomb(proof):
    """A header that claims to be 2^62 bytes long."""
    return (1 << 62).to_bytes(8, "little") + b'{"weight": {}}'


def array_with_code_for_a_header(proof):
    """Format 1.0 with an expression where the dictionary should be."""
    header = f"__import__('pathlib').Path({str(proof)!r}).touch()".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


def cut_array(proof):
    handle = io.BytesIO()
    np.save(handle, np.arange(1000))
    return handle.getvalue()[:500]


def array_larger_than_the_disk(proof):
    header = b"{'descr': '<i8', 'fortran_order': False, 'shape': (1152921504606846976,), }".ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


MALICIOUS = [
    pickled,
    pickled_array,
    torch_archive,
    npz_archive,
    safetensors_bomb,
    array_with_code_for_a_header,
    cut_array,
    array_larger_than_the_disk,
]


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("make", MALICIOUS)
def test_malicious_files_are_refused_and_run_nothing(tmp_path, make):
    proof, path = tmp_path / "proof", tmp_path / "start.npy"
    path.write_bytes(make(proof))
    with pytest.raises(ArtifactError, match=r"start\.npy"):
        artifacts.read_npy(path)
    with pytest.raises(ArtifactError):
        Histories.load(tmp_path)
    assert not proof.exists()


def overlapping_tensors(proof):
    """Two names for the same bytes."""
    one = '{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
    header = f'{{"a":{one},"b":{one}}}'.encode()
    return len(header).to_bytes(8, "little") + header + bytes(8)


def tensor_beyond_the_file(proof):
    header = b'{"a":{"dtype":"F32","shape":[1024],"data_offsets":[0,4096]}}'
    return len(header).to_bytes(8, "little") + header + bytes(8)


@pytest.mark.skipif(find_spec("forecart.training.checkpoint") is None, reason="nothing reads weights yet")
@pytest.mark.parametrize(
    "make",
    [pickled, torch_archive, npz_archive, safetensors_bomb, overlapping_tensors, tensor_beyond_the_file],
)
def test_malicious_weights_are_refused_and_run_nothing(tmp_path, make):
    checkpoint = import_module("forecart.training.checkpoint")
    proof, path = tmp_path / "proof", tmp_path / "state.safetensors"
    path.write_bytes(make(proof))
    with pytest.raises(ArtifactError, match="safetensors"):
        checkpoint.read_tensors(path)
    assert not proof.exists()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT / "src").as_posix())
def test_functions_and_files_stay_small(path):
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= MAX_FILE_LINES
    functions = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    lengths = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}
    assert {name: length for name, length in lengths.items() if length > MAX_FUNCTION_LINES} == {}


def lint_imports(root):
    command = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [command, "--config", ROOT / ".importlinter", "--no-cache", "--no-logo"],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("events/ingest.py", "import forecart.sequences.build", "A stage imports earlier stages only"),
        ("metrics/ranking.py", "import forecart.events.schema", "A stage imports earlier stages only"),
        ("columns.py", "import forecart.metrics.ranking", "A stage imports earlier stages only"),
        ("surprise.py", "", "A stage imports earlier stages only"),
        ("evaluation/tables.py", "import torch", "import torch"),
        ("baselines/ease.py", "import forecart.model.losses", "never reaches torch"),
        ("model/losses.py", "import pathlib", "tensors and arrays only"),
    ],
)
def test_the_import_rules_hold_and_are_seen_to_be_broken(tmp_path, module, line, contract):
    for path in SOURCES:
        copy = tmp_path / path.relative_to(ROOT / "src")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    broken = tmp_path / "forecart" / module
    broken.write_text((broken.read_text() if broken.exists() else "") + f"\n{line}\n")
    result = lint_imports(tmp_path)
    verdicts = " ".join(result.stdout.split())
    assert result.returncode == 1, result.stdout + result.stderr
    assert re.search(rf"{contract}(?:(?!KEPT|BROKEN).)*BROKEN", verdicts), verdicts
    assert f"forecart.{module.removesuffix('.py').replace('/', '.')}" in verdicts


def test_what_serving_stands_on_loads_no_torch():
    rooms = ["events.ingest", "sequences.build", "metrics.ranking", "artifacts", "columns", "errors"]
    rooms += ["serving.app", "serving.server", "publish.redis_store"]
    code = ";".join(f"import forecart.{room}" for room in rooms)
    code += ";import sys; print(sorted({'torch', 'scipy', 'sklearn', 'safetensors'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def tracked_files():
    result = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if result.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in result.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def test_no_path_of_somebody_s_machine_is_in_the_repository():
    pattern = re.compile(r"(?<![\w./:-])/(?:home|root|Users|mnt|srv|work|workspace|scratch)/\w|\.\./shared\b")
    found = []
    for path in tracked_files():
        text = path.read_bytes().decode("utf-8", errors="replace")
        found += [f"{path.relative_to(ROOT)}: {match.group()}" for match in pattern.finditer(text)]
    assert found == []


def test_the_lock_pins_everything_and_runs_without_an_accelerator():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert pins and all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!]+", pin) for pin in pins)
    assert "torch==2.13.0" in pins
    assert not [pin for pin in pins if re.match(r"nvidia|cuda|triton", pin)]


def test_what_is_run_in_one_place_is_run_everywhere():
    last = (ROOT / ".ci" / "run").read_text().strip().splitlines()[-1]
    assert last == "exec make test" and os.access(ROOT / ".ci" / "run", os.X_OK)
