from dataclasses import replace
from decimal import Decimal

import pytest

from providers.catalogue import ALIASES, BY_ID, MODELS, UnknownModel, find, price_usd
from providers.contract import GenerationRequest
from providers.models import Sound, can


def request(**changes):
    base = GenerationRequest(model="gen4.5", prompt="a cat", duration_s=5, aspect_ratio="16:9")
    return replace(base, **changes)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.id)
def test_every_model_is_complete_and_priced(model):
    assert model.provider in {"runway", "pika", "kling"}
    assert model.text or model.image
    assert bool(model.text_ratios) == model.text
    assert model.durations_s
    assert all(1 <= seconds <= 60 for seconds in model.durations_s)
    assert model.price_usd_per_s
    assert set(model.resolutions) <= {"720p", "1080p"}
    assert all(isinstance(price, Decimal) and price > 0 for price in model.price_usd_per_s.values())
    assert bool(model.sound_price_usd_per_s) == (model.sound is Sound.OPTIONAL)
    assert set(model.sound_price_usd_per_s) <= set(model.resolutions)
    assert 1 <= model.quality <= 5
    assert 1 <= model.speed <= 5
    assert 0 < model.typical_render_s < model.longest_render_s
    assert model.source.startswith("https://")
    assert model.title
    assert model.prompt_limit > 0


def test_ids_are_unique_and_aliases_point_to_models_of_the_right_kind():
    assert len(BY_ID) == len(MODELS)
    for alias, (text, image) in ALIASES.items():
        assert alias == alias.lower()
        assert alias not in BY_ID
        assert BY_ID[image].image
        assert BY_ID[text].text or text == image  # gen4_turbo's own spellings


def test_each_provider_makes_videos_from_text_and_from_images():
    for provider in ("runway", "pika", "kling"):
        ours = [model for model in MODELS if model.provider == provider]
        assert any(model.text for model in ours)
        assert any(model.image for model in ours)


@pytest.mark.parametrize(
    ("name", "text", "image"),
    [
        ("gen4.5", "gen4.5", "gen4.5"),
        ("runway-gen3", "gen4.5", "gen4_turbo"),
        ("gen3a_turbo", "gen4.5", "gen4_turbo"),
        ("pika-1.0", "pika-2.2", "pika-2.2"),
        ("fal-ai/pika/v2/turbo/text-to-video", "pika-turbo", "pika-turbo"),
        ("kling", "kling-2.5-turbo", "kling-2.5-turbo"),
        ("kling-v1", "kling-2.5-turbo", "kling-2.5-turbo"),
        (" Kling-V2-6 ", "kling-2.6", "kling-2.6"),
    ],
)
def test_names_of_the_user_keep_their_meaning(name, text, image):
    assert (find(name, image=False).id, find(name, image=True).id) == (text, image)


def test_unknown_name_is_refused_with_what_looks_alike():
    with pytest.raises(UnknownModel, match="gen4_turbo") as caught:
        find("gen4_turbos", image=False)
    assert isinstance(caught.value, KeyError)
    assert caught.value.suggestions[0] == "gen4_turbo"
    with pytest.raises(UnknownModel, match=r"^There is no model 'sora'\.$"):
        find("sora", image=False)


@pytest.mark.parametrize(
    ("model", "changes", "field"),
    [
        ("gen4.5", {}, None),
        ("gen4.5", {"duration_s": 10, "aspect_ratio": "9:16", "seed": 0}, None),
        ("gen4.5", {"duration_s": 11}, "duration"),
        ("gen4.5", {"aspect_ratio": "1:1"}, "aspectRatio"),
        ("gen4.5", {"aspect_ratio": "1:1", "image_url": "https://x/y.png"}, None),
        ("gen4.5", {"resolution": "1080p"}, "resolution"),
        ("gen4.5", {"negative_prompt": "rain"}, "negativePrompt"),
        ("gen4.5", {"sound": True}, "sound"),
        ("gen4.5", {"seed": 2**32}, "seed"),
        ("gen4.5", {"seed": -1}, "seed"),
        ("gen4.5", {"prompt": " "}, "prompt"),
        ("gen4.5", {"prompt": "x" * 1000}, None),
        ("gen4.5", {"prompt": "x" * 1001}, "prompt"),
        ("gen4.5", {"prompt": "🐈" * 500}, None),
        ("gen4.5", {"prompt": "🐈" * 501}, "prompt"),  # two UTF-16 units each
        ("kling-2.5-turbo", {"prompt": "🐈" * 2500}, None),
        ("gen4_turbo", {}, "imageUrl"),
        ("gen4_turbo", {"image_url": "https://x/y.png", "prompt": ""}, None),
        ("veo3.1", {"duration_s": 5}, "duration"),
        ("veo3.1", {"duration_s": 4, "seed": 1}, None),
        ("kling-3.0-turbo", {"sound": False}, "sound"),
        ("kling-3.0", {"sound": False}, None),
        ("pika-2.2", {"sound": False}, None),
        ("veo3.1", {"duration_s": 4, "sound": True, "negative_prompt": "rain", "resolution": "1080p"}, None),
        ("pika-2.2", {"aspect_ratio": "4:5", "resolution": "1080p", "negative_prompt": "rain", "seed": 7}, None),
        ("pika-2.2", {"aspect_ratio": "21:9"}, "aspectRatio"),
        ("pika-2.2", {"aspect_ratio": "21:9", "image_url": "https://x/y.png"}, None),  # the image decides
        ("pika-turbo", {"duration_s": 10}, "duration"),
        ("kling-2.5-turbo", {"seed": 1}, "seed"),
        ("kling-2.6", {"sound": True}, "sound"),
        ("kling-2.6", {"sound": True, "resolution": "1080p"}, None),
        ("kling-3.0-turbo", {"sound": True, "duration_s": 15}, None),
        ("kling-3.0", {"resolution": "4k"}, "resolution"),
    ],
)
def test_what_a_model_cannot_do_names_the_field(model, changes, field):
    reason = can(BY_ID[model], request(**changes))
    assert (reason and reason.field) == field, reason


@pytest.mark.parametrize(
    ("model", "duration_s", "resolution", "sound", "price"),
    [
        ("gen4.5", 5, "720p", False, "0.60"),
        ("gen4_turbo", 10, "720p", False, "0.50"),
        ("pika-2.2", 5, "720p", False, "0.20"),
        ("pika-2.2", 5, "1080p", False, "0.45"),
        ("kling-2.5-turbo", 5, "720p", False, "0.21"),
        ("kling-2.6", 10, "1080p", True, "1.40"),
        ("kling-3.0-turbo", 5, "1080p", True, "0.70"),  # always with sound, at one price
        ("veo3.1_fast", 4, "720p", True, "0.60"),
    ],
)
def test_price_is_per_second_and_by_resolution(model, duration_s, resolution, sound, price):
    assert price_usd(BY_ID[model], duration_s, resolution, sound) == Decimal(price)


@pytest.mark.parametrize(("model", "resolution", "sound"), [("gen4.5", "1080p", False), ("kling-2.6", "720p", True)])
def test_combination_that_does_not_exist_has_no_price(model, resolution, sound):
    with pytest.raises(ValueError, match="no price"):
        price_usd(BY_ID[model], 5, resolution, sound)
