"""``python -m seipd.agent`` is ``seip``."""

from seipd.agent.main import main

main()
