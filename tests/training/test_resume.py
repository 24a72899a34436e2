"""A training goes on only with the model, the data and the method that it was begun with."""

from __future__ import annotations

from pathlib import Path

import pytest

import rl.settings
import sft.settings
from cof_agent.data.unusable import IMAGE_MISSING, LeftOut, write_left_out
from cof_agent.errors import InputError
from cof_agent.training.resume import FINISHED, check_continues, check_data
from cof_agent.training.settings import write_record

GIVEN = {"model": "nano", "data": "tests", "use_cpu": "true", "report_to": "none"}


def parse(output: Path, **changes: str) -> sft.settings.Settings:
    given = GIVEN | {"output_dir": str(output)} | changes
    return sft.settings.parse([text for key, value in given.items() for text in (f"--{key}", value)])


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """The folder of a training that was interrupted behind its fifth step."""
    output = tmp_path / "run"
    checkpoint = output / "checkpoint-5"
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer_state.json").write_text("{}")
    (checkpoint / "optimizer.pt").write_text("")
    write_record(parse(output))
    return output


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("learning_rate", "0.5", "learning_rate was 2e-05, and is 0.5"),
        ("images", "scripts", 'images was null, and is .*scripts"'),
        ("warmup_steps", "3", "warmup_steps was 0, and is 3"),
        ("data", "scripts", 'data was .*tests", and is .*scripts"'),
        ("use_peft", "true", "use_peft was false, and is true"),
        ("max_zooms", "2", "max_zooms was null, and is 2"),
        ("max_length", "77", "max_length was [0-9]+, and is 77"),
        ("gradient_accumulation_steps", "3", "rows_per_update was 8, and is 24"),
        ("lora_target_modules", "all-linear", "lora_target_modules was null, and is .*all-linear"),
    ],
)
def test_other_settings_are_refused_by_name(begun: Path, key: str, value: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        check_continues(parse(begun, **{key: value}))
    assert str(begun) in str(caught.value)


def test_the_same_goes_on_for_longer_elsewhere_and_with_other_records(begun: Path) -> None:
    check_continues(parse(begun))
    check_continues(parse(begun, max_steps="50", logging_steps="1", threads="2", data=str(Path("tests").resolve())))
    check_continues(parse(begun, per_device_train_batch_size="2", gradient_accumulation_steps="4"))


def test_what_has_no_checkpoint_yet_may_change(tmp_path: Path) -> None:
    write_record(parse(tmp_path))
    check_continues(parse(tmp_path, learning_rate="0.5"))
    (tmp_path / FINISHED).write_text("{}")
    with pytest.raises(InputError, match="learning_rate"):
        check_continues(parse(tmp_path, learning_rate="0.5"))


def test_a_checkpoint_without_its_optimizer_is_not_gone_on_from(begun: Path) -> None:
    (begun / "checkpoint-5" / "optimizer.pt").unlink()
    with pytest.raises(InputError, match=r"checkpoint-5 holds the model alone \(save_only_model"):
        check_continues(parse(begun))
    (begun / FINISHED).write_text('{"global_step": 5, "epoch": 1.0}')
    check_continues(parse(begun, max_steps="5"))
    with pytest.raises(InputError, match="checkpoint-5 holds the model alone"):
        check_continues(parse(begun, max_steps="9"))
    (begun / "checkpoint-5" / "global_step5").mkdir()  # DeepSpeed's
    check_continues(parse(begun))


def test_a_finished_model_without_a_checkpoint_is_not_begun_anew(tmp_path: Path) -> None:
    write_record(parse(tmp_path))
    (tmp_path / FINISHED).write_text('{"global_step": 5, "epoch": 1.0}')
    check_continues(parse(tmp_path, max_steps="5"))
    with pytest.raises(InputError, match=f"{tmp_path} holds the model alone .*--model {tmp_path} begins anew"):
        check_continues(parse(tmp_path, max_steps="9"))


def test_rewards_and_sampling_are_part_of_the_method(tmp_path: Path) -> None:
    def settings(*more: str) -> rl.settings.Settings:
        given = GIVEN | {"output_dir": str(tmp_path)}
        return rl.settings.parse([*(text for key, value in given.items() for text in (f"--{key}", value)), *more])

    write_record(settings())
    (tmp_path / FINISHED).write_text("{}")
    with pytest.raises(InputError, match="rewards was .* temperature was 1.0, and is 0.7"):
        check_continues(settings("--rewards", "format", "--temperature", "0.7"))


def test_other_samples_under_the_same_name_are_refused(begun: Path) -> None:
    settings, data = parse(begun), {"samples": 4, "digest": 1}
    check_data(begun, data)  # of an older version, which kept no figures
    write_record(settings, data)
    check_data(begun, data)
    with pytest.raises(
        InputError, match=r"was trained on other samples \(4 then, 7 now\), .* name another output_dir\.$"
    ):
        check_data(begun, {"samples": 7, "digest": 2})
    lost = [LeftOut(IMAGE_MISSING, row, "samples.jsonl", f"images/{row}.png") for row in range(1, 6)]
    told = "what could not be used: row 1 of samples.jsonl (image file not found images/1.png), row 2 of samples.jsonl (image "
    for count, end in ((2, "images/2.png)."), (5, f"images/3.png), and 2 more in {begun}/left_out.jsonl.")):
        write_left_out(begun / "left_out.jsonl", lost[:count])
        with pytest.raises(InputError, match=r"\(4 then, 3 now\)") as caught:
            check_data(begun, {"samples": 3, "digest": 2})
        assert told in str(caught.value) and str(caught.value).endswith(end)
