#!/usr/bin/env python3
"""Compares the scores of two runs over the same model, menu and calibration: for each scheme the worst and the median
relative difference of a layer's terms, and of the losses (cross entropy).

usage: compare_scores.py WANT GOT [--most PERCENT] [--model FOLDER] [--brief]

WANT and GOT are files of `autoscheme score`, or references as write_reference.py makes them. Refused, with exit status 2:
files of different models (fingerprint), calibrations, batch sizes or menus. With --most the exit status is 1 when a
difference is larger, or a number is not finite; --most 0 asks for equal bits. With --model a reference's model must be the
one in FOLDER, to its bytes. --brief prints one line, `W2A16 0.0012 % worst, 0.0003 % median; ...`.
"""
import argparse
import json
import math
import statistics
import sys

import write_reference


class Unlike(Exception):
    """The files cannot be compared."""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("want")
    parser.add_argument("got")
    parser.add_argument("--most", type=float, metavar="PERCENT")
    parser.add_argument("--model", metavar="FOLDER")
    parser.add_argument("--brief", action="store_true")
    args = parser.parse_args()
    try:
        want, got = write_reference.load(args.want), write_reference.load(args.got)
        check_alike(want, got, args)
        rows = compare(want, got)
    except (Unlike, OSError, ValueError, KeyError, TypeError) as error:
        print(f"compare_scores.py: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    if args.brief:
        print("; ".join(f"{scheme} {percent(worst)} worst, {percent(median)} median" for scheme, worst, median, _, _ in rows))
    else:
        print(f"{'scheme':16} {'worst':>12} {'median':>12} {'loss':>12}  worst layer")
        for scheme, worst, median, loss, layer in rows:
            print(f"{scheme:16} {percent(worst):>12} {percent(median):>12} {percent(loss):>12}  {layer}")
    largest = max(max(worst, loss) for _, worst, _, loss, _ in rows)
    return 0 if args.most is None or 100 * largest <= args.most else 1


def percent(share):
    return f"{100 * share:.6f} %"


def check_alike(want, got, args):
    for key in ("fingerprint", "calibration", "layers"):
        if want[key] != got[key]:
            raise Unlike(f"{key} of {args.want} is {short(want[key])}, of {args.got} {short(got[key])}")
    missing = [scheme for scheme in want["scores"] if scheme not in got["scores"]]
    if missing or not want["scores"] or not want["layers"]:
        raise Unlike(f"{args.got} has no scores of {', '.join(missing) or 'any scheme or layer'}")
    if args.model and want.get("weights") != write_reference.weights_of(args.model):
        raise Unlike(f"the weights in {args.model} are not those that {args.want} was made from")


def short(value):
    text = json.dumps(value)
    return text if len(text) < 100 else text[:97] + ".."


def compare(want, got):
    """For each scheme of `want`: name, worst, median, that of the losses, and the layer of the worst."""
    rows = []
    for scheme, terms in want["scores"].items():
        differences = []
        for term, values in terms.items():
            others = got["scores"][scheme][term]
            if len(values) != len(others) or len(values) != len(want["layers"]):
                raise Unlike(f"{scheme} has {len(values)} and {len(others)} scores")
            differences += [(relative(a, b), layer) for a, b, layer in zip(values, others, want["layers"])]
        losses, other_losses = want["ce_loss"][scheme], got["ce_loss"][scheme]
        if len(losses) != len(other_losses):
            raise Unlike(f"{scheme} has {len(losses)} and {len(other_losses)} losses")
        worst, layer = max(differences)
        loss = max((relative(a, b) for a, b in zip(losses, other_losses)), default=0)
        rows.append((scheme, worst, statistics.median(d for d, _ in differences), loss, layer))
    return rows


def relative(a, b):
    if not (isinstance(a, (int, float)) and isinstance(b, (int, float)) and math.isfinite(a) and math.isfinite(b)):
        return math.inf  # as JSON has no word for it, a number that is not finite is a string
    return 0 if a == b else abs(a - b) / max(abs(a), 1e-300)


if __name__ == "__main__":
    sys.exit(main())
