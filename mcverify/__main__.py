"""`python -m mcverify` is the command line."""

from mcverify.cli import main

main(prog_name="mcverify")
