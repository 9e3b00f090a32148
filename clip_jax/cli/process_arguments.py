"""Options of commands that run as several processes."""

import argparse


def add_process_arguments(parser: argparse.ArgumentParser, description: str) -> None:
    """Adds --coordinator, --processes and --process, of which all or none are given."""
    several = parser.add_argument_group("several processes", description)
    several.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 listens for the others")
    several.add_argument("--processes", metavar="N", type=int, help="how many there are")
    several.add_argument("--process", metavar="I", type=int, help="which this one is, from 0 to N - 1")
