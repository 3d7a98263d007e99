"""What ``programs`` has imported before it forks: all that our short commands need."""

import importlib

from seipd.cli import verify as verify
from seipd.cli.main import COMMANDS
from seipd.client import session as session

for _place, _ in COMMANDS.values():
    importlib.import_module(_place.partition(":")[0])
