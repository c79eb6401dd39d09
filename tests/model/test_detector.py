"""Detectors: boxes of words, from real models with tiny random weights."""

import numpy as np
import pytest
import torch
from transformers.models.bert.tokenization_bert import BertTokenizer
from transformers.models.clip.tokenization_clip import CLIPTokenizer
from transformers.models.grounding_dino.configuration_grounding_dino import GroundingDinoConfig
from transformers.models.grounding_dino.image_processing_pil_grounding_dino import GroundingDinoImageProcessorPil
from transformers.models.grounding_dino.modeling_grounding_dino import GroundingDinoForObjectDetection
from transformers.models.grounding_dino.processing_grounding_dino import GroundingDinoProcessor
from transformers.models.owlv2.configuration_owlv2 import Owlv2Config
from transformers.models.owlv2.image_processing_pil_owlv2 import Owlv2ImageProcessorPil
from transformers.models.owlv2.modeling_owlv2 import Owlv2ForObjectDetection
from transformers.models.owlv2.processing_owlv2 import Owlv2Processor

from model import detector
from model.detector import Detector, NoDetector

H, W = 48, 80


def owl(folder):
    """OWLv2 of two tiny transformers, saved in a folder."""
    torch.manual_seed(0)
    letters = [chr(c) for c in range(97, 123)]
    ends = ["<|startoftext|>", "<|endoftext|>"]
    vocab = {token: i for i, token in enumerate([*letters, *(f"{x}</w>" for x in letters), *ends])}
    tokenizer = CLIPTokenizer(vocab=vocab, merges=[], model_max_length=16)
    last = {"pad_token_id": 0, "bos_token_id": len(vocab) - 2, "eos_token_id": len(vocab) - 1}
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Owlv2Config(
        text_config={**size, **last, "vocab_size": len(vocab), "max_position_embeddings": 16},
        vision_config={**size, "image_size": 64, "patch_size": 16},
        projection_dim=16,
    )
    Owlv2ForObjectDetection(config).save_pretrained(folder)
    Owlv2Processor(Owlv2ImageProcessorPil(size={"height": 64, "width": 64}), tokenizer).save_pretrained(folder)
    return folder


def dino(folder):
    """Grounding DINO over a tiny Swin and a tiny BERT, saved in a folder."""
    torch.manual_seed(0)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", "person", "dog"]
    tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(words)})
    config = GroundingDinoConfig(
        backbone_config={
            "model_type": "swin",
            "embed_dim": 8,
            "depths": [1, 1, 1, 1],
            "num_heads": [1, 1, 1, 1],
            "window_size": 2,
            "image_size": 64,
            "out_features": ["stage2", "stage3", "stage4"],
        },
        text_config={
            "model_type": "bert",
            "vocab_size": len(words),
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 32,
        },
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        num_queries=8,
        max_text_len=16,
    )
    GroundingDinoForObjectDetection(config).save_pretrained(folder)
    images = GroundingDinoImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 96})
    GroundingDinoProcessor(images, tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=[owl, dino], ids=["owlv2", "grounding-dino"])
def folder(request, tmp_path_factory):
    return request.param(tmp_path_factory.mktemp("detector"))


@pytest.fixture
def rgb():
    return np.random.default_rng(0).integers(0, 255, (H, W, 3)).astype(np.uint8)


def test_a_saved_detector_gives_boxes_inside_the_picture_each_with_one_of_the_words(folder, rgb):
    found = detector.load(str(folder)).find(rgb, ["person", "dog"], 0.0)
    assert found and [d.score for d in found] == sorted((d.score for d in found), reverse=True)
    for each in found:
        x0, y0, x1, y1 = each.box_xyxy
        assert 0 <= x0 < x1 <= W and 0 <= y0 < y1 <= H and each.word in ("person", "dog")
    middle = found[len(found) // 2].score
    assert len(detector.load(str(folder)).find(rgb, ["person", "dog"], middle + 1e-6)) < len(found)


def test_a_folder_without_a_detector_is_refused_in_one_line(tmp_path):
    with pytest.raises(NoDetector, match=str(tmp_path)) as error:
        detector.load(str(tmp_path))
    assert "\n" not in str(error.value)


def test_a_detector_without_numbers_is_an_error(folder, rgb):
    loaded = detector.load(str(folder))
    for parameter in loaded._model.parameters():
        parameter.data.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="no numbers"):
        loaded.find(rgb, ["person"], 0.0)


@pytest.mark.parametrize(
    "text, word",
    [
        ("dog", "dog"),
        ("guide dog", "guide dog"),
        ("person. dog. [SEP]", "person"),
        ("guide", "guide dog"),
        ("##ski", None),
        ("", None),
    ],
)
def test_a_detectors_text_is_matched_with_the_words_that_were_asked(text, word):
    assert detector.named(text, ["person", "dog", "guide dog"]) == word


def test_the_device_and_the_mode_are_set():
    model = torch.nn.Linear(1, 1)
    Detector(model, None)
    assert not model.training
