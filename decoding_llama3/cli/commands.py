"""The command line: `python -m decoding_llama3 generate|chat|info|bench|prepare|train|ablate|evaluate --help`."""

import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

import decoding_llama3 as dl
from decoding_llama3.benchmark import runs, tables
from decoding_llama3.benchmark.engines import OURS
from decoding_llama3.benchmark.huggingface import BASELINES
from decoding_llama3.benchmark.measure import FORMULAS
from decoding_llama3.benchmark.models import SHAPES
from decoding_llama3.benchmark.plan import Plan, make_plan
from decoding_llama3.benchmark.scaling import SCALING_LENGTHS
from decoding_llama3.cli.machine import info_rows
from decoding_llama3.inference.checkpoint.find import read_config
from decoding_llama3.inference.devices import best_device, choose_dtype
from decoding_llama3.inference.memory import choose_fit, name_of

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Llama 3, small enough to read.")
out, err = Console(highlight=False, soft_wrap=True), Console(stderr=True, highlight=False, soft_wrap=True)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
BENCH = (
    "Measure load, first token, prefill and decode, also as fractions of what the machine can do.\n\n"
    f"Decode: {FORMULAS['decode']}.\n\nPrefill: {FORMULAS['prefill']}.\n\n"
    "Both limits are measured before and after each engine, which runs in a process of its own."
)
CHECKPOINT = "A Hugging Face or Meta directory, or 'tiny'."
Checkpoint = Annotated[str, typer.Argument(help=CHECKPOINT)]
Tokens = Annotated[int, typer.Option("--tokens", "-n", min=0, help="New tokens at most.")]
Temperature = Annotated[float, typer.Option(min=0.0, help="0: always the most probable token.")]
TopP = Annotated[float, typer.Option(help="Draw from the smallest set with this probability, above 0, at most 1.")]
Seed = Annotated[int | None, typer.Option(help="The same seed gives the same text.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, mps; default: the fastest there is.")]
Dtype = Annotated[str | None, typer.Option(help=f"{', '.join(DTYPES)}; default: what the device does well.")]
Quantize = Annotated[str | None, typer.Option(help="int8: one byte per weight; default: if only that fits.")]
Compile = Annotated[bool, typer.Option("--compile", help="Compile the decode step: slow start, faster tokens.")]
TokenizerPath = Annotated[
    str | None, typer.Option("--tokenizer", help="tokenizer.model, 'llama3' or 'tiny'; default: the checkpoint's.")
]


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="The text to continue; '-' reads it from standard input.")],
    checkpoint: Checkpoint = "tiny",
    tokens: Tokens = 200,
    temperature: Temperature = 0.0,
    top_p: TopP = 0.9,
    seed: Seed = None,
    device: Device = None,
    dtype: Dtype = None,
    quantize: Quantize = None,
    compile: Compile = False,
    tokenizer: TokenizerPath = None,
) -> None:
    """Continue a text, printing it as it comes."""
    with one_sentence_errors():
        model, tokens_of = _load(checkpoint, tokenizer, device, dtype, quantize, compile)
        text = sys.stdin.read() if prompt == "-" else prompt
        ids = tokens_of.encode(text, bos=True)
        stream = dl.generate(model, ids, tokens, temperature, top_p, tokens_of.stop_ids, seed)
        out.print(text, end="", markup=False)
        _print_stream(tokens_of.decode_stream(stream))


@app.command()
def chat(
    checkpoint: Annotated[str, typer.Argument(help="The directory of an instruct model.")],
    system: Annotated[str | None, typer.Option(help="The system message.")] = None,
    tokens: Tokens = 512,
    temperature: Temperature = 0.6,
    top_p: TopP = 0.9,
    seed: Seed = None,
    device: Device = None,
    dtype: Dtype = None,
    quantize: Quantize = None,
    compile: Compile = False,
    tokenizer: TokenizerPath = None,
) -> None:
    """Talk with an instruct model; an empty line or Ctrl-D ends the talk."""
    with one_sentence_errors():
        if checkpoint == "tiny":
            raise ValueError("tiny has never seen a chat, only tales: use 'generate', or give an instruct model")
        model, tokens_of = _load(checkpoint, tokenizer, device, dtype, quantize, compile)
        messages = [] if system is None else [{"role": "system", "content": system}]
        while text := _ask():
            messages.append({"role": "user", "content": text})
            ids = tokens_of.encode_chat(messages)
            stream = dl.generate(model, ids, tokens, temperature, top_p, tokens_of.stop_ids, seed)
            answer = _print_stream(tokens_of.decode_stream(stream))
            messages.append({"role": "assistant", "content": answer})


@app.command()
def info(
    checkpoint: Annotated[str | None, typer.Argument(help="A checkpoint or a preset.")] = None,
    context: Annotated[int | None, typer.Option(help="Tokens of a text; default: 8192, or the context.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Texts at a time.")] = 1,
) -> None:
    """Without argument: what this machine runs and how, and what is missing. With one: what that model needs."""
    with one_sentence_errors():
        table = Table(show_header=False, box=None)
        table.add_column(style="bold", no_wrap=True)
        for name, value in info_rows(None if checkpoint is None else _config_of(checkpoint), context, batch):
            table.add_row(name, Text(value, overflow="fold"))  # as Text: rich would take [lab] for markup
        out.print(table)


@app.command(help=BENCH)
def bench(
    checkpoint: Annotated[str | None, typer.Argument(help=f"{CHECKPOINT} Default: tiny.")] = None,
    random: Annotated[
        str | None, typer.Option(help=f"Random weights of a preset, or {', '.join(SHAPES)}.")
    ] = None,
    engines: Annotated[str, typer.Option(help="Ways to run the model, in turn.")] = ",".join(OURS),
    against: Annotated[str | None, typer.Option(help=f"huggingface, or one of {', '.join(BASELINES)}.")] = None,
    device: Device = None,
    dtype: Dtype = None,
    runs: Annotated[int, typer.Option(min=1, help="Fresh processes of each engine.")] = 3,
    new_tokens: Annotated[int, typer.Option(min=1, help="Steps after each context.")] = 64,
    prompts: Annotated[str | None, typer.Option(help="Lengths; default: 128,512,2048.")] = None,
    contexts: Annotated[str | None, typer.Option(help="Lengths; default: 128,1024,4096.")] = None,
    ladder: Annotated[
        bool, typer.Option("--ladder", help="Four ways to decode: no cache, cache, compiled, int8.")
    ] = False,
    scaling: Annotated[
        bool, typer.Option("--scaling", help="Time and memory against context, depth and prompt length.")
    ] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Where all figures go.")] = None,
) -> None:
    """Measure load, first token, prefill and decode, also as fractions of what the machine can do."""
    with one_sentence_errors():
        _check_folder("--json", json_file)
        lengths = {"prompts": prompts, "contexts": contexts}
        if scaling:
            lengths = {what: text or ",".join(map(str, SCALING_LENGTHS)) for what, text in lengths.items()}
        lengths = {what: _numbers(what, text) for what, text in lengths.items() if text is not None}
        how = {"against": against, "new_tokens": new_tokens, "runs": runs} | lengths
        plan = _plan_bench(checkpoint, random, engines, device, dtype, how)
        run, tables = _bench_of(ladder, scaling)
        with err.status("starting") as status:
            result = run(plan, status.update)
        for part in tables(result):
            out.print(part)
        if json_file is not None:
            result["command"] = shlex.join(["python", "-m", "decoding_llama3", *sys.argv[1:]])
            json_file.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
            err.print(f"all figures lie in {json_file}")


@app.command()
def prepare(
    folder: Annotated[Path, typer.Argument(help="A folder of .txt files, one paragraph a line.")],
    out_folder: Annotated[Path, typer.Option("--out", help="Where the prepared files go.")],
    ranges: Annotated[Path, typer.Option(help="A CSV with columns file, first, last: the lines to keep.")],
    words: Annotated[Path, typer.Option(help="One word or phrase a line; paragraphs that have one are removed.")],
) -> None:
    """Cut front and end matter from a folder of texts and screen its paragraphs, for training."""
    from decoding_llama3.experiments import preparation

    with one_sentence_errors():
        counts = list(preparation.prepare(folder, out_folder, ranges, words))
        kept, notes, listed = (sum(count[i] for count in counts) for i in (1, 2, 3))
        err.print(
            f"{len(counts)} files in {out_folder}: {kept:,} lines; {notes:,} notes and {listed:,} lines with "
            "a listed word left out"
        )


@app.command()
def train(
    folder: Annotated[Path, typer.Argument(help="A folder of .txt files, one paragraph a line.")],
    out_folder: Annotated[Path, typer.Option("--out", help="Where checkpoints, curve and model go.")],
    held_out: Annotated[str, typer.Option(help="The file that neither tokenizer nor model may see.")],
    config: Annotated[str, typer.Option(help="The shape: a preset, or a checkpoint's directory.")] = "tiny",
    steps: Annotated[int, typer.Option(min=1)] = 2600,
    batch: Annotated[int, typer.Option(min=1, help="Sequences a step.")] = 16,
    seq_len: Annotated[int, typer.Option(min=2, help="Tokens a sequence.")] = 512,
    short_steps: Annotated[int, typer.Option(min=0, help="First steps, with half as long sequences.")] = 0,
    repeats: Annotated[str, typer.Option(help="Random words, repeated: step:share:longest,...")] = "",
    learning_rate: Annotated[float, typer.Option()] = 6e-3,
    warmup: Annotated[int, typer.Option(min=1, help="First steps, in which the learning rate rises.")] = 100,
    seed: Annotated[int, typer.Option()] = 3,
    bfloat16: Annotated[bool, typer.Option("--bfloat16", help="Matrix products in bfloat16.")] = False,
    compile: Annotated[bool, typer.Option("--compile", help="Needs a C++ compiler; half again as fast.")] = False,
    device: Annotated[str, typer.Option()] = "cpu",
) -> None:
    """Train a small model of any shape. Run the same command again to go on after a stop."""
    from decoding_llama3.experiments import training
    from decoding_llama3.experiments.corpus import Corpus

    with one_sentence_errors():
        corpus = Corpus.read(folder, held_out)
        shape = {"batch": batch, "seq_len": seq_len, "short_steps": short_steps}
        how = {"learning_rate": learning_rate, "warmup": warmup, "seed": seed}
        how |= {"autocast": bfloat16, "compile": compile}
        phases = training.Repeats.parse(repeats)
        settings = training.TrainingSettings(steps=steps, repeats=phases, **shape, **how)
        records = training.train(corpus, _config_of(config), settings, out_folder, device)
        with _progress() as progress:
            task = progress.add_task("starting", total=steps)
            for record in records:
                progress.update(task, completed=record["step"], description=f"loss {record['loss']:.3f}")
                if record["held_out"] is not None:
                    line = f"step {record['step']}: held-out loss {record['held_out']:.4f} nats a token"
                    progress.console.print(line)
        err.print(f"the model lies in {out_folder}")


@app.command()
def ablate(
    groups: Annotated[list[str] | None, typer.Argument(help="norm, position, ...; default: all.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each variant.")] = 5,
    steps: Annotated[int, typer.Option(min=1)] = 1000,
    out_folder: Annotated[Path, typer.Option("--out", help="Where the curves go.")] = Path("data/ablations"),
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time, one thread each.")] = 1,
) -> None:
    """Train small Llamas with one part exchanged. Run the same command again to go on after a stop."""
    from decoding_llama3.experiments import ablation

    with one_sentence_errors():
        settings = ablation.Settings(steps=steps)
        runs = ablation.missing_runs(groups or list(ablation.GROUPS), seeds, settings, out_folder)
        with _progress() as progress:
            task = progress.add_task("training", total=len(runs))
            for row in ablation.run_lab(runs, settings, out_folder, jobs):
                loss = f"held-out loss {row['held_out_loss']} nats a character, {row['seconds']} s"
                progress.console.print(f"{row['group']}, {row['variant']}, seed {row['seed']}: {loss}")
                progress.advance(task)
        err.print(f"the curves lie in {out_folder}")


@app.command()
def evaluate(
    folder: Annotated[Path, typer.Argument(help="The folder of .txt files that the model was trained on.")],
    held_out: Annotated[str, typer.Option(help="The file there that neither tokenizer nor model has seen.")],
    checkpoint: Checkpoint = "tiny",
    words: Annotated[
        Path | None, typer.Option(help="One word or phrase a line: in how many tales is one?")
    ] = None,
    tales: Annotated[int, typer.Option(min=1, help="Tales to sample.")] = 1000,
    prompts: Annotated[int, typer.Option(min=1, help="Passages of the text to continue.")] = 1000,
    seed: Annotated[int, typer.Option()] = 1,
    device: Device = None,
    out_file: Annotated[Path, typer.Option("--out", help="Where the figures go.")] = Path("evaluation.json"),
) -> None:
    """Measure a model against n-grams and compressors on the same text, and what it knows by heart."""
    from decoding_llama3.experiments import corpus, evaluation, preparation

    with one_sentence_errors():
        texts = corpus.Corpus.read(folder, held_out)
        listed = None if words is None else preparation.listed_words(words)
        _check_folder("--out", out_file)
        model, tokens_of = _load(checkpoint, None, device, "float32", None, False)
        settings = evaluation.EvaluationSettings(tales=tales, prompts=prompts, seed=seed)
        with err.status("starting") as status:

            def tell(line: str) -> None:
                status.update(line)
                err.print(f"{time.strftime('%H:%M:%S')}  {line}", style="dim")

            result = evaluation.evaluate(model, tokens_of, texts, settings, listed, tell)
        out_file.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        _print_evaluation(result)
        err.print(f"the figures lie in {out_file}")


@contextmanager
def one_sentence_errors() -> Iterator[None]:
    """A mistake of the user's ends in its one sentence and exit code 2, not in a traceback."""
    try:
        yield
    except (ValueError, TypeError) as error:
        err.print(f"error: {error}", style="bold red", markup=False)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=err)


def _config_of(name: str) -> dl.LlamaConfig:
    if name in dl.PRESETS and name != "tiny":
        return dl.LlamaConfig.from_preset(name)
    if name == "tiny" or Path(name).exists():
        return read_config(name)
    raise ValueError(f"no preset and no directory is called {name}; presets are {', '.join(dl.PRESETS)}")


def _check_folder(option: str, file: Path | None) -> None:
    """Told before the work, not when all is measured."""
    if file is not None and not file.parent.is_dir():
        raise ValueError(f"{option} {file} lies in no folder there is: make {file.parent} first")


def _bench_of(ladder: bool, scaling: bool) -> tuple[Callable, Callable]:
    if ladder and scaling:
        raise ValueError("found --ladder and --scaling: give one of the two")
    if ladder:
        return runs.run_ladder, tables.ladder_tables
    if scaling:
        return runs.run_scaling, tables.scaling_tables
    return runs.run_engines, tables.engine_tables


def _plan_bench(checkpoint, random, engines, device, dtype, how) -> Plan:
    if checkpoint is not None and random is not None:
        raise ValueError(f"found a checkpoint ({checkpoint}) and --random {random}: give one of the two")
    source, device = random or checkpoint or "tiny", device or best_device()
    how |= {
        "engines": engines.replace(" ", "").split(","),
        "device": device,
        "dtype": _dtype(dtype, device),
        "report": err.print,
    }
    return make_plan(source, random is not None, **how)


def _numbers(what: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise ValueError(f"--{what} are whole numbers with commas between, as 128,512, found {text!r}") from None


def _dtype(name: str | None, device: str) -> torch.dtype:
    if name is not None and name not in DTYPES:
        raise ValueError(f"dtype is one of {', '.join(DTYPES)}, found {name!r}")
    return DTYPES[name] if name else choose_dtype(device)


def _load(checkpoint, tokenizer, device, dtype, quantize, compile) -> tuple[dl.Transformer, dl.Tokenizer]:
    device = device or best_device()
    config = read_config(checkpoint)  # a wrong path is told before a tokenizer is looked for
    kind = _dtype(dtype, device)
    if dtype is None and quantize is None:
        fit = choose_fit(config, device)
        kind, quantize = fit.dtype, fit.quantize
    tokens_of = dl.load_tokenizer(tokenizer or checkpoint)
    with err.status(f"loading {checkpoint}"):
        model = dl.load_model(checkpoint, device, kind, quantize, compile)
    if model.config.vocab_size != tokens_of.n_vocab:
        raise ValueError(
            f"the tokenizer has {tokens_of.n_vocab} tokens, but the model's embedding has "
            f"{model.config.vocab_size}: give the tokenizer of this model"
        )
    how = name_of(kind) if quantize is None else f"{quantize}, computed in {name_of(kind)},"
    err.print(f"{checkpoint}: {how} on {device}", style="dim")
    return model, tokens_of


def _print_stream(pieces: Iterator[str]) -> str:
    text = ""
    for piece in pieces:
        text += piece
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")
    return text


def _ask() -> str:
    try:
        return err.input("[bold]you:[/bold] ").strip()
    except EOFError:
        return ""


def _print_evaluation(result: dict) -> None:
    bits = result["bits_per_byte"]
    rows = {"the model": bits["model"]} | {f"{order}-gram": value for order, value in bits["ngram"].items()}
    for name in ("gzip", "xz"):
        rows |= {
            f"{name}, alone": bits[name]["alone"],
            f"{name}, after the training text": bits[name]["after_training"],
        }
    table = Table("held-out text", "bits a byte", "model / this", box=None)
    for name, value in rows.items():
        table.add_row(name, f"{value:.4f}", f"{bits['model'] / value:.3f}")
    out.print(table)
    for name, found in (("held-out text", result["overlap"]), ("tales", result["tales"]["overlap"])):
        out.print(
            f"{name}: {found['in_training']:,} of {found['sequences']:,} sequences of 8 words are in the training "
            f"text, the longest of {found['longest']['words']} words: {found['longest']['text']}",
            markup=False,
        )
    if listed := result["tales"]["listed"]:
        out.print(f"a listed word in {listed['texts']:,} tales, {listed['occurrences']:,} times")
    for name, known in result["memorised"].items():
        text = known["longest"]["continuation"]
        out.print(
            f"{name.replace('_', '-')} text continued word for word: median {known['characters']['median']:.0f} "
            f"characters, 99th percentile {known['characters']['percentile_99']}, at most {len(text)}: {text!r}",
            markup=False,
        )
