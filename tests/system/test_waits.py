"""Between logging steps the host never waits for the device.

That is seen on torch's ``meta`` device. Its tensors have no values, so whatever brings one to the host, and each copy
between the two, is one of a few operators, which are recorded here.
"""

import traceback
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.accelerators import Accelerator
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.strategies import SingleDeviceStrategy
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

import callbacks
from callbacks import (
    ActivationAnnealing,
    BestCheckpoint,
    Compile,
    EffectivePathTraining,
    FrozenStages,
    GradientStatistics,
    LastCheckpoint,
    LearningRateWarmup,
    MergeAtFitEnd,
    MergeWhenAnnealed,
    PredictionWriter,
    Reseeding,
    RunSummary,
    StochasticDepth,
    StopOnNonFinite,
    ValidationPictures,
    WeightAveraging,
)
from callbacks.run.time_limit import TimeLimit
from datamodules import Digits, Photos, PhotoStream, SegmentationFolder, SmallImages, VOCDetection
from experiments.commands.shard import shard
from experiments.runs.metrics_csv import MetricsCSV
from experiments.runs.wandb_logger import WandbOptions, wandb_logger
from lit_models import (
    FCN,
    CIFARResNet,
    Detector,
    Distillation,
    FasterRCNN,
    ImageClassifier,
    RetinaNet,
    Segmenter,
    VanillaNet,
)
from lit_models.checkpoints import classifier_checkpoint, write_atomically

LOG_EVERY, STEPS = 5, 13
MONITORS = {Segmenter: "val/miou", Detector: "val/map"}
LOGGED = {4, 9, 12}
"""The last step is logged, too."""


class MetaAccelerator(Accelerator):
    """A device that computes nothing."""

    def setup_device(self, device):
        pass

    def teardown(self):
        pass

    def get_device_stats(self, device):
        return {}

    @staticmethod
    def parse_devices(devices):
        return devices

    @staticmethod
    def get_parallel_devices(devices):
        return [torch.device("meta")] * devices

    @staticmethod
    def auto_device_count():
        return 1

    @staticmethod
    def is_available():
        return True

    @staticmethod
    def name():
        return "meta"


@pytest.fixture(autouse=True)
def device_module(monkeypatch):
    """Every kind of device has one."""
    monkeypatch.setattr(torch, "meta", SimpleNamespace(manual_seed=lambda seed: None), raising=False)


class Recorder(TorchDispatchMode):
    """Where the host would wait for the device, and what it sends there, in each step.

    Waits within torchvision are apart: how many regions a detector keeps is known when they are computed.
    """

    def __init__(self):
        super().__init__()
        self.waits, self.uploads, self.in_torchvision, self.step = {}, {}, {}, None

    def begin(self, step):
        self.step = step
        self.waits[step], self.uploads[step], self.in_torchvision[step] = [], [], []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        keywords = keywords or {}
        name = function.overloadpacket.__name__
        tensors = [value for value in arguments if isinstance(value, torch.Tensor)]
        reads = name in ("_local_scalar_dense", "equal", "nonzero", "masked_select", "nms")
        if reads and any(tensor.is_meta for tensor in tensors):
            self.note(name)
            shapes = {"nonzero": (0, tensors[0].ndim), "nms": (0,)}
            return torch.empty(shapes[name], dtype=torch.int64, device="meta") if name in shapes else 1
        by_mask = name == "index" and any(index is not None and index.dtype == torch.bool for index in arguments[1])
        if by_mask and tensors[0].is_meta:
            self.note("index by a mask")
            return tensors[0].new_empty(0, *tensors[0].shape[arguments[1][0].ndim :])
        blocking = not keywords.get("non_blocking")
        if name == "_to_copy":
            tensor, device = tensors[0], torch.device(keywords.get("device") or tensors[0].device)
            if (device.type == "meta") != tensor.is_meta:
                self.note(f"copy of {tuple(tensor.shape)}", blocking, upload=not tensor.is_meta)
            if tensor.is_meta and device.type == "cpu":
                return torch.zeros(tensor.shape, dtype=keywords.get("dtype") or tensor.dtype)
        if name == "copy_" and tensors[0].is_meta != tensors[1].is_meta:
            self.note("copy", blocking and not any(arguments[2:]), upload=tensors[0].is_meta)
            return tensors[0]
        return function(*arguments, **keywords)

    def note(self, what, waits=True, upload=False):
        if self.step is None:
            return
        frames = [frame for frame in traceback.extract_stack()[:-2] if "/torch/" not in frame.filename]
        if waits and frames and "/torchvision/" in frames[-1].filename:
            self.in_torchvision[self.step].append(frames[-1].name)
            return
        where = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames[:-6:-1])
        if waits:
            self.waits[self.step].append(f"{what} in {where}")
        if upload:
            self.uploads[self.step].append(f"{what} in {where}")


class Steps(L.Callback):
    """Tells the recorder which step it is in; a batch is fetched in the step before it."""

    def __init__(self, recorder):
        self.recorder = recorder

    def on_train_batch_start(self, trainer, *_):
        self.recorder.begin(trainer.global_step)

    def on_validation_start(self, *_):
        self.recorder.step = None

    on_train_epoch_end = on_train_end = on_exception = on_validation_start


def every_run(monitor="val/top1"):
    return [
        LastCheckpoint(every_minutes=10),
        Reseeding(),
        RunSummary(),
        StopOnNonFinite(),
        TimeLimit("00:01:00:00"),
        RichProgressBar(refresh_rate=10),
        BestCheckpoint(monitor=monitor, mode="max"),
    ]


def record(path, module, data, extra, loggers):
    recorder = Recorder()
    trainer = L.Trainer(
        strategy=SingleDeviceStrategy(torch.device("meta"), MetaAccelerator()),
        max_steps=STEPS,
        default_root_dir=path,
        log_every_n_steps=LOG_EVERY,
        use_distributed_sampler=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=1,
        logger=loggers,
        callbacks=[Steps(recorder), *every_run(MONITORS.get(type(module), "val/top1")), *extra],
    )
    with recorder:
        trainer.fit(module, data)
    assert sorted(recorder.waits) == list(range(STEPS))
    return recorder


def resnet(path, data):
    return ImageClassifier(
        CIFARResNet(8, num_classes=data.num_classes, in_channels=data.in_channels, width=4), data.num_classes
    )


def vanillanet(path, data):
    net = VanillaNet(data.num_classes, in_channels=data.in_channels, depth=6, width=4, stem_kernel=1, stem_stride=1)
    return ImageClassifier(net, data.num_classes, optimizer="lamb", lr=0.01)


def distilled(path, data):
    arguments = {"depth": 8, "num_classes": data.num_classes, "in_channels": data.in_channels, "width": 2}
    write_atomically(classifier_checkpoint(CIFARResNet(**arguments), arguments), path / "teacher.ckpt")
    return Distillation(CIFARResNet(**arguments), data.num_classes, str(path / "teacher.ckpt"))


def segmenter(path, data):
    return Segmenter(FCN(CIFARResNet(8, width=4), data.num_classes, output_stride=None), data.num_classes)


def two_stages(path, data):
    net = FasterRCNN(
        CIFARResNet(8, width=4), data.num_classes, pyramid_channels=8, head_channels=8, training_proposals=(20, 20)
    )
    return Detector(net, data.num_classes)


def one_stage(path, data):
    return Detector(
        RetinaNet(CIFARResNet(8, width=4), data.num_classes, pyramid_channels=32, finest_stride=4), data.num_classes
    )


def small(folder):
    return SmallImages(folder, batch_size=2, mixup_alpha=0.2)


def photos(folder):
    return Photos(folder, image_size=32, batch_size=2, num_workers=0, erasing=0.5, cutmix_alpha=1.0)


def stream(folder):
    litdata = pytest.importorskip("litdata", reason="litdata is not installed (the extra `stream`)")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(litdata, "optimize", partial(litdata.optimize, start_method="fork"))  # which is quicker
        shard(str(folder), str(folder.parent / "shards"), num_workers=1)
    return PhotoStream(str(folder.parent / "shards"), image_size=32, batch_size=2, num_workers=0)


def boxes(tree):
    statistics = {"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)}
    parts = {"train": ["VOC2007/train", "VOC2007/val"], "val": ["VOC2007/test"]}  # more than STEPS photos
    return VOCDetection(tree, image_size=48, max_size=64, batch_size=1, num_workers=0, **parts, **statistics)


def masks(folder):
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for part, count in (("train", 30), ("val", 4)):
        (folder / f"{part}.txt").write_text("".join(f"{part}{i}\n" for i in range(count)))
        for i in range(count):
            Image.effect_noise((24, 16), 50).convert("RGB").save(folder / "images" / f"{part}{i}.jpg")
            Image.new("L", (24, 16), i % 2).save(folder / "masks" / f"{part}{i}.png")
    statistics = {"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)}
    return SegmentationFolder(folder, ["cat", "dog"], image_size=16, batch_size=2, num_workers=0, **statistics)


def on_device(folder):
    mixing = {"mixup_alpha": 0.2, "cutmix_alpha": 1.0}
    return Digits(image_size=8, batch_size=32, erasing=0.5, cutout=2, on_device=True, equal_batches=True, **mixing)


RUNS = {
    "stochastic depth": (
        resnet,
        on_device,
        lambda: [StochasticDepth(0.5), GradientStatistics(), WeightAveraging(0.5)],
    ),
    "effective paths": (resnet, small, lambda: [EffectivePathTraining(1), LearningRateWarmup(epochs=0.1)]),
    "annealing": (
        vanillanet,
        photos,
        lambda: [ActivationAnnealing(0.1, per="step"), MergeAtFitEnd(), WeightAveraging(0.5)],
    ),
    "distillation": (distilled, small, lambda: [StochasticDepth(0.5, mode="sample")]),
    "compilation": (resnet, on_device, lambda: [Compile(backend="aot_eager")]),
    "fine-tuning": (resnet, small, lambda: [FrozenStages(1)]),
    "shards": (resnet, stream, list),
    "segmentation": (segmenter, masks, lambda: [ValidationPictures(images=2)]),
    "detection in two stages": (two_stages, boxes, list),
    "detection in one stage": (one_stage, boxes, list),
}

LOSSES = {"set_low_quality_matches_", "compute_loss"}
REGIONS = {"remove_small_boxes", "filter_proposals", "__call__", "subsample", "fastrcnn_loss"}  # the call of a sampler
IN_TORCHVISION = {"detection in two stages": LOSSES | REGIONS, "detection in one stage": LOSSES}


@pytest.mark.parametrize("run", RUNS)
def test_no_step_waits_but_those_that_are_logged(run, tmp_path, digits_folder, voc_tree):
    make_module, make_data, extra = RUNS[run]
    data = make_data(voc_tree if make_data is boxes else digits_folder)
    loggers = [MetricsCSV(tmp_path)]
    if run == "stochastic depth":
        loggers.append(wandb_logger(tmp_path, WandbOptions()))
    recorder = record(tmp_path, make_module(tmp_path, data), data, extra(), loggers)
    assert {step: waits for step, waits in recorder.waits.items() if waits and step not in LOGGED} == {}
    assert all(recorder.waits[step] for step in LOGGED - {12})  # it sees some
    # The first step also brings the anchors' shapes to the device.
    assert {name for step in range(1, STEPS) for name in recorder.in_torchvision[step]} == IN_TORCHVISION.get(
        run, set()
    )
    if data.on_device:
        assert {step: uploads for step, uploads in recorder.uploads.items() if uploads and step not in LOGGED} == {}
    else:
        assert all(recorder.uploads[step] for step in range(STEPS - 1))


def test_no_callback_is_forgotten():
    seen = {type(callback) for callback in every_run()}
    seen |= {type(callback) for _, _, extra in RUNS.values() for callback in extra()}
    # The one writes after a fit, the other merges in the first step of an epoch, which numbers without values can't.
    seen |= {PredictionWriter, MergeWhenAnnealed}
    assert seen >= {
        kind for kind in vars(callbacks).values() if isinstance(kind, type) and issubclass(kind, L.Callback)
    }
