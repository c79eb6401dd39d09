"""Meta's own checkpoint files: every published tensor is used, and other files are refused in one line."""

import pickle

import pytest
import torch
from transformers import Sam2VideoModel

from model import architecture, checkpoints, meta_checkpoint
from model.checkpoints import NoCheckpoint


def published_names(blocks, version):
    """The names of the tensors in a published file, from the modules of github.com/facebookresearch/sam2."""
    names = ["maskmem_tpos_enc", "no_mem_embed", "no_mem_pos_enc", "no_obj_ptr"]

    def add(prefix, *modules):
        names.extend(f"{prefix}{module}.{kind}" for module in modules for kind in ("weight", "bias"))

    trunk = "image_encoder.trunk."
    names += [f"{trunk}pos_embed", f"{trunk}pos_embed_window"]
    add(trunk, "patch_embed.proj")
    for block in range(sum(blocks)):
        add(f"{trunk}blocks.{block}.", "norm1", "attn.qkv", "attn.proj", "norm2", "mlp.layers.0", "mlp.layers.1")
        if block in (sum(blocks[:1]), sum(blocks[:2]), sum(blocks[:3])):  # the first block of a stage widens
            add(f"{trunk}blocks.{block}.", "proj")
    add("image_encoder.neck.", *(f"convs.{i}.conv" for i in range(4)))
    attention = ("q_proj", "k_proj", "v_proj", "out_proj")
    for layer in range(4):
        place = f"memory_attention.layers.{layer}."
        add(f"{place}self_attn.", *attention)
        add(f"{place}cross_attn_image.", *attention)
        add(place, "linear1", "linear2", "norm1", "norm2", "norm3")
    add("memory_attention.", "norm")
    add("memory_encoder.mask_downsampler.encoder.", *map(str, (0, 1, 3, 4, 6, 7, 9, 10, 12)))
    for layer in range(2):
        place = f"memory_encoder.fuser.layers.{layer}."
        add(place, "dwconv", "norm", "pwconv1", "pwconv2")
        names.append(f"{place}gamma")
    add("memory_encoder.", "pix_feat_proj", "out_proj")
    prompt = "sam_prompt_encoder."
    names += [f"{prompt}pe_layer.positional_encoding_gaussian_matrix", f"{prompt}not_a_point_embed.weight"]
    names += [f"{prompt}no_mask_embed.weight", *(f"{prompt}point_embeddings.{i}.weight" for i in range(4))]
    add(f"{prompt}mask_downscaling.", *map(str, (0, 1, 3, 4, 6)))
    decoder = "sam_mask_decoder."
    names += [f"{decoder}{token}.weight" for token in ("iou_token", "mask_tokens", "obj_score_token")]
    for layer in range(2):
        place = f"{decoder}transformer.layers.{layer}."
        for part in ("self_attn", "cross_attn_token_to_image", "cross_attn_image_to_token"):
            add(f"{place}{part}.", *attention)
        add(place, "norm1", "norm2", "norm3", "norm4", "mlp.layers.0", "mlp.layers.1")
    add(f"{decoder}transformer.final_attn_token_to_image.", *attention)
    add(f"{decoder}transformer.", "norm_final_attn")
    add(f"{decoder}output_upscaling.", "0", "1", "3")
    add(
        decoder,
        "conv_s0",
        "conv_s1",
        *(f"output_hypernetworks_mlps.{i}.layers.{j}" for i in range(4) for j in range(3)),
    )
    add(decoder, *(f"{head}.layers.{j}" for head in ("iou_prediction_head", "pred_obj_score_head") for j in range(3)))
    add("", "mask_downsample", *(f"obj_ptr_proj.layers.{j}" for j in range(3)))
    if version == "2.1":
        names.append("no_obj_embed_spatial")
        add("", "obj_ptr_tpos_proj")
    return names


def tensors_of(model, names):
    """The model's weights under Meta's names."""
    own = model.state_dict()
    points = "sam_prompt_encoder.point_embeddings."
    return {
        name: own["prompt_encoder.point_embed.weight"][[int(name.split(".")[2])]]
        if name.startswith(points)
        else own[meta_checkpoint.name_of(name)]
        for name in names
    }


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(3)
    model = Sam2VideoModel(meta_checkpoint.config_of("tiny"))
    architecture.init_weights(model, 3, embedding_std=1.0)
    return model


@pytest.mark.parametrize("version", ["2", "2.1"])
@pytest.mark.parametrize("shape", list(meta_checkpoint.SHAPES))
def test_published_names_and_our_parameters_map_one_to_one(shape, version):
    config = meta_checkpoint.config_of(shape, version=version)
    with torch.device("meta"):  # names and shapes only
        own = set(Sam2VideoModel(config).state_dict())
    names = published_names(config.vision_config.backbone_config.blocks_per_stage, version)
    found = meta_checkpoint.renamed({name: torch.zeros(1, 1) for name in names})
    assert set(found) == own
    assert (
        len(set(names)) == len(names) == len(own) - 1 + 4 - 1
    )  # two copies of the frequencies, one tensor of point embeddings


def test_a_file_of_metas_is_loaded_with_every_weight(tiny, tmp_path):
    file = tmp_path / "sam2.1_hiera_tiny.pt"
    torch.save({"model": tensors_of(tiny, published_names([1, 2, 7, 2], "2.1"))}, file)
    loaded = checkpoints.load(file)
    assert loaded.image_size == 1024 and loaded.source == str(file) and not loaded.model.training
    mine, theirs = loaded.model.state_dict(), tiny.state_dict()
    assert mine.keys() == theirs.keys()
    for name in mine:
        torch.testing.assert_close(mine[name], theirs[name], msg=name)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda t: t.pop("no_obj_ptr"), "lacks no_object_pointer"),
        (lambda t: t.update(another=torch.zeros(1)), "has unknown another"),
        (lambda t: t["no_obj_ptr"].fill_(float("nan")), "no_object_pointer has values that are not finite"),
        (lambda t: t.update({7: torch.zeros(1)}), "no tensors under"),
        (lambda t: t.update(no_obj_ptr=torch.zeros(1, 7)), "no_object_pointer is (1, 7) instead of (1, 256)"),
        (lambda t: t.pop("image_encoder.trunk.patch_embed.proj.weight"), "not a SAM 2 model of shape tiny, small"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_in_one_line(tiny, tmp_path, spoil, says):
    tensors = {n: t.clone() for n, t in tensors_of(tiny, published_names([1, 2, 7, 2], "2.1")).items()}
    spoil(tensors)
    torch.save({"model": tensors}, tmp_path / "bad.pt")
    with pytest.raises(NoCheckpoint) as refused:
        checkpoints.load(tmp_path / "bad.pt")
    assert says in str(refused.value) and "\n" not in str(refused.value)


class Evil:
    def __reduce__(self):
        return (print, ("run by a pickle",))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("pickle", "is damaged, or is no checkpoint that PyTorch saved"),
        ("noise", "is damaged, or is no checkpoint that PyTorch saved"),
        ("half", "is damaged, or is no checkpoint that PyTorch saved"),
        ("torch", "holds Python objects, which can run code; only tensors load"),
        ("other", 'has no tensors under "model"'),
    ],
)
def test_only_tensors_are_read(tmp_path, capsys, content, says):
    file = tmp_path / "evil.pt"
    if content == "pickle":
        file.write_bytes(pickle.dumps(Evil()))
    elif content == "noise":
        file.write_bytes(b"not a checkpoint")
    else:
        torch.save({"model": Evil()} if content == "torch" else [1, 2], file)
    if content == "half":
        file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(NoCheckpoint) as refused:
        checkpoints.load(file)
    assert "evil.pt" in str(refused.value) and says in str(refused.value) and "\n" not in str(refused.value)
    assert "weights_only" not in str(refused.value)
    assert "run by a pickle" not in capsys.readouterr().out


def test_a_missing_file_is_named():
    with pytest.raises(NoCheckpoint, match="no such file"):
        checkpoints.load("nowhere/sam2.1_hiera_tiny.pt")
