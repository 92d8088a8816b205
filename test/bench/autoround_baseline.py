#!/usr/bin/env python3
"""Runs the reference, AutoRound's AutoScheme, on given token ids as its user would, and prints what scoring has cost as one JSON line.

Needs a Python with auto-round (pip install auto-round accelerate). Nothing of it is edited: its data loader is replaced by one
that hands out the ids, its scorer is timed from outside, and the process ends once the schemes are chosen.
"""
import argparse
import json
import os
import resource
import sys
import tempfile
import time


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--tokens", required=True, help="JSON: rows of ids, or an object whose input_ids is that")
    parser.add_argument("--options", default="W4A16,W8A16")
    parser.add_argument("--avg-bits", type=float, default=6.0)
    parser.add_argument("--nsamples", type=int, default=16)
    parser.add_argument("--seqlen", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--dtype", choices=["default", "float32"], default="default",
                        help="default: bfloat16 where the CPU has it")
    parser.add_argument("--disk-streaming", action="store_true", help="weights come block by block from the checkpoint")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="autoround-") as folder:
        # Before the import. One scheme after the other in this process: its own default of a process for each would have
        # two models in memory and share the cores.
        os.environ.update(AR_DISK_STREAM_MODEL=str(int(args.disk_streaming)), AR_ENABLE_AUTO_SCHEME_PARALLEL="0",
                          AR_DISABLE_DATASET_SUBPROCESS="1", AR_AUTO_SCHEME_CACHE=folder, AR_WORK_SPACE=folder,
                          AR_LOG_LEVEL="WARNING", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS=str(args.threads))
        result = measure(args)
    print(json.dumps(result), flush=True)
    sys.exit("error" in result)


class Chosen(BaseException):
    """The schemes are chosen; quantizing is not wanted. Not an Exception, so that no handler takes it for a failure."""


def measure(args):
    import torch
    torch.set_num_threads(args.threads)
    import auto_round
    from auto_round import AutoRound
    from auto_round.auto_scheme import delta_loss, gen_auto_scheme

    with open(args.tokens) as file:
        ids = json.load(file)
    ids = ids["input_ids"] if isinstance(ids, dict) else ids
    ids = [row[:args.seqlen] for row in ids[:args.nsamples]]
    seconds, types = [], []

    class Batches(list):
        def __init__(self):
            super().__init__()
            for first in range(0, len(ids), args.batch_size):
                rows = torch.tensor(ids[first:first + args.batch_size])
                self.append(dict(input_ids=rows, attention_mask=torch.ones_like(rows)))

    score, choose = delta_loss.get_score_for_scheme, gen_auto_scheme.GenScheme.get_layer_config

    def timed_score(*positional, **named):
        model = named["model"] if "model" in named else positional[0]
        types.append(str(next(model.parameters()).dtype).replace("torch.", ""))
        start = time.perf_counter()
        scores = score(*positional, **named)
        seconds.append(time.perf_counter() - start)
        return scores

    def choose_and_stop(generator):
        choose(generator)
        raise Chosen

    delta_loss.get_dataloader = lambda *_, **__: Batches()
    delta_loss.get_score_for_scheme = timed_score
    gen_auto_scheme.GenScheme.get_layer_config = choose_and_stop
    if not any(name.startswith("tokenizer") for name in os.listdir(args.model)):
        use_no_tokenizer()

    result = dict(version=auto_round.__version__, torch=torch.__version__, options=args.options.split(","), asked_dtype=args.dtype,
                  disk_streaming=args.disk_streaming, nsamples=len(ids), seqlen=args.seqlen, batch_size=args.batch_size,
                  threads=args.threads)
    start = time.perf_counter()
    try:
        scheme = gen_auto_scheme.AutoScheme(avg_bits=args.avg_bits, options=args.options.split(","), nsamples=args.nsamples,
                                            seqlen=args.seqlen, batch_size=args.batch_size)
        rest = dict(amp=False) if args.dtype == "float32" else {}
        AutoRound(model=args.model, scheme=scheme, device_map="cpu", enable_torch_compile=False, **rest).post_init()
        result["error"] = "scoring was never asked for"
    except Chosen:
        pass
    except Exception as error:
        result["error"] = f"{type(error).__name__}: {error}"
    with open("/proc/self/io") as file:
        io = dict(line.split(": ") for line in file)
    result.update(dtype=types[0] if types else None, total_s=time.perf_counter() - start, seconds_per_option=seconds,
                  peak_rss_bytes=1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
                  disk_read_bytes=int(io["read_bytes"]), read_call_bytes=int(io["rchar"]))
    return result


def use_no_tokenizer():
    """Models with random weights have none; the ids are given, so none is needed."""
    from transformers import AutoTokenizer

    class NoTokenizer:
        pad_token_id = eos_token_id = bos_token_id = 0
        name_or_path = "none"
        model_max_length = 1 << 20

    AutoTokenizer.from_pretrained = classmethod(lambda *_, **__: NoTokenizer())


if __name__ == "__main__":
    main()
