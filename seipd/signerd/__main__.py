"""``python -m seipd.signerd`` is ``seipd-signer``."""

from seipd.signerd.main import main

main()
