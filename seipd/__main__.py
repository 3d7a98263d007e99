"""``python -m seipd`` is ``seipd``."""

from seipd.cli.main import main

main()
