"""Checkpoints: shapes, initial weights, sizes, saving to a folder and loading from it."""

import copy
import json

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Sam2VideoModel

from model import architecture, checkpoints, clips, devices, inputs, network

TINY = architecture.Shape(image_size=128, embed_dim=16, blocks=(1, 1, 2, 1), decoder_mlp=64, memory_mlp=128)


@pytest.fixture(scope="module")
def model():
    built = architecture.build(TINY)
    architecture.init_weights(built, seed=3)
    return built.eval()


def test_micro_has_a_few_million_parameters():
    assert 2e6 < sum(p.numel() for p in architecture.build().parameters()) < 5e6


def test_global_attention_is_never_in_a_block_that_pools():
    assert architecture.config_of(architecture.Shape()).vision_config.backbone_config.global_attention_blocks == [5]
    with pytest.raises(ValueError, match=r"block 3: blocks \(1, 2, 3, 1\) pool in \[1, 3, 6\]"):
        architecture.config_of(architecture.Shape(global_blocks=(3,)))


@pytest.mark.parametrize("shape", [{"hidden": 64}, {"hidden": 100}, {"image_size": 200}, {"image_size": 0}])
def test_sizes_that_do_not_fit_are_refused_with_their_value(shape):
    with pytest.raises(ValueError, match=str(next(iter(shape.values())))):
        architecture.config_of(architecture.Shape(**shape))


def test_initial_weights_follow_from_the_seed_and_no_parameter_stays_zero(model):
    state = torch.random.get_rng_state()
    again, other = architecture.build(TINY), architecture.build(TINY)
    architecture.init_weights(again, seed=3)
    architecture.init_weights(other, seed=4)
    ours = model.state_dict()
    assert all(torch.equal(ours[name], value) for name, value in again.state_dict().items())
    assert not all(torch.equal(ours[name], value) for name, value in other.state_dict().items())
    dead = [name for name, p in model.named_parameters() if not p.any() and "norm" not in name]
    assert dead == []
    torch.random.set_rng_state(state)


def test_initial_weights_leave_the_callers_random_numbers_alone():
    built = architecture.build(TINY)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    architecture.init_weights(built, seed=1)
    architecture.resized(built, 64)
    assert torch.equal(torch.rand(3), expected)


def test_clicks_and_the_image_share_their_frequencies(model):
    image, clicks = model.shared_image_embedding, model.prompt_encoder.shared_embedding
    assert torch.equal(image.positional_embedding, clicks.positional_embedding)


@pytest.mark.parametrize("side", [64, 128, 192])
def test_the_same_weights_work_at_other_sizes(model, side):
    other = architecture.resized(model, side)
    assert architecture.side_of(other) == side and not other.training
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())
    with torch.no_grad():
        features = network.encode_images(other, torch.randn(1, 3, side, side))
        first = network.decode(other, features, network.without_memory(other, features), None, multimask=True)
        full = network.upsample(other, first.logits)
        memory = network.encode_memory(other, features.top, full, first, binarise=True)
        top = network.attend_to_memory(other, features, [(0, memory)], [(1, memory.pointer)], pointer_span=16)
    assert first.logits.shape == (1, side // 4, side // 4) and top.shape == (1, 128, side // 16, side // 16)
    assert top.isfinite().all()


def test_a_copy_at_the_same_size_gives_the_same_answers(model):
    pixels = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        a, b = (
            network.encode_images(m, pixels).top
            for m in (model, architecture.resized(architecture.resized(model, 64), 128))
        )
    torch.testing.assert_close(a, b)


def test_a_saved_checkpoint_loads_here_and_in_plain_transformers(model, tmp_path):
    folder = checkpoints.save(model, tmp_path / "ck", card="# tiny\n", meta={"round": 2}, mean=(0.5, 0.4, 0.3))
    loaded = checkpoints.load(folder)
    assert (loaded.image_size, loaded.mean, loaded.std) == (128, (0.5, 0.4, 0.3), clips.IMAGENET_STD)
    assert loaded.source == loaded.name == str(folder) and not loaded.model.training
    plain = Sam2VideoModel.from_pretrained(folder)
    for other in (loaded.model, plain):
        assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())
    assert (folder / "README.md").read_text() == "# tiny\n"
    assert json.loads((folder / "meta.json").read_text()) == {"round": 2}
    assert json.loads((folder / "preprocessor_config.json").read_text())["size"] == {"height": 128, "width": 128}


def test_saving_again_replaces_and_leaves_nothing_behind(model, tmp_path):
    checkpoints.save(model, tmp_path / "ck", card="a", meta={})
    other = architecture.build(TINY)
    checkpoints.save(other, tmp_path / "ck", card="b", meta={})
    assert [path.name for path in tmp_path.iterdir()] == ["ck"]
    weights = checkpoints.load(tmp_path / "ck").model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in other.state_dict().items())


def test_loading_prints_nothing(model, tmp_path, capfd):
    checkpoints.load(checkpoints.save(model, tmp_path / "ck", card="", meta={}))
    assert capfd.readouterr() == ("", "")


def test_a_checkpoint_loads_in_half_precision(model, tmp_path):
    loaded = checkpoints.load(checkpoints.save(model, tmp_path / "ck", card="", meta={}), dtype=torch.bfloat16)
    assert loaded.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/nonexistent/ck", "no checkpoint '/nonexistent/ck': no such folder"),
        ("./ck", "no such folder"),
        ("tiny", "not a name like 'owner/model'"),
        ("owner/model", "not in the hub cache .*HF_HUB_OFFLINE is set"),
    ],
)
def test_a_missing_checkpoint_is_an_error_of_one_line(name, message, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(checkpoints.NoCheckpoint, match=message) as caught:
        checkpoints.load(name)
    assert "\n" not in str(caught.value)


def test_an_empty_folder_and_a_damaged_checkpoint_have_different_errors(model, tmp_path):
    with pytest.raises(checkpoints.NoCheckpoint, match="config.json and model.safetensors are needed"):
        checkpoints.load(tmp_path)
    folder = checkpoints.save(model, tmp_path / "ck", card="", meta={})
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(checkpoints.NoCheckpoint, match="does not load"):
        checkpoints.load(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_with_the_name_of_the_tensor(model, tmp_path, value):
    damaged = copy.deepcopy(model)
    with torch.no_grad():
        damaged.mask_decoder.iou_prediction_head.proj_out.bias[1] = value
    folder = checkpoints.save(damaged, tmp_path / "ck", card="", meta={})
    with pytest.raises(checkpoints.NoCheckpoint, match="mask_decoder.iou_prediction_head.proj_out.bias has values"):
        checkpoints.load(folder)


DAMAGED = {  # file -> (its content, what the message says)
    "config.json": [
        ("{", "does not load"),
        ("[]", "does not load"),
        ('{"model_type": []}', "does not load"),
        ('{"image_size": []}', r"config.json is damaged: image_size is \[\]"),
        ('{"vision_config": {"backbone_config": {"image_size": [64, 0]}}}', r"image_size is \[64, 0\]"),
        ('{"prompt_encoder_config": {"image_size": 0}}', "image_size is 0, not a whole number"),
        ('{"image_size": true}', "image_size is True"),
        ('{"model_type": "sam2_video", "num_maskmem": null}', "num_maskmem"),
    ],
    "video_preprocessor_config.json": [
        ("{", "video_preprocessor_config.json is damaged"),
        ("null", "video_preprocessor_config.json is damaged"),
        ("[]", "a JSON object is needed, not list"),
        ('{"image_mean": [1], "image_std": [1]}', "video_preprocessor_config.json is damaged"),
        ('{"image_mean": null, "image_std": null}', "video_preprocessor_config.json is damaged"),
        ('{"image_mean": [0, 0, NaN], "image_std": [1, 1, 1]}', "three finite numbers"),
        ('{"image_mean": [0, 0, 0], "image_std": [1, 0, 1]}', "three finite numbers above 0"),
    ],
    "model.safetensors.index.json": [("[]", "does not load")],
}


@pytest.mark.parametrize(
    ("file", "content", "says"), [(file, *case) for file, cases in DAMAGED.items() for case in cases]
)
def test_a_damaged_file_of_a_checkpoint_is_an_error_of_one_line(model, tmp_path, file, content, says):
    folder = checkpoints.save(model, tmp_path / "ck", card="", meta={})
    (folder / file).write_text(content)
    if file == "model.safetensors.index.json":
        (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    with pytest.raises(checkpoints.NoCheckpoint, match=says) as caught:
        checkpoints.load(folder)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_tensor_of_another_shape_is_refused_with_both_shapes(model, tmp_path):
    folder = checkpoints.save(model, tmp_path / "ck", card="", meta={})
    tensors = load_file(folder / "model.safetensors")
    name = "mask_decoder.iou_prediction_head.proj_out.bias"
    shape = tuple(tensors[name].shape)
    tensors[name] = tensors[name][:1].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(checkpoints.NoCheckpoint) as caught:
        checkpoints.load(folder)
    assert str(caught.value).endswith(f"does not fit its config.json: {name} is (1,) instead of {shape}")


def test_a_missing_device_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices.pick_device("auto") == devices.pick_device("cpu") == "cpu"
    for wanted, message in (("cuda", "no device 'cuda': torch .* sees no GPU"), ("gpu", "no device 'gpu': auto, cpu")):
        with pytest.raises(ValueError, match=message):
            devices.pick_device(wanted)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert devices.pick_device("auto") == "cuda" and devices.pick_device("cuda:1") == "cuda:1"


def test_a_checkpoint_without_a_memory_is_refused_instead_of_drawn_at_random(model, tmp_path):
    folder = checkpoints.save(model, tmp_path / "ck", card="", meta={})
    weights = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in weights.items() if not k.startswith("memory_attention")}, folder / "model.safetensors")
    with pytest.raises(checkpoints.NoCheckpoint, match=r"lacks memory_attention\S+ and \d+ more tensors") as caught:
        checkpoints.load(folder)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_in_the_hub_cache_loads_by_name_without_the_net(model, tmp_path, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--owner--tiny"
    checkpoints.save(model, repository / "snapshots" / commit, card="", meta={})
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert checkpoints.load("owner/tiny").source == f"owner/tiny@{commit}"


def test_pixels_are_resized_and_normalised(model):
    loaded = checkpoints.wrap(model, name="tiny")
    grey = torch.full((50, 90, 3), 128, dtype=torch.uint8).numpy()
    pixels = inputs.to_pixels(loaded, [grey, grey[:20]])
    assert pixels.shape == (2, 3, 128, 128)
    expected = (torch.tensor(128 / 255) - torch.tensor(clips.IMAGENET_MEAN)) / torch.tensor(clips.IMAGENET_STD)
    torch.testing.assert_close(pixels, expected.view(1, 3, 1, 1).expand(2, -1, 128, 128))
    with pytest.raises(ValueError, match="float32"):
        inputs.to_pixels(loaded, [grey.astype("float32")])
