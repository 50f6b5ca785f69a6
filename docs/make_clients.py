"""Makes typed clients from docs/openapi.json, into .clients/: a package for Python, and a file of types for TypeScript.

    make clients

They are not kept in the repository: the document is. The npm packages are pinned in docs/clients/package-lock.json.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "openapi.json"
PACKAGES = ROOT / "docs" / "clients"


def python(folder: Path) -> Path:
    """The package `reelworks_client` in this folder; it needs `httpx` and `attrs`."""
    tools = Path(sys.executable).parent
    made = folder / "reelworks_client"
    words = ["generate", "--path", str(DOCUMENT), "--meta", "none", "--output-path", str(made)]
    subprocess.run(
        [tools / "openapi-python-client", *words, "--overwrite", "--fail-on-warning"],
        check=True,
        env={**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ.get('PATH', '')}"},  # it formats by ruff
    )
    return made


def typescript(folder: Path) -> Path:
    """`reelworks.ts` in this folder, beside the compiler. Raises CalledProcessError if npm can't install them."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in PACKAGES.iterdir():
        shutil.copy(path, folder)
    subprocess.run(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=folder, check=True)
    made = folder / "reelworks.ts"
    words = [str(DOCUMENT), "--output", str(made), "--default-non-nullable", "false"]
    subprocess.run([folder / "node_modules/.bin/openapi-typescript", *words], cwd=folder, check=True)
    return made


if __name__ == "__main__":
    for made in (python(ROOT / ".clients" / "python"), typescript(ROOT / ".clients" / "typescript")):
        print(made.relative_to(ROOT))
