"""Command line: one backend in, one verdict out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from kakeya_conformance.model import SuiteUsage, all_checks
from kakeya_conformance.runner import EXAMPLES, run_checks
from kakeya_ref.errors import UsageError
from kakeya_ref.registry import codec_ids

USAGE = 2


def parser() -> argparse.ArgumentParser:
    """The options; argparse itself leaves with 2 on wrong ones."""
    p = argparse.ArgumentParser(
        prog="python -m kakeya_conformance",
        description="Does a backend read and write the Kakeya KV-cache format?",
        epilog="exit codes: 0 conforms, 1 fails, 2 usage, 3 ran fewer checks than demanded",
    )
    p.add_argument("target", nargs="?", help="module:attr, or an entry point of kakeya.backends")
    p.add_argument("--codec", action="append", default=[], choices=codec_ids(), metavar="ID")
    p.add_argument("--only", default="", metavar="TEXT", help="part of a check name or vector id")
    p.add_argument("--profile", default="quick", choices=list(EXAMPLES))
    p.add_argument("--expected", default="", metavar="FILE", help="TOML of known failures")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--json", default="", metavar="FILE", help="write the report as JSON")
    p.add_argument("--list", action="store_true", help="list the checks and leave")
    p.add_argument("--verbose", action="store_true", help="name every case as it starts")
    return p


def main(argv: Sequence[str]) -> int:
    """Run the command; returns the exit code."""
    args = parser().parse_args(argv)
    if args.list:
        for check in all_checks():
            print(f"{check.name:<52} {check.level:<8} {' '.join(check.rules)}")
        return 0
    if not args.target:
        parser().print_usage(sys.stderr)
        return USAGE
    try:
        report = run_checks(
            args.target,
            profile=args.profile,
            codecs=args.codec,
            only=args.only,
            seed=args.seed,
            expected=args.expected,
            progress=(lambda text: print(text, file=sys.stderr)) if args.verbose else None,
        )
        if args.json:
            report.write(args.json)
    except (UsageError, SuiteUsage, OSError) as error:
        print(error, file=sys.stderr)
        return USAGE
    print(report.to_text())
    if args.json:
        print(f"report   {args.json}")
    return report.exit_code
