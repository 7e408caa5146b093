"""The Hub files under other releases of transformers than the tested one: oldest supported, newest, one too old.

Usage:
    python -m tests.versions     # make versions

Each release is installed beside the environment, in `.versions/`, where it stays for the next time.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".versions"
SUPPORTED = ("5.20.0", "5.24.0")
TOO_OLD = "4.57.6"
# What a newer release will drop one day is not an error yet.
PYTEST = ["-m", "pytest", "tests/modeling", "-W", "default::FutureWarning", "-p", "no:cacheprovider"]
OLD_LOADER = """
import sys
sys.modules["modeling_rabtriever"] = None
from transformers import AutoConfig
AutoConfig.from_pretrained(sys.argv[1], trust_remote_code=True)
"""


def main() -> int:
    """Returns how many releases do not behave as they should."""
    failed = [version for version in SUPPORTED if not runs_under(version)]
    if not is_refused_by(TOO_OLD):
        failed.append(TOO_OLD)
    print(f"transformers {', '.join(SUPPORTED)} tested, {TOO_OLD} refused" if not failed else f"failed: {failed}")
    return len(failed)


def runs_under(version: str) -> bool:
    """Whether the tests of models, prompt and Hub files pass."""
    print(f"== transformers {version}", flush=True)
    installed = _installed(version, "--no-deps")
    return subprocess.run([sys.executable, *PYTEST], env=_environment(installed), cwd=ROOT, check=False).returncode == 0


def is_refused_by(version: str) -> bool:
    """Whether the first file a saved model runs says which release it needs."""
    print(f"== transformers {version}", flush=True)
    saved = FOLDER / "saved"
    saved.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "modeling_rabtriever" / "configuration_rabtriever.py", saved)
    auto_map = {"AutoConfig": "configuration_rabtriever.RabtrieverConfig"}
    (saved / "config.json").write_text(json.dumps({"model_type": "rabtriever", "auto_map": auto_map}))
    environment = {**_environment(_installed(version)), "HF_HOME": str(FOLDER / "home")}
    done = subprocess.run(
        [sys.executable, "-c", OLD_LOADER, str(saved)],
        env=environment, cwd=FOLDER, capture_output=True, text=True, check=False,
    )  # fmt: skip
    wanted = f"needs transformers >= 5.20, found {version}"
    if wanted not in done.stderr:
        print(done.stderr)
    return wanted in done.stderr


def _installed(version: str, *options: str) -> Path:
    folder = FOLDER / version
    if not folder.exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-warn-conflicts", "--target", str(folder)]
        subprocess.run([*command, *options, f"transformers=={version}"], check=True)
    return folder


def _environment(first: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(first), "OMP_NUM_THREADS": "1"}


if __name__ == "__main__":
    sys.exit(main())
