#!/usr/bin/env python3
"""The table of compare.sh, from the files that its runs left in a folder."""
import argparse
import glob
import json
import os
import statistics

MIB = 1 << 20


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--title", required=True)
    parser.add_argument("--notes", required=True)
    parser.add_argument("--options", required=True)
    parser.add_argument("--max-ram", required=True)
    parser.add_argument("--kept-ram", required=True)
    args = parser.parse_args()
    options = len(args.options.split(","))
    kept, streamed, in_ram = (runs_of(args.folder, kind) for kind in ("kept", "streamed", "in-ram"))
    rooflines = [roofline_of(args.folder, number + 1) for number in range(len(streamed))]

    print(f"{args.title}  \n{args.notes}\n")
    print("Three numbers are the least, the median and the greatest over the rounds. Peaks leave out what lies in tmpfs.\n")
    print("| run | peak MiB | s per option | / 8 FLOP | / 6 FLOP | / 8 FLOP from memory | / 6 FLOP from memory | in products | stalled "
          "| GB read | GB from disk | spill GB |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for name, runs in ((f"activations kept, --max-ram {args.kept_ram}", kept), (f"--max-ram {args.max_ram}", streamed), ("the same, files in tmpfs", in_ram)):
        middle = sorted(runs, key=lambda run: run["total_s"])[len(runs) // 2]
        seconds = [run["total_s"] / options for run in runs]
        print(f"| {name} | {max(run['peak_rss_bytes'] for run in runs) / MIB:.0f} | {spread(seconds)} | {ratios(seconds, rooflines)} | "
              f"{100 * middle['product_share']:.0f}% | {100 * middle['stall_share']:.1f}% | "
              f"{middle['read_bytes'] / 1e9:.2f} | {middle['disk_read_bytes'] / 1e9:.2f} | {middle['spill_bytes'] / 1e9:.2f} |")
    for path in sorted(glob.glob(os.path.join(args.folder, "reference-*.json"))):
        print(reference_row(args.folder, path))
    for name, runs in (("the same with files in tmpfs", in_ram), ("activations kept", kept)):
        print(f"\nStreamed against {name}, round by round, speed: {spread([a['total_s'] / b['total_s'] for a, b in zip(runs, streamed)])}.")
    median = {key: statistics.median(roofline[key] for roofline in rooflines) for key in rooflines[0] if key != "dtype"}
    disk = median["disk_bytes_per_s"]
    read_s = f"{streamed[0]['read_bytes'] / disk:.1f} s" if disk else "unknown"
    print(f"Products alone, one option, medians: 8 FLOP {median['seconds_8_flop']:.1f} s ({median['flops_8'] / 1e12:.1f} TFLOP), 6 FLOP "
          f"{median['seconds_6_flop']:.1f} s ({median['flops_6'] / 1e12:.1f} TFLOP), {median['gflops_per_s']:.0f} GFLOP/s with "
          f"{median['threads']} threads; of matrices that come from memory, as layers do, {median['uncached_seconds_8_flop']:.1f} s and "
          f"{median['uncached_seconds_6_flop']:.1f} s. Disk: {disk / 1e9:.2f} GB/s, so the streamed run's bytes alone take {read_s}, all options "
          f"together. Streamed: planned peak {streamed[0]['planned_peak_bytes'] / MIB:.0f} MiB, planned and read "
          f"{streamed[0]['planned_read_bytes']} and {streamed[0]['read_bytes']} bytes.")


def reference_row(folder, path):
    name = os.path.basename(path)[len("reference-"):-len(".json")]
    run = json.load(open(path)) if os.path.getsize(path) else {"error": "no result"}
    if "error" in run:
        return f"| AutoRound, {name} | failed: {run['error'][:80]} | | | | | | | | | | |"
    seconds, roofline = run["seconds_per_option"], roofline_of(folder, name)
    return (f"| AutoRound {run['version']}, {name} ({run['dtype']}) | {run['peak_rss_bytes'] / MIB:.0f} | {spread(seconds)} | "
            f"{ratios(seconds, [roofline] * len(seconds))} | | | {run['read_call_bytes'] / 1e9:.2f} | {run['disk_read_bytes'] / 1e9:.2f} | |")


def roofline_of(folder, name):
    """Measured in round `name`, or beside that run of the reference."""
    with open(os.path.join(folder, f"roofline.{name}.json")) as file:
        return json.load(file)


def runs_of(folder, name):
    number = lambda path: int(path.split(".")[-2])
    return [json.load(open(path))["run"] for path in sorted(glob.glob(os.path.join(folder, f"{name}.*.json")), key=number)]


def spread(values):
    return " / ".join(f"{value:.3g}" for value in (min(values), statistics.median(values), max(values)))


def ratios(seconds, rooflines):
    """Of each run to the products that were measured beside it."""
    return " | ".join(spread([s / roofline[f"{kind}seconds_{flop}_flop"] for s, roofline in zip(seconds, rooflines)])
                      for kind in ("", "uncached_") for flop in (8, 6))


if __name__ == "__main__":
    main()
