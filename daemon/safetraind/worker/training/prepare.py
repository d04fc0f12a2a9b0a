"""What each rank of a training makes before its first step: model, adapter, batches."""

from __future__ import annotations

from safetrain_shared.settings import TrainingSettings
from safetraind.worker import loading
from safetraind.worker.data.encode_chat import Encoder
from safetraind.worker.training import memory_limits
from safetraind.worker.training.batches import Batches
from safetraind.worker.training.dataset import Samples
from safetraind.worker.training.event_sink import EventSink
from safetraind.worker.training.position import RunPosition
from safetraind.worker.training.ranks import Ranks
from safetraind.worker.training.step import Stepper
from safetraind.worker.training.task import Task


def load_model(
    job: Task, sink: EventSink, ranks: Ranks | None
) -> tuple[loading.LoadedModel, Stepper]:
    """Load the model with a new adapter. Raises SafetrainError where it can't be used."""
    plan, settings = job.plan, job.plan.settings
    sink.phase("loading")
    memory_limits.set_limits(plan)
    loaded = loading.load(
        plan.model_path,
        dequantize=settings.dequantize,
        trust_remote_code=job.spec.trust_remote_code,
    )
    return loaded, Stepper(loaded.model, settings, job.seed, ranks)


def encoder_of(loaded: loading.LoadedModel, settings: TrainingSettings) -> Encoder:
    """Return what makes tokens of the training's samples."""
    return Encoder(loaded.tokenizer, settings.mask_prompt, loaded.vocabulary, settings.thinking)


def make_batches(
    job: Task, samples: Samples, progress: RunPosition, ranks: Ranks | None
) -> Batches:
    """Return this rank's batches of a run at its position."""
    windows = progress.first_length, progress.first_window
    share = (ranks.rank, ranks.size) if ranks is not None else (0, 1)
    return Batches(
        samples, job.plan.settings, job.plan.length_bucket, job.seed, *windows, share=share
    )
