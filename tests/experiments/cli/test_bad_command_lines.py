"""What people mistype: one sentence that names the flag or the file, and nothing written. And what has to work."""

import json
import shutil

import pytest

CALLBACK = "trainer: {{callbacks: [{{class_path: callbacks.{}, init_args: {{{}}}}}]}}"
VANILLANET = """
model: {init_args: {net: {class_path: lit_models.VanillaNet, init_args: {depth: 5, width: 4, stem_stride: 1}}}}
"""

# flags after `fit --config tiny.yaml`, and what the sentence has to say
FLAGS = {
    "--data.batch_size two": "data.batch_size takes a whole number, not two",
    "--data.batch_size -4": "batch_size is -4; give at least 1",
    "--data.eval_batch_size 0": "eval_batch_size is 0; give at least 1",
    "--model.num_classes 3": "--model.num_classes is 3, and the data have 10: leave the flag out",
    "--trainer.barebones true": "trainer.barebones leaves out the files of a run",
    "--data.batchsize 4": "data: datamodules.Digits has no option batchsize; did you mean batch_size?",
    "--data.num_workers -1": "num_workers is -1; give 0 or more",
    "--data.image_size 0": "image_size is 0",
    "--data.val_fraction 2": "val_fraction is 2.0",
    "--data.train_fraction 0": "train_fraction is 0.0",
    "--data.train_size 99999": "99999 training images are asked for",
    "--data.mixup_alpha -0.1": "mixup_alpha is -0.1",
    "--data.mix_prob 2": "mix_prob is 2.0",
    "--data.cutout -3": "cutout is -3",
    "--data.erasing 3": "erasing is 3.0",
    "--data.flip maybe": "data.flip takes true or false, not maybe",
    "--data datamodules.Digitz": "no class datamodules.Digitz; did you mean Digits?",
    "--data Digitz": "data: there is no class Digitz; did you mean Digits?",
    "--model ImageClasifier": "model: there is no class ImageClasifier; did you mean ImageClassifier?",
    "--model.net cifarresnt": "model.net: there is no class cifarresnt; did you mean CIFARResNet?",
    "--trainer.callbacks StochasticDept": "there is no class StochasticDept; did you mean StochasticDepth?",
    "--data.help Digitz": "there is no class Digitz; did you mean Digits?",
    "--name a/b": "--name 'a/b' has to be the name of a folder",
    "--name ..": "--name '..' has to be the name of a folder",
    "--name=": "has to be the name of a folder",
    "--import nowhere": "there is no package nowhere",
    "--import a/b": "--import takes the name of a package of yours",
    "--import": "--import takes the name of a package of yours",
    "--data datamodules.Photos": "root",
    "--data datamodules.Photos --data.root nowhere": "nowhere is no folder",
    "--data datamodules.SmallImages --data.root EMPTY": "has no class folder in it",
    "--model.lr fast": "model.lr takes a number, not fast",
    "--model.lr -1": "lr is -1.0; give a positive number",
    "--model.lr 0": "lr is 0.0; give a positive number",
    "--model.lrr 1": "lit_models.ImageClassifier has no option lrr; did you mean lr?",
    "--model.optimizer adamm": "no optimizer 'adamm'",
    "--model.weight_decay -1": "weight_decay is -1.0",
    "--model.momentum 2": "momentum is 2.0; give a number from 0 to 1",
    "--model.label_smoothing 2": "label_smoothing is 2.0",
    "--model.schedule cosin": "model.schedule takes one of cosine, step, constant, polynomial, not cosin",
    "--model.milestones [a,b]": "model.milestones takes a number, not a",
    "--model.net nomodule.Net": "model.net: there is no module nomodule",
    "--model.net lit_models.VanilaNet": "no class lit_models.VanilaNet; did you mean VanillaNet?",
    "--model.net datamodules.Digits": "does not correspond to a subclass of Module",
    "--model.net.init_args.depth deep": "model.net.depth takes a whole number, not deep",
    "--model.net.init_args.depth 9": "The depth of a CIFAR ResNet is 6n + 2, not 9",
    "--model.net.init_args.width 0": "width is 0",
    "--model.net.init_args.widht 8": "lit_models.CIFARResNet has no option widht; did you mean width?",
    "--trainer.max_epoch 3": "there is no flag --trainer.max_epoch; did you mean max_epochs?",
    "--trainer.max_epochs many": "trainer.max_epochs takes a whole number, not many",
    "--trainer.max_epochs -5": "-5",
    "--trainer.precision 17-mixed": "bf16-mixed, 32-true, 64-true, 64, 32, 16, bf16, not 17-mixed",
    "--trainer.accelerator gpuu": "gpuu",
    "--trainer.devices 0": "devices",
    "--trainer.strategy dpp": "dpp",
    "--trainer.accumulate_grad_batches 0": "trainer.accumulate_grad_batches is 0",
    "--trainer.callbacks lit_models.VanillaNet": "does not correspond to a subclass of Callback",
    "--trainer.callbacks callbacks.Nothing": "there is no class callbacks.Nothing",
    "--seed_everything abc": "seed_everything takes true or false or a whole number, not abc",
    "--seed_everything -3": "seed_everything is -3; give 0 to 4294967295",
    "--seed_everything 4294967296": "seed_everything is 4294967296; give 0 to 4294967295",
    "--data.batch_size 1000000000000000000000000000": "data.batch_size",
    "--data.batch_size null": "data.batch_size is null; leave it out for its default, 128",
    "--data.mixup_alpha .nan": "data.mixup_alpha is nan; give a finite number",
    "--data.cutmix_alpha .inf": "data.cutmix_alpha is inf; give a finite number",
    "--model.optimizer_args.eps .nan": "model.optimizer_args.eps is nan; give a finite number",
    "--model.head_lr_scale -1": "head_lr_scale is -1.0; give a number from 0",
    "--model.milestones [-1]": "milestones are (-1.0,)",
    "--model.milestones [.nan]": "model.milestones[0] is nan",
    "--model [1]": "model takes a class, by its name or as class_path with init_args, not [1]",
    "--model null": "model is required, and has no value",
    "--model.net []": "model.net takes a class, by its name or as class_path with init_args, not []",
    "--model.net null": "model.net is required, and has no value",
    "--data [1]": "data takes a class",
    "--trainer.callbacks [3]": "trainer.callbacks takes a class",
    "--trainer.callbacks+ StochasticDepth --trainer.callbacks.ramp_epochs -1": "ramp_epochs=-1; give 0 or more",
    "--trainer.callbacks+ StochasticDepth --trainer.callbacks.seed -1": "the seed of a callback is -1",
    "--trainer.callbacks+ LearningRateWarmup --trainer.callbacks.epochs .nan": "callbacks[0].epochs is nan",
    "--trainer.callbacks+ EarlyStopping --trainer.callbacks.monitr x": "no option monitr; did you mean monitor?",
    "--trainer.callbacks+ StochasticDepth --trainer.callbacks.mode x": "callbacks.mode takes one of batch, sample",
    "--trainer null": "trainer takes settings by name, such as --trainer.NAME VALUE, not null",
    "--trainer.limit_train_batches 0": "trainer.limit_train_batches is 0, and fathom fit would do nothing",
    "--trainer.limit_train_batches 0.0": "trainer.limit_train_batches is 0, and fathom fit would do nothing",
    "--trainer.val_check_interval 00:00:01:00": "trainer.val_check_interval is 00:00:01:00; give a share of an epoch",
    "--trainer.val_check_interval.minutes 1": "trainer.val_check_interval",
    "--trainer.val_check_interval 0": "trainer.val_check_interval is 0",
    "--trainer.val_check_interval 9": "`val_check_interval` (9) must be less than",
    "--trainer.check_val_every_n_epoch 0": "trainer.check_val_every_n_epoch is 0; give at least 1",
    "--trainer.gradient_clip_val -1": "trainer.gradient_clip_val is -1; give at least 0",
    "--trainer.max_time 00:00:00:00": "trainer.max_time is 00:00:00:00",
    "--trainer.max_time=-1:00:00:00": "trainer.max_time is -1:00:00:00",
    '--trainer.max_time {"minutes":-5}': "trainer.max_time is",
    "--trainer.max_time soon": "trainer.max_time is soon; give days:hours:minutes:seconds",
    "--trainer.max_epochs -1": "a cosine schedule needs to know where it ends",
    "--trainer.max_epochs null": "nothing says how long to train: set --trainer.max_epochs",
    "--trainer.precision transformer-engine": "transformer_engine",
    "--last_checkpoint.every_minutes .nan": "last_checkpoint.every_minutes is nan",
    "--best_checkpoint null": "best_checkpoint takes settings by name",
    f"--wandb.mode offline --wandb.tags [{'t' * 65}]": "takes a tag of up to 64 characters",
    f"--wandb.mode offline --name {'n' * 120}": "takes a name of up to 128 characters",
    "--wandb.mode offline --wandb.project a/b": "--wandb.project 'a/b' has / in it",
    "--wandb.mode onlin": "wandb.mode takes one of offline, online, disabled, not onlin",
    "--best_checkpoint.mode maximum": "maximum",
    "--modl.lr 1": "there is no flag --modl.lr; did you mean model?",
    "extra": "unrecognized arguments: extra",
    "--data.batch_size": "--data needs a value",
    "--config": "config needs a value",
}

# a second configuration file
CONFIGS = {
    "unknown at the top": ("modle: {init_args: {lr: 1}}", "fathom fit has no option modle.init_args.lr"),
    "unknown in the model": ("model: {init_args: {lrr: 1}}", "lit_models.ImageClassifier has no option lrr"),
    "unknown in the optimizer": (
        "model: {init_args: {optimizer_args: {foo: 1}}}",
        "the optimizer sgd does not take these optimizer_args",
    ),
    "unknown in the net": ("model: {init_args: {net: {init_args: {widht: 1}}}}", "has no option widht"),
    "unknown in the data": ("data: {init_args: {batchsize: 1}}", "datamodules.Digits has no option batchsize"),
    "unknown in the trainer": ("trainer: {epochs: 1}", "no option trainer.epochs; did you mean"),
    "unknown in a callback": (
        CALLBACK.format("ActivationAnnealing", "epoch: 1"),
        "no option epoch; did you mean epochs?",
    ),
    "another type in a callback": (CALLBACK.format("StochasticDepth", "mode: x"), "takes one of batch, sample, not x"),
    "a callback with both of two": (
        CALLBACK.format("LearningRateWarmup", "epochs: 1, steps: 2"),
        "epochs or steps",
    ),
    "a callback for other networks": (CALLBACK.format("ActivationAnnealing", ""), "CIFARResNet does not"),
    "λ that would not reach 1": (
        VANILLANET + CALLBACK.format("ActivationAnnealing", "epochs: 50"),
        "or raise --trainer.max_epochs",
    ),
    "images too small for the net": (
        "model: {init_args: {net: {class_path: lit_models.VanillaNet, init_args: {depth: 5, width: 4}}}}",
        "VanillaNet can't take images of 8×8 pixels and 1 channels: images of 8×8 pixels vanish",
    ),
    "arguments that are none": ("model: {init_args: x}", "model.init_args takes settings by name"),
    "a list in the place of settings": ("wandb: [{class_path: 3}]", "wandb takes settings by name"),
    "batches of one image": (
        VANILLANET + "data: {init_args: {batch_size: 1, image_size: 16}}",
        "can't be trained with a batch_size of 1",
    ),
    "a bracket left open": ("trainer: {max_epochs: 1\nmodel: [", "second.yaml, line 2, column 6: not YAML"),
    "a tab": ("trainer:\n\tmax_epochs: 3\n", "second.yaml, line 2, column 1: not YAML"),
    "a list": ("- 1\n- 2\n", "second.yaml holds a list"),
    "empty": ("", "second.yaml is empty"),
    "bytes": (b"\xff\xfe\x00", "second.yaml is not a text in UTF-8"),
    "a null character": ("a: \0", "second.yaml: not YAML"),
}


@pytest.fixture
def refused(tiny_config, fathom, tmp_path, monkeypatch):
    """Runs ``fit`` and sees that it ends in a sentence that says ``expected``, and leaves nothing but its record."""
    (tmp_path / "work" / "EMPTY").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")

    def run(expected, *flags):
        runs = ("--trainer.default_root_dir", tmp_path / "runs")
        code, sentence = fathom("fit", "--config", tiny_config, *runs, *flags)
        assert code in (1, 2)
        assert expected in sentence
        assert len(sentence) < 400
        for summary in tmp_path.rglob("summary.json"):  # of a run that failed when it was set up
            assert expected in json.loads(summary.read_text())["error"]
        assert list(tmp_path.rglob("*.ckpt")) == []
        assert [path.name for path in (tmp_path / "work").rglob("*")] == ["EMPTY"]

    return run


@pytest.mark.parametrize("flags", FLAGS)
def test_a_bad_flag_is_named(flags, refused):
    refused(FLAGS[flags], *flags.split())


@pytest.mark.parametrize("name", CONFIGS)
def test_a_bad_configuration_is_named(name, refused, tmp_path):
    content, expected = CONFIGS[name]
    path = tmp_path / "second.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(expected, "--config", path)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("EMPTY", "EMPTY is a folder"), ("nothing.yaml", "there is no recipe or configuration file nothing.yaml")],
)
def test_a_configuration_that_is_no_file_is_named(name, expected, refused):
    refused(expected, "--config", name)


@pytest.mark.parametrize(
    ("flags", "known"),
    [
        (
            ["--trainer.callbacks", "EarlyStopping", "--trainer.callbacks.monitor", "a"],
            "EarlyStopping has the monitor 'a'",
        ),
        (["--best_checkpoint.monitor", "a"], "BestCheckpoint has the monitor 'a'"),
        (["--best_checkpoint.monitor", "test/top1"], "BestCheckpoint has the monitor 'test/top1'"),
    ],
)
def test_a_metric_that_is_not_logged_is_named_before_anything_is_trained(flags, known, tiny_config, fathom, tmp_path):
    code, sentence = fathom("fit", "--config", tiny_config, "--trainer.default_root_dir", tmp_path, *flags)
    assert code == 1
    assert sentence.startswith(f"{known}, which this run does not log; it logs lr, ")
    assert "val/top1" in sentence
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("command", "part"), [("validate", "val"), ("test", "test"), ("predict", "predict")])
def test_an_evaluation_of_nothing(command, part, tiny_run, fathom):
    code, sentence = fathom(command, "--ckpt_path", tiny_run, f"--trainer.limit_{part}_batches", 0)
    assert (code, sentence) == (
        1,
        f"trainer.limit_{part}_batches is 0, and fathom {command} would do nothing: leave it out",
    )
    assert not (tiny_run / command).exists() or not list((tiny_run / command).glob("*/summary.json"))


def test_a_run_root_that_is_a_file_is_named(tiny_config, fathom, tmp_path):
    (tmp_path / "runs").write_text("mine")
    code, sentence = fathom("fit", "--config", tiny_config, "--trainer.default_root_dir", tmp_path / "runs")
    assert code == 1
    assert str(tmp_path / "runs") in sentence
    assert (tmp_path / "runs").read_text() == "mine"


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["fitt"], "did you mean fit"),
        (["fit"], "needs --config"),
        (["test", "--config"], "config needs a value"),
        (["test", "runs"], "fathom test needs --ckpt_path"),
        (["--config", "a.yaml"], "no command '--config'"),
        (["bench", "nothing"], "fathom bench needs one of data, epoch, "),
        (["bench", "step", "--rounds", "0"], "rounds takes a whole number above 0, not 0"),
        (["convert"], "fathom convert needs one of vanillanet"),
        (["bench", "latency", "--network", "resnet50"], "did you mean networks?"),
        (["reproduce", "--chekc"], "did you mean --check?"),
        (["reproduce", "--dryrun", "--jobs", "0"], "did you mean --dry_run?"),
        (["reproduce", "--dry-run", "--sheet", "nowhere"], "nowhere"),  # dashes do, too
        (["ladder", "--trainr.max_epochs", "1"], "did you mean --trainer?"),
        (["ladder", "--budget", "-5m"], "--budget needs a value; one that begins with a dash is written behind ="),
        (["explain", "--crve", "a.png"], "did you mean --curve?"),
        (["transfer", "--imges", "5", "runs"], "did you mean --images?"),
        (["transfer", "--detection", "a"], "give runs of classifiers first"),
        (["compare", "runs", "--over", "sede"], "give --group-by, too"),
    ],
)
def test_a_command_line_without_a_command_or_a_configuration(args, expected, fathom):
    code, sentence = fathom(*args)
    assert code in (1, 2)
    assert expected in sentence


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_random_weights_are_not_evaluated(command, tiny_config, fathom, tmp_path):
    code, sentence = fathom(command, "--config", tiny_config, "--trainer.default_root_dir", tmp_path)
    assert code == 1
    assert f"fathom {command} needs --ckpt_path" in sentence
    assert not list(tmp_path.iterdir())


def test_spaces_and_korean_letters_work_everywhere(tiny_config, tiny_run, fathom, tmp_path, digits_folder):
    root = tmp_path / "내 실험 1"
    root.mkdir()
    config = shutil.copy(tiny_config, root / "설정 파일.yaml")
    data = shutil.copytree(digits_folder, root / "숫자 data")
    checkpoint = shutil.copy(tiny_run / "checkpoints" / "last.ckpt", root / "마지막 one.ckpt")
    flags = ("--data", "datamodules.SmallImages", "--data.root", data, "--data.train_size", "16")
    runs = ("--trainer.default_root_dir", root / "결과 runs")
    assert fathom("fit", "--config", config, *flags, *runs)[0] == 0
    (run_directory,) = (root / "결과 runs").glob("설정 파일/*")
    assert json.loads((run_directory / "summary.json").read_text())["status"] == "finished"
    # the run's own configuration, and one by name
    assert fathom("test", "--ckpt_path", run_directory / "checkpoints" / "last.ckpt", *runs)[0] == 0
    assert fathom("test", "--config", config, "--ckpt_path", checkpoint, *runs)[0] == 0


def test_a_wrong_flag_of_a_tool_is_named(fathom):
    code, sentence = fathom("shard", "a", "b", "--num_workers", "many")
    assert (code, sentence) == (2, "num_workers takes a whole number, not many")
