"""Print the lower bounds in pyproject.toml as pip constraints, to install exactly the oldest allowed releases."""

import re
import tomllib
from pathlib import Path

requirements = tomllib.loads(Path("pyproject.toml").read_text())["project"]["dependencies"]
for requirement in requirements:
    name, lowest = re.fullmatch(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", requirement).groups()
    print(f"{name}=={lowest}")
