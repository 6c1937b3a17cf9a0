"""`talkalong evaluate`: renders held-out portraits with held-out speech, judges them and prints the table."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.avatar_pipeline import AvatarPipeline

logger = logging.getLogger(__name__)

PACKAGE = Path(__file__).resolve().parents[1]
CONFIGS = PACKAGE.parent / "configs" / "eval"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.add_argument(
        "--model",
        default="portrait_256",
        help="a bundled model's name, a model folder, or a YAML (untrained)",
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with portraits, grid and kokoro")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), help="training folder, for reference motion and rig"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/evaluation"), help="where the report goes")
    parser.add_argument("--config", type=Path, help="another YAML than configs/eval/default.yaml")
    parser.add_argument("--quick", action="store_true", help="a smaller evaluation, configs/eval/quick.yaml")
    parser.add_argument(
        "--duration", type=float, metavar="MINUTES", help="length of the long session that shows drift"
    )
    parser.add_argument(
        "--teacher", type=Path, help="folder of a many-step denoiser to compare the few steps with"
    )
    parser.add_argument(
        "--study",
        nargs="+",
        metavar="NAME",
        help="no table, but these studies instead, or all of them: see docs/evaluation.md",
    )
    parser.add_argument("--judge-python", type=Path, help="a Python with MediaPipe 0.10.21 and dlib")
    parser.add_argument("--threads", type=int, help="processor threads for the model")
    parser.add_argument("--seed", type=int, help="seed of the sessions")


def run(args: argparse.Namespace) -> int:
    """Evaluates; returns 0 if every measure reaches v0, 1 if not, 2 if the evaluation could not be made."""
    import torch

    from pipeline import checkpoint
    from pipeline.avatar_pipeline import AvatarPipeline
    from pipeline.evaluation.figures import build_table
    from pipeline.evaluation.judging import Judge, JudgeError, judge_python
    from pipeline.evaluation.material import MaterialError
    from pipeline.evaluation.provenance import machine
    from pipeline.evaluation.report import write_report
    from pipeline.evaluation.settings import EvaluationSettings
    from pipeline.evaluation.study import Cast, evaluate
    from pipeline.portrait import PortraitError
    from pipeline.training.settings import load_settings

    started = time.monotonic()
    try:
        if str(args.model).endswith((".yaml", ".yml")):
            pipe, digest = checkpoint.build(Path(args.model)), None
            gallery = PACKAGE / "weights" / "portrait_256" / "portraits"
        else:
            folder = checkpoint.resolve(args.model)
            pipe, digest = AvatarPipeline.from_pretrained(folder), checkpoint.model_sha256(folder)
            gallery = folder / "portraits"
        if args.study:
            return _study(args, pipe, {"model": str(args.model), "model_sha256": digest}, gallery)
        config = args.config or CONFIGS / ("quick.yaml" if args.quick else "default.yaml")
        settings = load_settings(EvaluationSettings, config)
        changes = {
            "threads": args.threads,
            "seed": args.seed,
            "long_seconds": args.duration and 60 * args.duration,
        }
        settings = replace(settings, **{name: value for name, value in changes.items() if value is not None})
        torch.set_num_threads(settings.threads)
        cast = Cast.gather(pipe, args.data, args.runs, gallery, settings)
        with Judge(judge_python(args.judge_python)) as judge:
            evidence = evaluate(
                pipe, cast, judge, settings, data=args.data, runs=args.runs, teacher=args.teacher
            )
    except (checkpoint.CheckpointError, MaterialError, PortraitError, JudgeError, ValueError) as error:
        logger.error("%s", error)
        return 2
    table = build_table(evidence)
    provenance = {
        "model": str(args.model),
        "model_sha256": digest,
        "steps": pipe.scheduler.num_inference_steps,
        "teacher": str(args.teacher) if args.teacher else None,
        "settings": asdict(settings),
        "machine": machine(),
        "portraits": [portrait.name for portrait in cast.portraits],
        "clips": sorted({take.clip.name for take in evidence.takes}),
        "seconds": round(time.monotonic() - started),
    }
    page = write_report(table, evidence, provenance, args.out)
    print(table.to_text())
    for row in table.rows:
        if row.note:
            print(f"  {row.label}: {row.note}")
    missed = table.missed()
    print(f"\n{len(missed)} measures below v0. Report with pictures: {page}")
    return 1 if missed else 0


def _study(
    args: argparse.Namespace, pipe: AvatarPipeline, model: Mapping[str, str | None], gallery: Path
) -> int:
    import torch

    from pipeline.evaluation.judging import Judge, judge_python
    from pipeline.evaluation.page import write_page
    from pipeline.evaluation.studies.running import chosen_studies, run_studies
    from pipeline.evaluation.studies.settings import StudySettings
    from pipeline.training.settings import load_settings

    names = chosen_studies(args.study)
    settings = load_settings(StudySettings, args.config or CONFIGS / "studies.yaml")
    torch.set_num_threads(args.threads or settings.threads)
    with Judge(judge_python(args.judge_python)) as judge:
        run_studies(
            names, pipe, judge, settings, data=args.data, runs=args.runs, gallery=gallery, out=args.out,
            teacher=args.teacher, model=model,
        )  # fmt: skip
    print(f"\nReport with pictures: {write_page(args.out)}")
    return 0


def main() -> int:
    """`python -m pipeline.evaluation`."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.evaluation", description=__doc__)
    add_arguments(parser)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    return run(parser.parse_args())
