"""Print the lower bounds of pyproject.toml as constraints for pip: exactly the oldest releases that are allowed."""

import re
import tomllib
from pathlib import Path

requirements = tomllib.loads(Path("pyproject.toml").read_text())["project"]["dependencies"]
for requirement in requirements:
    name, lowest = re.fullmatch(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", requirement).groups()
    print(f"{name}=={lowest}")
