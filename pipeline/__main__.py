"""`python -m pipeline` is `pipeline`."""

from .cli import main

main(prog_name="pipeline")
